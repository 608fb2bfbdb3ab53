"""Copy a study's finished runs and its report to where they are kept in version control.

A published run has its history and test logits as they are. Those that are to be looked at have
their weights too, in half precision and only where the file stays small, and their executed
notebook; their record says what error those very weights make.
"""

import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import torch

from senet_lib.data.datasets import hold_out, load_data
from senet_lib.errors import RecordError
from senet_lib.evaluation import error_and_loss, predict
from senet_lib.files import replacing_folder, write_whole
from senet_lib.recipe import load_study
from senet_lib.runs.lock import locked
from senet_lib.runs.published import MAX_WEIGHTS_BYTES, PUBLISHED
from senet_lib.runs.records import (
    DEFAULT_ROOT,
    HISTORY,
    LOGITS,
    RunRecord,
    anchored,
    list_runs,
    load_run,
    save_record,
)
from senet_lib.runs.weights import WEIGHTS, load_network, save_weights

NOTEBOOK = "train.ipynb"
REPORTS = Path("outputs/reports")
COPIED = (
    "profile.html",
    "gradcam-seed0.html",
    "localisation-*.json",
    "excitation-*.html",
    "gates-*.json",
)


def publish_run(record: RunRecord, folder: Path, *, whole: bool = True) -> None:
    """Copy one run, with the files beside its record, in the place of an earlier copy; the `whole`
    of it has weights and notebook too. SenetError where a file is damaged, or its images are not at
    hand."""
    _check_apart(record.path, folder)
    record.verify()
    with replacing_folder(folder) as partial:
        for name in (HISTORY, LOGITS):
            shutil.copyfile(record.path / name, partial / name)
        if whole and (record.path / NOTEBOOK).is_file():
            shutil.copyfile(record.path / NOTEBOOK, partial / NOTEBOOK)
        error = None
        if whole and 2 * record.num_params <= MAX_WEIGHTS_BYTES:
            model, spec = load_network(record.path / WEIGHTS)
            save_weights(partial / WEIGHTS, model.half(), spec)
            error = _error_of(partial / WEIGHTS, record)
        save_record(replace(record, path=partial, weights_error=error))


def _check_apart(source: Path, target: Path) -> None:
    """Refuse to copy a folder onto itself, into itself or onto one that it lies in."""
    inner, outer = source.resolve(), target.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise RecordError(
            f"{target} is the source {source}, or one lies in the other; name another"
        )


def _error_of(weights: Path, record: RunRecord) -> float:
    """Error that these weights make on the images the run was evaluated on."""
    dataset = load_data(record.data)
    if record.num_val:
        dataset = hold_out(dataset, record.num_val)
    if dataset.fingerprint != record.data_fingerprint:
        raise RecordError(f"{record.data} is no longer what {record.path} was trained on")
    logits = predict(load_network(weights)[0], dataset.x_test, record.mean, record.std)
    return error_and_loss(logits, torch.from_numpy(dataset.y_test))[0]


def publish_study(
    study: str,
    root: str | Path = DEFAULT_ROOT,
    target: str | Path = PUBLISHED,
    keep: Sequence[str] = ("*",),
) -> list[Path]:
    """Copy every finished run of a study; the folders of the copies. A run that is damaged, or
    there twice, is left out and named on stderr.

    Args:
        study: its name, a folder below `root`.
        keep: the runs whose weights and notebook are kept, by patterns of <model>/seed<k>.
        root: the folder of all runs.
        target: the folder of what is published; the runs go to <target>/runs/<study>.
    Raises:
        RecordError: the study has no finished run, or would be copied onto itself.
        RunExistsError: another process is publishing the study right now.
    """
    source, goal = Path(root) / study, Path(target) / "runs" / study
    _check_apart(source, goal)
    table = list_runs(source)
    table = table[~table["status"].isin(["failed", "unfinished"])]
    for path, problem in table[table["problem"] != ""][["path", "problem"]].values:
        print(f"note: {path} is left out: {problem}", file=sys.stderr)
    folders = [Path(path) for path in table["path"][table["problem"] == ""]]
    if not folders:
        raise RecordError(f"there is no finished run in {source}; `senet runs` lists what there is")
    copies = []
    with locked(goal.with_name(f".{study}.lock"), f"{goal} is being written by another process"):
        for folder in folders:
            name = folder.relative_to(source)
            whole = any(fnmatchcase(name.as_posix(), pattern) for pattern in keep)
            publish_run(load_run(folder), goal / name, whole=whole)
            copies.append(goal / name)
    return copies


def publish_report(study: str, config: str = "", target: str | Path = PUBLISHED) -> Path:
    """Write the report of the published runs to <target>/reports/<study>/index.html, and beside it
    a page for each axis that the settings, if given, name; the page. The workflow's pages of costs,
    maps (of seed 0) and gates are copied with their numbers, for they take long or were measured
    alone on the machine, and so is the gallery of every run of seed 0 whose weights are published.
    """
    from senet_lib.report.batch import execute

    target = Path(target)
    folder = target / "reports" / study
    parameters = {
        "study": study,
        "config": config,
        "runs_root": str(target / "runs"),
        "page_folder": str(folder),
    }
    made = anchored(REPORTS) / study
    _check_apart(made, folder)
    for path in sorted(path for pattern in COPIED for path in made.glob(pattern)):
        write_whole(folder / path.name, path.read_bytes())
    for weights in (target / "runs" / study).glob(f"*/seed0/{WEIGHTS}"):
        name = f"gallery-{weights.parent.parent.name}-seed0"
        if (made / name / "index.html").is_file():
            write_whole(folder / name / "index.html", (made / name / "index.html").read_bytes())
    for axis in load_study(config).axes if config else ():
        page = folder / f"ablation-{axis}"
        execute(
            "ablation",
            page.with_suffix(".ipynb"),
            {**parameters, "axis": axis},
            html=page.with_suffix(".html"),
        )
    notebook = execute("report", folder / "report.ipynb", parameters, html=folder / "index.html")
    notebook.unlink()  # large, and the page has all of it
    for page in folder.rglob("*.html"):
        _drop_dead_links(page)
    return folder / "index.html"


def _drop_dead_links(page: Path) -> None:
    """Make plain text of the links to files of a run that are not published, such as its page."""

    def checked(link: re.Match[str]) -> str:
        return link[0] if (page.parent / unquote(unescape(link[1]))).exists() else link[2]

    text = page.read_text(encoding="utf-8")
    mended = re.sub(r'<a href="([^"#:]+)">(.*?)</a>', checked, text, flags=re.DOTALL)
    if mended != text:
        write_whole(page, mended)
