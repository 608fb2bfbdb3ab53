"""The index: every notebook with its question, every study with its runs, and working links."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from fake_runs import make_run, settings

from senet_lib.recipe import Recipe
from senet_lib.report import index
from senet_lib.report.batch import execute

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


def rows(text: index.Text) -> list[list[str]]:
    """The cells of a Markdown table below its head."""
    lines = [line for line in text.markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def links(text: index.Text) -> list[str]:
    return [unquote(target) for target in re.findall(r"\]\((.*?)\)", text.markdown)]


def test_every_notebook_stands_there_with_its_first_heading():
    found = dict(rows(index.notebooks(ROOT / "notebooks")))
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert len(found) == len(paths) - 1 >= 5  # all but the index itself
    for path in paths:
        title = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0]
        link = f"[{path.stem}]({path.name})"
        assert path.stem == "index" or found[link] == title.removeprefix("# ").strip()


def test_the_notebooks_of_the_clone_one_stands_in_come_first(clone):
    cell = {"cell_type": "markdown", "source": ["An aside.\n", "# Why | how?"], "metadata": {}}
    (clone / "notebooks" / "train.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert ["[train](train.ipynb)", "Why \\| how?"] in rows(index.notebooks())


def test_a_study_says_what_has_become_of_its_runs(clone):
    configure(clone)
    root = clone / "outputs" / "runs"
    make_run(root, "resnet20", 0, 0.50)
    make_run(root, "resnet20", 1, 0.54)
    make_run(root, "se_resnet20", 0, 0.40)
    (root / "demo/se_resnet20/seed1").mkdir()
    (root / "demo/se_resnet20/seed1/checkpoint.pt").touch()
    (row,) = rows(index.studies())
    study, where, trained, states, errors, report = row
    assert (study, where) == ("**demo**", "this disk")
    assert trained == "2 epochs over 2,000 images of shapes, constant rate"
    assert states == "3 of 4 finished, 1 unfinished"
    assert errors == "40.00 to 52.00 (2 networks)"
    assert report == "`make study STUDY=demo`"
    plain, gated = rows(index.runs())
    assert plain[:4] == ["demo", "this disk", "resnet20", "52.00"]
    assert gated[3:] == ["40.00", "[0](../outputs/runs/demo/se_resnet20/seed0/record.json), "
                         "1 (unfinished)"]  # fmt: skip


def test_the_report_and_the_executed_notebooks_are_one_click_away(clone):
    name = "se_resnet20+gate=tanh"
    run = make_run(clone / "outputs" / "runs", name, 0, 0.40)
    (run.path / "train.ipynb").touch()
    report = clone / "outputs" / "reports" / "demo" / "index.html"
    report.parent.mkdir(parents=True)
    report.touch()
    make_run(clone / "outputs" / "published" / "runs", "resnet20", 2, 0.3, study="kept")
    assert [row[1] for row in rows(index.studies())] == ["this disk", "published"]
    targets = links(index.studies()) + links(index.runs())
    assert all((Path.cwd() / target).is_file() for target in targets)
    assert {Path(target).resolve() for target in targets} == {
        report,
        run.path.resolve() / "train.ipynb",
        clone / "outputs/published/runs/kept/resnet20/seed2/record.json",
    }
    assert links(index.studies(page_folder=report.parent)) == ["index.html"]


def test_recipes_of_one_study_are_told_apart(clone):
    make_run(clone / "outputs" / "runs", "resnet20", 0, 0.5)
    make_run(clone / "outputs" / "runs", "resnet20", 1, 0.5, recipe=Recipe(epochs=1))
    (row,) = rows(index.studies())
    assert "2 epochs over" in row[2]
    assert "; 1 epoch over" in row[2]
    assert row[3:5] == ["2 finished", "50.00"]


def test_an_empty_disk_says_what_to_do(clone):
    configure(clone)
    (clone / "configs" / "broken.yaml").write_text("study: [")
    (row,) = rows(index.studies())
    assert row[3:] == ["0 of 4 finished", "", "`make study STUDY=demo`"]
    assert "No run was made on this disk yet. `make study`" in index.studies().markdown
    assert index.runs().markdown.startswith("None. `make study`")
    make_run(clone / "outputs" / "published" / "runs", "resnet20", 2, 0.3, study="kept")
    assert "No run was made on this disk yet" in index.studies().markdown


def test_the_notebook_runs_on_an_empty_disk(tmp_path):
    out = execute(
        "index",
        tmp_path / "index.ipynb",
        {"runs_root": tmp_path / "none", "page_folder": tmp_path},
        html=tmp_path / "index.html",
    )
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "No run was made on this disk yet" in page
    assert "How well does this network learn" in page
    assert "from senet_lib import index" not in page
    assert '"output_type": "error"' not in out.read_text(encoding="utf-8")
