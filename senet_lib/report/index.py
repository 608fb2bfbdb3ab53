"""The tables of the index notebook: what the notebooks ask, and what runs there are on this disk.

They are Markdown, whose relative links JupyterLab opens beside the notebook.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from senet_lib.errors import SenetError
from senet_lib.recipe import Study, load_study
from senet_lib.report.parameters import cell_source, list_notebooks, read_cells
from senet_lib.report.publish import REPORTS
from senet_lib.report.table import Text, escape
from senet_lib.runs.published import published_folder, training_in_words
from senet_lib.runs.records import DEFAULT_ROOT, RECORD, anchored, from_top, list_runs
from senet_lib.wording import counted, each, percent

CONFIGS, HERE = Path("configs"), "this disk"
START = (
    "`make study` in a terminal (File > New > Terminal) trains four small networks on embedded "
    "images in some minutes and writes a report; [train](train.ipynb) trains one, here."
)


def notebooks(page_folder: str | Path = "") -> Text:
    """Every notebook with its question, which is its first heading.

    Args:
        page_folder: the folder that links start from; empty: the current one.
    """
    here = {path.stem: path for path in anchored("notebooks").glob("*.ipynb")}
    rows = [
        [_link(name, path, page_folder), escape(_question(path))]
        for name, path in sorted({**list_notebooks(), **here}.items())
        if name != "index" and not name.endswith(".partial")
    ]
    return _table(["notebook", "what it asks"], rows)


def studies(runs_root: str | Path = DEFAULT_ROOT, page_folder: str | Path = "") -> Text:
    """Every study that has runs, here or published, and every one that is configured.

    Args:
        runs_root: the folder of all runs.
        page_folder: the folder that links start from; empty: the current one.
    Returns:
        A row a study and place: how its networks were trained, how many of the runs that its
        settings ask for have finished and what became of the others, the mean test errors of its
        networks over their seeds, and the report. Where nothing is there, what to do.
    """
    asked, rows = _settings(), []
    for place, table, reports in _places(runs_root):
        for study, runs in table.groupby("study", sort=False):
            report = _link("report", reports / study / "index.html", page_folder)
            done = runs[runs["status"] == "finished"]
            rows.append([
                f"**{escape(study)}**", place, _trained(done), _states(runs, asked.get(study)),
                _errors(done), report or (f"`make study STUDY={study}`" if study in asked else ""),
            ])  # fmt: skip
    seen, here = {row[0] for row in rows}, any(row[1] == HERE for row in rows)
    rows += [
        [f"**{escape(name)}**", "", _planned(study), f"0 of {_num_wanted(study)} finished", "",
         f"`make study STUDY={name}`"]
        for name, study in asked.items()
        if f"**{escape(name)}**" not in seen
    ]  # fmt: skip
    head = [
        "study",
        "where",
        "trained for",
        "runs",
        "mean error %",
        "report, or how to get it",
    ]
    started = "" if here else f"\n\nNo run was made on this disk yet. {START}"
    return Text(_table(head, rows).markdown + started)


def runs(runs_root: str | Path = DEFAULT_ROOT, page_folder: str | Path = "") -> Text:
    """Every network that was trained, with the mean error and a link to the run of each seed.

    Args:
        runs_root: the folder of all runs.
        page_folder: the folder that links start from; empty: the current one.
    """
    rows = []
    for place, table, _ in _places(runs_root):
        for (study, model), group in table.groupby(["study", "model"], sort=False):
            done = group[group["status"] == "finished"]
            errors = done["test_error"].astype(float)
            rows.append([
                escape(study), place, escape(model),
                percent(errors.mean()) if len(done) else "",
                ", ".join(_seed(run, page_folder) for run in group.to_dict("records")),
            ])  # fmt: skip
    if not rows:
        return Text(f"None. {START}")
    return _table(["study", "where", "network", "mean error %", "seeds"], rows)


def _question(path: Path) -> str:
    """The first heading of a notebook."""
    for cell in read_cells(path):
        for line in cell_source(cell).splitlines() if cell["cell_type"] == "markdown" else ():
            if line.startswith("# "):
                return line.removeprefix("# ").strip()
    return ""


def _settings() -> dict[str, Study]:
    """The studies that are configured, by name; a file that is no study is left out."""
    found = {}
    for path in sorted(anchored(CONFIGS).glob("*.yaml")):
        try:
            study = load_study(path)
        except SenetError:
            continue
        found[study.study] = study
    return found


def _places(runs_root: str | Path) -> list[tuple[str, Any, Path]]:
    """Where runs are: a name, the table of runs, and the folder of their reports."""
    here, published = from_top(runs_root, DEFAULT_ROOT), published_folder()
    return [
        (HERE, list_runs(here), anchored(REPORTS)),
        ("published", list_runs(published / "runs"), published / "reports"),
    ]


def _num_wanted(study: Study) -> int:
    return len(study.models) * len(study.seeds)


def _planned(study: Study) -> str:
    fields = {"recipe": study.recipe.to_dict(), "data": study.data, "num_val": 0}
    return escape(training_in_words(fields))


def _trained(done: Any) -> str:
    return escape(each(map(training_in_words, done.to_dict("records")))) if len(done) else ""


def _states(runs: Any, asked: Study | None) -> str:
    """How many runs have finished, of how many, and how many are in which other state."""
    counts = runs["status"].value_counts()
    total = f" of {_num_wanted(asked)}" if asked else ""
    others = [f"{number} {state}" for state, number in counts.items() if state != "finished"]
    return ", ".join([f"{counts.get('finished', 0)}{total} finished", *others])


def _errors(done: Any) -> str:
    """The range of the networks' mean errors over their seeds."""
    means = done["test_error"].astype(float).groupby(done["model"]).mean()
    if len(means) < 2:
        return ", ".join(map(percent, means))
    return f"{percent(means.min())} to {percent(means.max())} ({counted(len(means), 'network')})"


def _seed(run: dict[str, Any], page_folder: str | Path) -> str:
    """A seed that leads to its executed notebook, or else its record, and its state."""
    folder = Path(run["path"])
    name = str(run["seed"]) if run["seed"] == run["seed"] else folder.name
    state = "" if run["status"] == "finished" else f" ({run['status']})"
    files = (*sorted(folder.glob("train*.ipynb"), reverse=True), folder / RECORD)
    target = next((path for path in files if path.is_file()), None)
    return (_link(name, target, page_folder) if target else escape(name)) + state


def _link(text: str, path: Path, page_folder: str | Path) -> str:
    """A relative Markdown link; empty where there is no such file."""
    if not path.is_file():
        return ""
    target = Path(os.path.relpath(path, page_folder or ".")).as_posix()
    return f"[{escape(text)}]({quote(target, safe='/+=')})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Text:
    lines = [head, ["---"] * len(head), *rows]
    return Text("\n".join(f"| {' | '.join(line)} |" for line in lines))
