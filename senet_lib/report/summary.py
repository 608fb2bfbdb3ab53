"""Tables and sentences of the report, computed from run records.

Errors are fractions in the data frames and percent in what is shown. The unit is the seed: too few
are said, not guessed over.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.contrasts import Comparison
from senet_lib.analysis.errors import compare_runs, leaderboard
from senet_lib.analysis.families import label
from senet_lib.analysis.statistics import FEWEST_SEEDS
from senet_lib.report.table import Link, Table, Text, escape, facts
from senet_lib.runs.records import RECORD, RunRecord
from senet_lib.runs.study import Problem, StudyRuns, collect, read_failure
from senet_lib.wording import (
    commit,
    counted,
    device,
    each,
    machine,
    p_value,
    percent,
    points,
    setting,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Problem", "StudyRuns", "collect", "leaderboard", "leaderboard_table", "pair_table",
    "problem_table", "provenance_table", "run_table", "summary",
]  # fmt: skip

PROBLEMS_SECTION = "missing-and-failed-runs"


# Tables


def leaderboard_markdown(runs: Sequence[RunRecord]) -> str:
    """The leaderboard as a Markdown table, errors in percent, for a README."""
    lines = [
        "| network | parameters | MACs | n | mean error % | SD | single seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in leaderboard(runs).to_dict("records"):
        seeds = ", ".join(percent(error) for _, error in sorted(row["errors"].items()))
        lines.append(
            f"| {row['model']} | {row['num_params']:,} | {row['macs'] / 1e6:.2f} M | {row['n']} "
            f"| {percent(row['mean_error'])} | {percent(row['sd_error'])} | {seeds} |"
        )
    return "\n".join(lines)


def leaderboard_table(study: StudyRuns) -> Table:
    """Networks by error, with their cost and every seed's error."""
    import pandas as pd

    rows = [
        {
            "network": row["model"],
            "parameters": f"{row['num_params']:,}",
            "MACs": f"{row['macs'] / 1e6:.2f} M",
            "n": row["n"],
            "mean error %": percent(row["mean_error"]),
            "SD": percent(row["sd_error"]),
            "95 % interval": _ends(row, percent),
            **_by_seed(row["errors"], percent),
        }
        for row in leaderboard(study.runs).to_dict("records")
    ]
    return Table(
        _with_all_seeds(pd.DataFrame(rows)),
        f"{_split(study)} error in percent after the last epoch: mean, standard deviation over n "
        "seeds, 95 % interval of the mean from the standard deviation pooled over all networks, "
        "then each seed",
        text_columns=("network",),
        empty="No run has finished.",
    )


def pair_table(study: StudyRuns) -> Table:
    """Each variant against its plain network, in percentage points."""
    import pandas as pd

    compared = _compared(study)
    rows = [
        {
            "network": row["model"],
            "against": row["control"],
            "n": row["n"],
            "difference": points(row["difference"]),
            "95 % interval": _ends(row, points),
            "p": p_value(row["p"]),
            "decision": row["decision"],
            "at least": percent(row["at_least"]) if row["at_least"] else "",
            "more seeds": "" if pd.isna(row["more_seeds"]) else row["more_seeds"],
            **_by_seed(row["differences"], points),
            "p by signs": f"{p_value(row['p_sign'])} (at least {p_value(row['p_sign_floor'])})",
        }
        for row in compared.frame.to_dict("records")
    ]
    spread = compared.spread
    return Table(
        _with_all_seeds(pd.DataFrame(rows)),
        "Difference in error, in percentage points; below zero: the variant is better. Intervals "
        "and p by Dunnett's test for all rows together, from the standard deviation pooled over "
        f"{counted(spread.num_networks, 'network')}: {percent(spread.sd)} points, homogeneous with "
        f"p = {spread.p_homogeneous:.3f}. Equal: within {percent(compared.margin)} points",
        text_columns=("network", "against", "decision"),
        empty="No network stands beside its plain form here, so nothing can be compared.",
    )


def problem_table(study: StudyRuns) -> Table:
    """The runs that are not in the comparison, each with the command that makes it."""
    import pandas as pd

    rows = [
        {
            "network": p.model,
            "seed": "?" if p.seed is None else p.seed,
            "state": p.state,
            "what is known": p.reason,
            "to look at": [_link(path, study) for path in p.files],
            "to make it": p.command,
        }
        for p in study.problems
    ]
    columns = ["network", "seed", "state", "what is known", "to look at", "to make it"]
    return Table(
        pd.DataFrame(rows, columns=columns),
        "Runs that are not in the comparison",
        text_columns=("network", "state", "what is known", "to look at"),
        code_columns=("to make it",),
        empty=f"None: all {study.num_wanted} runs of the study have finished.",
    )


