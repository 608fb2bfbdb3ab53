"""What all tests share: threads, seeds, data sets and a recipe small enough for a test.

Imports of the package stand inside the fixtures, so that a broken module fails its own tests alone.
"""

import os
from pathlib import Path

# Set before anything imports numpy, torch or matplotlib, and inherited by started processes.
# Several workers share the machine, so each takes one thread.
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest


@pytest.fixture(autouse=True)
def _steady() -> None:
    """One thread a worker and the same seeds before every test."""
    import random

    import numpy as np
    import torch

    if "PYTEST_XDIST_WORKER" in os.environ and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (for code under test that would draw from the global generator)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shapes():
    """The embedded data set."""
    from senet_lib.data.datasets import load_data

    return load_data("shapes")


@pytest.fixture(scope="session")
def cifar10():
    """The real CIFAR-10. Never downloads: skips where no cifar10.npz lies in the data folder."""
    from senet_lib.data.datasets import load_data

    folder = Path(os.environ.get("SENET_DATA") or Path.home() / ".cache" / "senet")
    if not (folder / "cifar10.npz").is_file():
        pytest.skip(f"no cifar10.npz in {folder}; set SENET_DATA to the folder that holds it")
    return load_data("cifar10", folder)


@pytest.fixture
def tiny_recipe():
    """One epoch in small batches: enough to go through every line of training."""
    from senet_lib.recipe import Recipe

    return Recipe(epochs=1, batch_size=16, lr=0.05, schedule=())
