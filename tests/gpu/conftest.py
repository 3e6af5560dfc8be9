"""Everything here needs a GPU."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