def run_table(study: StudyRuns) -> Table:
    """Every finished run, with its cost and links to what it left."""
    import pandas as pd

    rows = [
        {
            "network": label(run),
            "seed": run.seed,
            "error %": percent(run.test_error),
            "minutes": f"{run.wall_seconds / 60:.1f}",
            "images/s": "" if run.images_per_second is None else f"{run.images_per_second:,.0f}",
            "peak MiB": f"{run.peak_memory_mib:,.0f}",
            "device": device(run),
            "files": [
                Link.to(run.path / "train.html", "page", study.page_folder),
                Link.to(run.path / "train.ipynb", "notebook", study.page_folder),
                Link.to(run.path / RECORD, "record", study.page_folder),
            ],
            "note": "" if (why := read_failure(run.path)) is None else f"notebook failed: {why}",
        }
        for run in study.runs
    ]
    frame = pd.DataFrame(rows)
    if rows and not any(frame["note"]):
        frame = frame.drop(columns="note")
    return Table(
        frame,
        "Finished runs; minutes are the whole run, images/s the training alone once warm",
        text_columns=("network", "device", "files", "note"),
        empty="No run has finished.",
    )


def provenance_table(study: StudyRuns) -> Table:
    """What machine, versions, data and source made the runs; differences are counted."""
    runs = study.runs
    if not runs:
        return facts({}, "")
    pairs = {
        "protocol": each(r.protocol for r in runs),
        "recipe": ", ".join(f"{k} {setting(v)}" for k, v in runs[0].recipe.items()),
        "data": each(r.data for r in runs),
        "data fingerprint": each(r.data_fingerprint for r in runs),
        "device, precision": each(device(r) for r in runs),
        "CPU threads of a run": each(r.threads for r in runs),
        "machine": each(machine(r) for r in runs),
        **{name: each(r.versions.get(name) for r in runs) for name in runs[0].versions},
        "source commit": each(commit(r) for r in runs),
        "trained": f"{min(r.started for r in runs)} to {max(r.finished for r in runs)}",
        "sum of the runs' times": f"{sum(r.wall_seconds for r in runs) / 60:.1f} minutes",
    }
    return facts(pairs, "What made the runs")


# Sentences


def pages(study: StudyRuns) -> Text:
    """Links to the pages beside the report: the networks' costs, and each axis of the ablation."""
    found = [study.page_folder / "profile.html", *sorted(study.page_folder.glob("ablation-*.html"))]
    links = ", ".join(f"[{path.stem}]({path.name})" for path in found if path.is_file())
    if not links:
        return Text("No further page was made for this study.")
    return Text(f"Counted by every usual counter, timed, and block by block; each axis: {links}.")


def summary(study: StudyRuns) -> Text:
    """The report's first paragraph."""
    done = f"{len(study.runs)} of {study.num_wanted} runs have finished"
    if not study.runs:
        return Text(f"Study **{escape(study.study)}**: {done}. There is nothing to compare yet.")
    runs, board = study.runs, leaderboard(study.runs)
    first = runs[0]
    best = board.iloc[0]
    parts = [
        f"Study **{escape(study.study)}** (protocol {escape(first.protocol)}): "
        f"{counted(len(board), 'network')} trained on {_images_of(first)} for "
        f"{counted(first.recipe['epochs'], 'epoch')}. {done}"
        + (f"; the others are named [below](#{PROBLEMS_SECTION})." if study.problems else "."),
        f"The lowest mean {first.evaluated_on} error is {percent(best['mean_error'])} % "
        f"({escape(best['model'])}), the highest {percent(board.iloc[-1]['mean_error'])} % "
        f"({escape(board.iloc[-1]['model'])}).",
    ]
    pairs = _compared(study).frame
    for decision in ("better", "worse"):
        for row in pairs[pairs["decision"] == decision].to_dict("records"):
            parts.append(
                f"{escape(row['model'])} is {decision} than {escape(row['control'])} by at least "
                f"{percent(row['at_least'])} percentage points ({points(row['difference'])})."
            )
    if len(pairs):
        open_still = int((pairs["decision"] == "undecided").sum())
        parts.append(f"{open_still} of {counted(len(pairs), 'difference')} are undecided.")
    if board["n"].min() < FEWEST_SEEDS:
        parts.append(
            f"With fewer than {FEWEST_SEEDS} seeds a network, the order is not established."
        )
    return Text(" ".join(parts))


def _compared(study: StudyRuns) -> Comparison:
    return compare_runs(study.runs, rng=np.random.default_rng(0))


def _ends(row: Mapping[str, float], write: Callable[[float], str]) -> str:
    """Both ends of a row's interval; nothing where there is none."""
    return "" if np.isnan(row["low"]) else f"{write(row['low'])} to {write(row['high'])}"


def _images_of(run: RunRecord) -> str:
    """The data, and how many of its training images were used if not all."""
    chosen = run.recipe.get("train_images", 0)
    return (f"{chosen:,} training images of " if chosen else "") + escape(run.data)


def _split(study: StudyRuns) -> str:
    return (study.runs[0].evaluated_on if study.runs else "test").capitalize()


def _by_seed(values: Mapping[int, float], write: Callable[[float], str]) -> dict[str, str]:
    return {f"seed {seed}": write(value) for seed, value in values.items()}


def _with_all_seeds(table: "pd.DataFrame") -> "pd.DataFrame":
    """The seeds' columns ascending and side by side; a seed a network lacks stays empty."""
    seeds = sorted((c for c in table.columns if c.startswith("seed ")), key=lambda c: int(c[5:]))
    return table[[c for c in table.columns if c not in seeds] + seeds].fillna("")


def _link(path: Path, study: StudyRuns) -> Link | str:
    return Link.to(path, path.name, study.page_folder)
