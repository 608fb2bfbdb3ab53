"""Print the README's table of published runs, and what they say of SE: python docs/results.py"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from senet_lib.analysis.errors import beside_arithmetic, compare_runs, leaderboard
from senet_lib.runs.records import RunRecord, find_runs, load_run

RUNS = Path(__file__).resolve().parents[1] / "outputs" / "published" / "runs" / "laptop"
FIRST = (0, 1, 2)  # seeds; the others were asked for when these had been seen


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


def interval(middle: float, low: float, high: float, more: str = "") -> str:
    """A difference with its ends, in points."""
    return f"{100 * middle:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}{more})"


def answer(runs: Sequence[RunRecord]) -> str:
    """The differences that SE makes, what the seeds asked for first said, and what is left where
    the processor has an effect too, as at the top of the report."""
    compared = compare_runs(runs, rng=np.random.default_rng(0))
    alike = beside_arithmetic(runs, compared)
    pairs = compared.frame[compared.frame["model"] == "se_" + compared.frame["control"]]
    early = compare_runs([run for run in runs if run.seed in FIRST], rng=np.random.default_rng(0))
    before = early.frame.set_index("model")[["difference", "low", "high", "decision"]]
    said, left = [], ""
    for row in pairs.itertuples():
        seeds = f"n = {row.n}" + f" with and {row.n_control} without" * (row.n != row.n_control)
        said.append(f"{row.control} {interval(row.difference, row.low, row.high, f'; {seeds}')}")
        *ends, decision = before.loc[row.model]
        if decision not in ("undecided", row.decision):
            left += f" With seeds 0 to 2 alone, {row.control}'s was {interval(*ends)}: {decision}."
        *ends, decision = alike.loc[row.model]
        if row.decision not in ("undecided", decision):
            left += f" With an effect of the processor in the model, {row.control}'s is "
            left += f"{interval(*ends)}: {decision}."
    together = "What SE changes, in points, with 95 % intervals that all hold at once: "
    return f"{together}{', '.join(said)}.{left}"


if __name__ == "__main__":
    found = [load_run(folder) for folder in find_runs(RUNS)]
    print(table(found), answer(found), sep="\n\n")
