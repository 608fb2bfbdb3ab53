"""Copy a study's finished runs and its report to where they are kept in version control.

Weights are kept in half precision, only where the file stays small; the record says what error
those very weights make. Logits are kept less the highest of their image, to five significant bits;
each image's highest is still the highest, so that they give the record's error.
"""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import torch

from senet_lib.analysis.ablation import find_axes
from senet_lib.errors import RecordError
from senet_lib.evaluation import error_and_loss, predict
from senet_lib.files import read_json, replacing_folder, write_whole
from senet_lib.runs import DEFAULT_ROOT, HISTORY, records
from senet_lib.runs.evaluate import images_of
from senet_lib.runs.lock import locked
from senet_lib.runs.published import MAX_WEIGHTS_BYTES, PUBLISHED
from senet_lib.runs.records import RunRecord, from_top, list_runs, load_run, runs_folder
from senet_lib.runs.study import collect
from senet_lib.runs.weights import WEIGHTS, load_network, save_weights

NOTEBOOK = "train.ipynb"
COPIED = ("profile.html", "localisation-*.json", "excitation-*.html", "gates-*.json")
PDF_LINK = re.compile('<a download="[^"]*" href="data:application/pdf;base64,[^"]*">PDF</a>')
BITS = 5  # of a logit less the highest of its image: 0.6 of the bytes of half precision


def _publish_run(record: RunRecord, folder: Path, whole: bool) -> None:
    """Copy one run in the place of an earlier copy; the `whole` of it has weights and notebook too.
    SenetError where a file is damaged, or its images are not at hand."""
    record.verify()
    with replacing_folder(folder) as partial:
        shutil.copyfile(record.path / HISTORY, partial / HISTORY)
        if whole and (record.path / NOTEBOOK).is_file():
            (partial / NOTEBOOK).write_text(_slim(record.path / NOTEBOOK), encoding="utf-8")
        logits, labels = record.test_logits()
        records.save_logits(partial, _rounded(logits), labels)
        error = None
        if whole and 2 * record.num_params <= MAX_WEIGHTS_BYTES:
            model, spec = load_network(record.path / WEIGHTS)
            save_weights(partial / WEIGHTS, model.half(), spec)
            error = _error_of(partial / WEIGHTS, record)
        records.save_record(replace(record, path=partial, weights_error=error))


def _rounded(logits: np.ndarray) -> np.ndarray:
    """Logits (N, K) in half precision, each less the highest of its image, which changes no
    probability, and to `BITS` significant bits; none that was below the highest becomes equal to
    it. As they are where one is not finite."""
    if not np.isfinite(logits).all():
        return logits
    limits = np.finfo(np.float16)
    below = logits.astype(np.float64) - logits.max(1, keepdims=True)
    parts, powers = np.frexp(below)
    kept = np.ldexp(np.round(parts * 2**BITS) / 2**BITS, powers)
    return np.where(below < 0, kept.clip(limits.min, -limits.tiny), 0).astype(np.float16)


def _slim(path: Path) -> str:
    """A notebook whose figures are pictures alone, as whoever looks into the repository sees."""
    notebook = read_json(path)
    for cell in notebook.get("cells", ()):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            for kind in ("image/svg+xml", "application/pdf") if "image/png" in data else ():
                data.pop(kind, None)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _check_apart(source: Path, target: Path) -> None:
    """Refuse to copy a folder onto itself, into itself or onto one that it lies in."""
    one, other = source.resolve(), target.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise RecordError(f"{target} and its source {source} lie in one another; name another")


def _error_of(weights: Path, record: RunRecord) -> float:
    """Error that these weights make on the images the run was evaluated on."""
    dataset = images_of(record)
    logits = predict(load_network(weights)[0], dataset.x_test, record.mean, record.std)
    return error_and_loss(logits, torch.from_numpy(dataset.y_test))[0]


