"""Fixtures that all tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def _two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data folder beside the checkout."""
    path = HERE.parent.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"needs the data folder {path}")
    return path


@pytest.fixture(scope="session")
def reference():
    """``reference("loss")``: the arrays of tests/reference/loss.npz as tensors, by name."""

    def load(name: str) -> dict[str, torch.Tensor]:
        with np.load(HERE / "reference" / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    return load
