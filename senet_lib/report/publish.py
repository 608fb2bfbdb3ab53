"""Copy a study's finished runs and its report to where they are kept in version control.

A published run has its record and history as they are and its test logits in half precision. Those
that are to be looked at have their weights too, in half precision and only where the file stays
small, and their executed notebook.
"""

import re
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from senet_lib.errors import RecordError
from senet_lib.files import write_atomically
from senet_lib.recipe import load_study
from senet_lib.runs.published import MAX_WEIGHTS_BYTES, PUBLISHED
from senet_lib.runs.records import (
    DEFAULT_ROOT,
    HISTORY,
    RECORD,
    RunRecord,
    anchored,
    find_runs,
    load_run,
    save_logits,
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
    """Copy one run.

    Args:
        record: the run, with its files beside it.
        folder: where the copy goes; what an earlier copy left there is replaced.
        whole: with weights and notebook.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # until the copy is whole again
    shutil.copyfile(record.path / HISTORY, folder / HISTORY)
    logits, labels = record.test_logits()
    save_logits(folder, logits.astype(np.float16), labels.astype(np.uint8))
    for name in (WEIGHTS, NOTEBOOK):
        (folder / name).unlink(missing_ok=True)
    if whole and 2 * record.num_params <= MAX_WEIGHTS_BYTES:
        model, spec = load_network(record.path / WEIGHTS)
        save_weights(folder / WEIGHTS, model.half(), spec)
    if whole and (record.path / NOTEBOOK).is_file():
        shutil.copyfile(record.path / NOTEBOOK, folder / NOTEBOOK)
    shutil.copyfile(record.path / RECORD, folder / RECORD)


def publish_study(
    study: str,
    root: str | Path = DEFAULT_ROOT,
    target: str | Path = PUBLISHED,
    keep: Sequence[str] = ("*",),
) -> list[Path]:
    """Copy every finished run of a study.

    Args:
        study: its name, a folder below `root`.
        keep: the runs whose weights and notebook are kept, by patterns of <model>/seed<k>.
        root: the folder of all runs.
        target: the folder of what is published; the runs go to <target>/runs/<study>.
    Returns:
        The folders of the copies.
    Raises:
        RecordError: the study has no finished run.
    """
    source = Path(root) / study
    folders = [folder for folder in find_runs(source) if (folder / RECORD).is_file()]
    if not folders:
        raise RecordError(f"there is no finished run in {source}; `senet runs` lists what there is")
    copies = []
    for folder in folders:
        name = folder.relative_to(source)
        copy = Path(target) / "runs" / study / name
        whole = any(fnmatchcase(name.as_posix(), pattern) for pattern in keep)
        publish_run(load_run(folder), copy, whole=whole)
        copies.append(copy)
    return copies


def publish_report(study: str, config: str = "", target: str | Path = PUBLISHED) -> Path:
    """Write the report of the published runs to <target>/reports/<study>/index.html, and beside it
    a page for each axis that the settings name. The workflow's pages of costs, maps (of seed 0) and
    gates are copied with their numbers, for they take long or were measured alone on the machine,
    and so is the gallery of every run of seed 0 whose weights are published.

    Args:
        study: its name.
        config: path of its settings, which say what runs are missing; may be empty.
        target: the folder of what is published.
    Returns:
        The page.
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
    folder.mkdir(parents=True, exist_ok=True)
    made = anchored(REPORTS) / study
    for path in sorted(path for pattern in COPIED for path in made.glob(pattern)):
        shutil.copyfile(path, folder / path.name)
    for weights in (target / "runs" / study).glob(f"*/seed0/{WEIGHTS}"):
        name = f"gallery-{weights.parent.parent.name}-seed0"
        if (made / name / "index.html").is_file():
            (folder / name).mkdir(exist_ok=True)
            shutil.copyfile(made / name / "index.html", folder / name / "index.html")
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
        write_atomically(page, lambda partial: partial.write_text(mended, encoding="utf-8"))
