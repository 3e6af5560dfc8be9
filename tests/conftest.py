"""Fixtures that all tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent


def pytest_configure(config):
    # A machine of one processor is told that two loader processes are many for it.
    config.addinivalue_line("filterwarnings", "ignore:.*suggested max number of worker")


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    """Two, or one where that is all the machine or the user allows: the tests' problems are small."""
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture
def one_thread():
    """Sums in an order that depends on no number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
