"""What the tests of faults share: a tiny data set, processes to harm, and how often to do it.

By default they take about a minute together; with SENET_FAULTS=full they do what their names say
as often as is meant: 50 kills, every moment of every write, 500 damaged files.
"""

import multiprocessing

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """48 training and 16 test images, as a file of one's own."""
    from fake_runs import save_shapes

    return save_shapes(tmp_path_factory.mktemp("data") / "tiny.npz", 48, 16)


@pytest.fixture(scope="session")
def start():
    """Starts a process that calls a function and begins with the package imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["victims"])

    def call(target, *arguments):
        process = context.Process(target=target, args=arguments)
        process.start()
        return process

    return call
