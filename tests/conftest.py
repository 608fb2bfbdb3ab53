"""What all tests share: threads, seeds, data sets, and what a mistake must be told by.

Imports of the package stand inside the fixtures, so that a broken module fails its own tests alone.
"""

import os
import re
import shutil

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


@pytest.fixture(autouse=True)
def _environment():
    """A test leaves the environment as it was; plugins, for one, are named there."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def _one_line(monkeypatch):
    """A user's mistake is told in one line, whichever test makes it."""
    from senet_lib.errors import SenetError

    told = []
    monkeypatch.setattr(SenetError, "__init__", lambda _, *words: told.extend(map(str, words)))
    yield
    assert not [text for text in told if "\n" in text]


@pytest.fixture(scope="session")
def shapes():
    """The embedded data set."""
    from senet_lib.data.datasets import load_data

    return load_data("shapes")


@pytest.fixture(scope="session")
def cifar10():
    """The real CIFAR-10. Never downloads: skips where no cifar10.npz lies in the data folder."""
    from senet_lib.data.datasets import data_dir, load_data

    if not (data_dir() / "cifar10.npz").is_file():
        pytest.skip(f"no cifar10.npz in {data_dir()}; set SENET_DATA to the folder that holds it")
    return load_data("cifar10")


@pytest.fixture
def untouched():
    """A block that leaves a model's modes, hooks, tensors and gradients as they were."""
    from contextlib import contextmanager
    from copy import deepcopy

    import torch

    def look(model):
        parts = [(m.training, [*m._forward_hooks, *m._forward_pre_hooks]) for m in model.modules()]
        kinds = [(type(p), p.requires_grad, p.dtype, p.stride()) for p in model.parameters()]
        slopes = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return (parts, kinds), deepcopy((model.state_dict(), slopes))

    @contextmanager
    def block(model):
        before, tensors = look(model)
        yield
        after, same = look(model)
        assert after == before
        torch.testing.assert_close(same, tensors, rtol=0, atol=0)

    return block


@pytest.fixture
def prints(capsys):
    """Runs a command that must do what it is asked; gives what it prints."""
    from senet_lib.cli import main

    def call(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture
def says(capsys):
    """Runs a command that must fail with one line matching every pattern, and code 2."""
    from senet_lib.cli import main

    def call(words, *patterns):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as left:
            code = left.code
        error = capsys.readouterr().err
        assert (code, len(error.strip().splitlines())) == (2, 1), error
        assert error.startswith("error: ")
        for pattern in patterns:
            assert re.search(pattern, error), error

    return call


def made_once(tmp_path_factory, name, make):
    """A folder that `make` fills, once for all the workers of a session."""
    from filelock import FileLock

    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, made = root / name, root / f"{name}.made"
    with FileLock(root / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed at it
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The root of a tiny study's runs, which no test changes."""
    return made_once(tmp_path_factory, "study", make_study) / "runs"


def make_study(folder):
    """Train three small networks for a few steps on a few images, which lie beside the runs."""
    from fake_runs import save_shapes

    from senet_lib.recipe import Recipe
    from senet_lib.training.fit import fit

    how = {"device": "cpu", "precision": "fp32", "compile": "off", "progress": "none"}
    how |= {"recipe": Recipe(epochs=1, batch_size=16, lr=0.05, schedule=()), "study": "tiny"}
    how["data"] = save_shapes(folder / "tiny.npz", 80, 60, seed=1)
    for model, seed in (("se_resnet20", 0), ("se_resnet20", 1), ("resnet20", 0)):
        fit(model=model, seed=seed, out=folder / "runs/tiny" / model / f"seed{seed}", **how)


@pytest.fixture(scope="session")
def report(tiny, tmp_path_factory):
    """The report of that study, of which one run failed and two are missing; no test changes it."""
    folder = made_once(tmp_path_factory, "report", lambda folder: make_report(tiny, folder))
    return folder / "reports/tiny/index.html"


def make_report(tiny, folder):
    """Lay the runs in a folder and execute their report there."""
    import json

    from senet_lib.report.batch import execute
    from senet_lib.runs.records import load_run

    root = shutil.copytree(tiny, folder / "runs")
    run = load_run(root / "tiny/resnet20/seed0")
    (run.path / "train.html").write_text("<p>page</p>")
    failed = root / "tiny/resnet20/seed1"
    failed.mkdir(parents=True)
    (failed / "failed.json").write_text(json.dumps({"error": "OSError", "message": "no space"}))
    asked = {"study": "tiny", "protocol": run.protocol, "data": run.data, "recipe": run.recipe}
    asked |= {"models": ["resnet20", "se_resnet20"], "seeds": [0, 1, 2]}
    (folder / "tiny.yaml").write_text(json.dumps(asked))
    page = folder / "reports/tiny/index.html"
    values = {"study": "tiny", "config": str(folder / "tiny.yaml"), "runs_root": root}
    values |= {"page_folder": page.parent, "num_worse": 70, "look_per_class": 3}
    execute("report", page.with_name("report.ipynb"), values, html=page)
