"""What the tests of faults share: a tiny data set, processes to harm, and how often to do it.

By default they take about a minute together; with SENET_FAULTS=full they do what their names say
as often as is meant: 50 kills, every moment of every write, 500 damaged files.
"""

import multiprocessing

import numpy as np
import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory, shapes):
    """48 training and 16 test images of shapes, as a file of one's own."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    arrays = {
        "x_train": shapes.x_train[:48],
        "y_train": shapes.y_train[:48].astype(np.uint8),
        "x_test": shapes.x_test[:16],
        "y_test": shapes.y_test[:16].astype(np.uint8),
    }
    np.savez(path, **arrays, classes=np.array(shapes.classes))
    return str(path)


@pytest.fixture(scope="session")
def processes():
    """A multiprocessing context whose processes begin with the package imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["victims"])
    return context
