"""The index: every notebook with its question, every study with its runs, and working links."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml
from fake_runs import RECIPE, make_run, settings
from notebook_cells import run_cells

from senet_lib.cli import main
from senet_lib.errors import SenetError
from senet_lib.lab import look_at_what_is_here, written
from senet_lib.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone without runs, seen from its notebooks."""
    (tmp_path / "Snakefile").touch()
    for name in ("senet_lib", "notebooks", "configs", "outputs/published"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def configure(clone: Path, **changes) -> None:
    content = yaml.safe_dump(settings(**changes))
    (clone / "configs" / f"{changes.get('study', 'demo')}.yaml").write_text(content)


def tables(**parameters) -> dict[str, pd.DataFrame]:
    """The frames that the notebook shows, by their first column or the name of their rows."""
    shown = [t.data for t in run_cells("index", **parameters)["outputs"] if hasattr(t, "data")]
    return {frame.columns.name or frame.columns[0]: frame for frame in shown}


def test_every_notebook_stands_there_with_its_first_heading():
    found = dict(tables(page_folder=ROOT / "notebooks")["notebook"].itertuples(index=False))
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert len(found) == len(paths) - 1 >= 5  # all but the index itself
    for path in paths:
        title = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0]
        link = f'<a href="{path.name}">{path.stem}</a>'
        assert path.stem == "index" or found[link] == title.removeprefix("# ").strip()


def test_a_study_says_what_has_become_of_its_runs_and_leads_to_them(clone):
    configure(clone)
    root = clone / "outputs" / "runs"
    run = make_run(root, "resnet20", 0, 0.50)
    (run.path / "train.ipynb").touch()
    make_run(root, "resnet20", 1, 0.54, recipe=Recipe(epochs=1))
    make_run(root, "se_resnet20", 0, 0.40)
    make_run(root, "resnet32", 0, 0.45)  # which the study does not ask for
    own = make_run(root, "se_resnet20", 2, 0.90, overrides={"reduction": 4})  # neither this one
    (root / "demo/se_resnet20/seed1").mkdir()
    (root / "demo/se_resnet20/seed1/checkpoint.pt").touch()
    report = clone / "outputs" / "reports" / "demo" / "index.html"
    report.parent.mkdir(parents=True)
    report.touch()
    make_run(clone / "outputs" / "published" / "runs", "resnet20", 2, 0.3, study="kept")
    found = tables()
    assert found["study"]["where"].tolist() == ["this disk", "published"]
    study = found["study"].loc["demo"]
    ways = study["trained for"].split("; ")
    assert [way.split(",")[0] for way in ways] == ["2 epochs over 2", "1 epoch over 2"]
    assert study["runs"] == "3 of 4 finished, 2 more, 1 unfinished"
    assert (study["lowest"], study["highest"]) == pytest.approx((40, 90))
    errors = found["network"].set_index("network")["mean error %"].round(6)
    assert (errors["resnet20"].max(), errors["se_resnet20"], errors[own.network]) == (52, 40, 90)
    html = found["study"].to_html(escape=False) + found["network"].to_html(escape=False)
    links = {Path(unquote(target)).resolve() for target in re.findall(r'href="(.*?)"', html)}
    kept = clone / "outputs/published/runs/kept/resnet20/seed2/record.json"
    assert {report, run.path.resolve() / "train.ipynb", kept} <= links


def test_the_index_is_full_when_jupyterlab_opens(clone, monkeypatch, capsys):
    """And git is told to leave outputs aside; what follows -- is JupyterLab's."""
    shutil.copy(ROOT / "notebooks" / "index.ipynb", clone / "notebooks")
    (clone / "senet_lib").rmdir()  # an empty one would hide the library from the kernel
    (clone / "senet_lib").symlink_to(ROOT / "senet_lib")
    make_run(clone / "outputs" / "runs", "se_resnet20", 0, 0.40)
    monkeypatch.chdir(clone)
    subprocess.run(["git", "init", "--quiet"], check=True)
    started = []
    monkeypatch.setattr(os, "execv", lambda _, words: started.extend(words))
    assert main(["lab", "--", "--no-browser"]) == 0
    assert started[-1] == "--no-browser"
    assert "--LabApp.default_url=/lab/tree/outputs/index.ipynb" in started
    shown = (clone / "outputs" / "index.ipynb").read_text(encoding="utf-8")
    assert "runs/demo/se_resnet20/seed0/record.json" in shown
    assert "widget-view" not in shown  # there is no kernel for it
    config = (clone / ".git" / "config").read_text(encoding="utf-8")
    assert "senet_lib.lab" in config


def test_another_repository_is_left_as_it_is(tmp_path, monkeypatch, says):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    before = (tmp_path / ".git" / "config").read_bytes()
    says(["lab"], "no clone")
    (tmp_path / "notebooks").mkdir()  # with an index of its own
    shutil.copy(ROOT / "notebooks" / "index.ipynb", tmp_path / "notebooks")
    says(["lab"], "no clone")
    assert (tmp_path / ".git" / "config").read_bytes() == before
    assert not (tmp_path / "outputs").exists()


def test_jupyterlab_opens_where_the_index_cannot_be_executed(clone, monkeypatch, capsys):
    monkeypatch.chdir(clone)
    with pytest.raises(SenetError, match="index"):  # there is none
        look_at_what_is_here()
    shutil.copy(ROOT / "notebooks" / "index.ipynb", clone / "notebooks")
    (clone / "outputs").rename(clone / "others")
    (clone / "outputs").touch()
    assert look_at_what_is_here() == Path("notebooks/index.ipynb")
    assert "outputs" in capsys.readouterr().err


def test_a_notebook_of_another_kind_is_stripped_and_stays_of_its_kind():
    cell = {
        "cell_type": "code",
        "metadata": {},
        "source": "1",
        "outputs": [1],
        "execution_count": 1,
    }
    kernel = {"display_name": "R 4", "language": "R", "name": "ir"}
    for about in ({}, {"kernelspec": kernel, "language_info": {"name": "R"}}):
        kept = json.loads(written(json.dumps({"cells": [cell], "metadata": about})))
        assert kept["metadata"] == about
        assert kept["cells"][0]["outputs"] == []


def test_an_empty_disk_says_what_to_do(clone):
    configure(clone)
    (clone / "configs" / "broken.yaml").write_text("study: [")
    shown = run_cells("index")["outputs"]
    assert sum("make study" in repr(text) for text in shown if not hasattr(text, "data")) == 2
    (study,) = (t.data for t in shown if getattr(t, "data", pd.DataFrame()).columns.name == "study")
    assert study["runs"].tolist() == ["0 of 4 finished"]


def test_runs_that_are_called_alike_can_both_be_chosen(tmp_path):
    """As a sweep's trials are, which share study, network and seed."""
    for folder, recipe in (("one", RECIPE), ("other", replace(RECIPE, lr=0.01))):
        make_run(tmp_path / folder, "resnet20", 0, 0.3, recipe=recipe)
    names = run_cells("index", "weights", runs_root=str(tmp_path))
    ours = [name for path, name in names["run_names"].items() if str(tmp_path) in path]
    assert len(ours) == len(set(ours)) == 2
