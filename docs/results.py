"""Print the README's table of published runs, and what they say of SE: python docs/results.py"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from senet_lib.analysis.errors import beside_arithmetic, compare_runs, leaderboard
from senet_lib.recipe import load_study
from senet_lib.report.table import decided_text
from senet_lib.runs.records import RunRecord, find_runs, load_run

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "outputs" / "published" / "runs" / "laptop"
CONFIG = ROOT / "configs" / "laptop.yaml"


def table(runs: Sequence[RunRecord]) -> str:
    """The leaderboard in Markdown, errors in percent."""
    lines = [
        "| network | parameters | MACs (M) | n | mean error % | SD | single seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in leaderboard(runs).itertuples():
        seeds = ", ".join(f"{100 * error:.2f}" for _, error in sorted(row.errors.items()))
        sd = f"{100 * row.sd_error:.2f}" if row.n > 1 else "–"
        lines.append(
            f"| {row.model} | {row.num_params:,} | {row.macs / 1e6:.2f} | {row.n} "
            f"| {100 * row.mean_error:.2f} | {sd} | {seeds} |"
        )
    return "\n".join(lines)


def answer(runs: Sequence[RunRecord], first_seeds: Sequence[int]) -> str:
    """The differences that SE makes, what the seeds asked for first said, and what is left where
    the way of computing has an effect too, as at the top of the report."""
    compared = compare_runs(runs, rng=np.random.default_rng(0))
    alike = beside_arithmetic(runs, compared)
    pairs = compared.frame[compared.frame["model"] == "se_" + compared.frame["control"]]
    early = [run for run in runs if run.seed in first_seeds]
    before = compare_runs(early, rng=np.random.default_rng(0)).frame.set_index("model")
    said, left = [], ""
    for row in pairs.itertuples():
        seeds = f"n = {row.n}" + f" with and {row.n_control} without" * (row.n != row.n_control)
        said.append(f"{row.control} {decided_text(row)}, {seeds}")
        then = before.loc[row.model]
        if then.decision not in ("undecided", row.decision):
            left += f" With seeds {', '.join(map(str, first_seeds))} alone, {row.control} "
            left += f"{decided_text(then)}."
    decided = compared.frame[compared.frame["decision"].isin(["better", "worse"])]
    other = [
        f"{row.model} {decided_text(row)}"
        for row in decided.drop(pairs.index, errors="ignore").itertuples()
    ]
    for row in decided.itertuples():
        if row.decision != (beside := alike.loc[row.model]).decision:
            left += f" If each way of computing may shift the error, {row.model} "
            left += f"{decided_text(beside)}."
    left = f" Of other networks with gates, {'; '.join(other)}." * bool(other) + left
    together = "What SE changes, in points, with 95 % intervals that all hold at once (*equal*: "
    together += "the interval lies within half a point either way; *undecided*: it does not, and "
    together += "holds zero): "
    return f"{together}{'; '.join(said)}.{left}"


def settings(runs: Sequence[RunRecord]) -> str:
    """Which variants of the ablation's network differ from it, and which of these do not where the
    way of computing may have an effect too."""
    compared = compare_runs(runs, rng=np.random.default_rng(0))
    decided = compared.frame.set_index("model")["decision"]
    alike = beside_arithmetic(runs, compared)["decision"]
    (plain,) = compared.frame["control"].unique()
    better, worse, doubtful = (
        ", ".join(decided.index[which]) or "none"
        for which in (
            decided == "better",
            decided == "worse",
            decided.isin(["better", "worse"]) & (decided != alike),
        )
    )
    said = f"Of {len(decided)} variants of {plain}, better than the plain network: {better}; "
    said += f"worse: {worse}. Of these, undecided if each way of computing may shift the error: "
    said += f"{doubtful}."
    return said


if __name__ == "__main__":
    found = [load_run(folder) for folder in find_runs(RUNS)]
    short = [load_run(folder) for folder in find_runs(RUNS.with_name("ablation"))]
    said = answer(found, load_study(CONFIG).seeds)
    print(table(found), said, settings(short), sep="\n\n")