def publish_study(
    study: str,
    root: str | Path = DEFAULT_ROOT,
    target: str | Path = PUBLISHED,
    keep: Sequence[str] = ("*",),
) -> list[Path]:
    """Copy every finished run of a study; the folders of the copies. Named on stderr are a run that
    is damaged, or there twice, and so left out, and one published before that is not there.

    Args:
        study, root: its name, and the folder of all studies' runs.
        target: the folder of what is published; the runs go to <target>/runs/<study>.
        keep: the runs whose weights and notebook are kept, by patterns of <model>/seed<k>.
    Raises:
        RecordError: the study has no finished run, or none that a pattern names, or would be copied
            onto itself.
        RunExistsError: another process is publishing the study right now.
    """
    source, goal = runs_folder(root) / study, from_top(target, PUBLISHED) / "runs" / study
    _check_apart(source, goal)
    table = list_runs(source)
    table = table[~table["status"].isin(["failed", "unfinished"])]
    for path, problem in table[table["problem"] != ""][["path", "problem"]].values:
        print(f"note: {path} is left out: {problem}", file=sys.stderr)
    folders = [Path(path) for path in table["path"][table["problem"] == ""]]
    if not folders:
        raise RecordError(f"there is no finished run in {source}; `senet runs` lists what there is")
    names = [folder.relative_to(source).as_posix() for folder in folders]
    for pattern in keep:  # a misspelt one would cost the weights that are published
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RecordError(f"no run of {study} to keep is {pattern}; they are as {names[0]}")
    copies = []
    with locked(goal.with_name(f".{study}.lock"), f"{goal} is being written by another process"):
        for folder, name in zip(folders, names, strict=True):
            whole = any(fnmatchcase(name, pattern) for pattern in keep)
            _publish_run(load_run(folder), goal / name, whole)
            copies.append(goal / name)
        for gone in set(records.find_runs(goal)) - set(copies):
            print(f"note: {gone} is published and not in {source}", file=sys.stderr)
    return copies


def publish_report(
    study: str,
    config: str = "",
    target: str | Path = PUBLISHED,
    root: str | Path = DEFAULT_ROOT,
) -> Path:
    """Write the report of the published runs, and a page for each axis of the settings that these
    runs have two values of. The workflow's pages of costs, maps and gates are copied, for they take
    long or were measured alone on the machine, and so are the galleries of runs whose weights are
    published.

    Args:
        study, config: its name, and path of its settings; empty: no runs are missing.
        target: the folder of what is published.
        root: the folder of all studies' runs; the workflow's pages lie beside it, in reports.
    Returns:
        The report, <target>/reports/<study>/index.html.
    """
    from senet_lib.report.batch import execute

    target = from_top(target, PUBLISHED)
    runs, folder = target / "runs", target / "reports" / study
    parameters = {"study": study, "config": config}
    parameters |= {"runs_root": str(runs), "page_folder": str(folder)}
    made = runs_folder(root).parent / "reports" / study
    _check_apart(made, folder)
    pages = made.glob("gradcam-seed*.html")
    maps = sorted(pages, key=lambda page: (len(page.name), page.name))[:1]  # of the first seed
    for path in sorted(maps + [path for pattern in COPIED for path in made.glob(pattern)]):
        write_whole(folder / path.name, path.read_bytes())
    seed = maps[0].stem.removeprefix("gradcam-") if maps else "seed0"
    for weights in (runs / study).glob(f"*/{seed}/{WEIGHTS}"):
        page = Path(f"gallery-{weights.parent.parent.name}-{seed}", "index.html")
        if (made / page).is_file():
            write_whole(folder / page, (made / page).read_bytes())
    kept = collect(study, config, str(runs), str(folder))
    compared = find_axes(kept.runs)
    for axis in kept.settings.axes if kept.settings else ():
        page, values = folder / f"ablation-{axis}.html", {**parameters, "axis": axis}
        if axis in compared:  # a notebook is large, and its page has all of it
            execute("ablation", page.with_suffix(".ipynb"), values, html=page).unlink()
        else:
            page.unlink(missing_ok=True)
    execute("report", folder / "report.ipynb", parameters, html=folder / "index.html").unlink()
    for page in folder.rglob("*.html"):
        _slim_page(page)
    return folder / "index.html"


def _slim_page(page: Path) -> None:
    """Make plain text of the links to files of a run that are not published, such as its page, and
    leave out each figure's PDF, a fifth of the page: the drawing itself can be taken away."""

    def checked(link: re.Match[str]) -> str:
        return link[0] if (page.parent / unquote(unescape(link[1]))).exists() else link[2]

    text = page.read_text(encoding="utf-8")
    mended = re.sub(r'<a href="([^"#:]+)">(.*?)</a>', checked, text, flags=re.DOTALL)
    mended = PDF_LINK.sub("", mended)
    if mended != text:
        write_whole(page, mended)
