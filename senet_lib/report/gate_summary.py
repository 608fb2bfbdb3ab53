"""What the gates of a run do, in a few numbers, kept beside the report that shows them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_lib.analysis.gates import Scores, Subject, stage_table
from senet_lib.files import read_json, write_json
from senet_lib.report.table import Link, Table
from senet_lib.runs.records import anchored
from senet_lib.runs.study import StudyRuns
from senet_lib.wording import percent, points

if TYPE_CHECKING:
    import pandas as pd

PATTERN = "gates-*.json"
SHARES = ("mean", "class_share", "constant_share")
NEEDED = ("model", "seed", "images", "layers", "first", "last", "error", "fixed_error")


def write_summary(
    subject: Subject,
    table: "pd.DataFrame",
    fixed: Mapping[str, Scores],
    page_folder: str | Path = "",
) -> Path:
    """Write the numbers of one run, whole or not at all.

    Args:
        subject: the run and its images.
        table: of `analysis.gates.layer_table`.
        fixed: of `figures.gates.fix_stages`.
        page_folder: where; empty: outputs/reports/<study>.
    """
    stages = stage_table(table)
    ends = {"first": stages.iloc[0], "last": stages.iloc[-1]} if len(stages) else {}
    content: dict[str, Any] = {
        "model": subject.run.model,
        "seed": subject.run.seed,
        "images": len(subject.labels),
        "layers": len(table),
        **{end: None for end in ("first", "last") if not ends},
        **{end: {name: float(row[name]) for name in SHARES} for end, row in ends.items()},
        "error": fixed["none"].error,
        "fixed_error": fixed["all"].error,
    }
    folder = Path(page_folder or anchored("outputs/reports") / subject.run.study)
    path = folder / f"gates-{subject.run.model}.json"
    write_json(path, content)
    return path


def gate_table(study: StudyRuns) -> Table:
    """The networks whose gates were looked at, one row each, with a link to each one's page.

    Raises:
        RecordError: a file beside the report is unreadable or incomplete.
    """
    import pandas as pd

    rows = []
    for path in sorted(study.page_folder.glob(PATTERN)):
        found = read_json(path, NEEDED)
        first, last = found["first"] or {}, found["last"] or {}
        page = study.page_folder / f"excitation-{found['model']}.html"
        rows.append({
            "network": Link.to(page, found["model"], study.page_folder) or found["model"],
            "gates of": f"{found['layers']} layers",
            "mean, first to last stage": _both(first, last, "mean", lambda v: f"{v:.2f}"),
            "between classes %": _both(first, last, "class_share", percent),
            "constant channels %": _both(first, last, "constant_share", percent),
            "error %": percent(found["error"]),
            "with fixed gates": points(found["fixed_error"] - found["error"]),
        })  # fmt: skip
        images, seed = found["images"], found["seed"]
    caption = ""
    if rows:
        caption = (
            f"Gates over {images:,} images, seed {seed}; from first to last stage: the mean "
            "gate, the share of its variance that lies between classes, and channels whose gate "
            "hardly varies. Last: by how many points the error changes when every gate is put at "
            "its mean"
        )
    return Table(
        pd.DataFrame(rows),
        caption,
        text_columns=("network", "gates of"),
        empty="No gates of this study were looked at. Its settings name the networks under "
        "`excitation`.",
    )


def _both(first: Mapping[str, float], last: Mapping[str, float], name: str, write: Any) -> str:
    """The first and the last stage's value; a dash where the layers name no stages."""
    return f"{write(first[name])} to {write(last[name])}" if first and last else "–"
