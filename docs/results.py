"""Print the README's table of published runs, and what they say of SE: python docs/results.py"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from senet_lib.analysis.errors import beside_arithmetic, compare_runs, leaderboard
from senet_lib.runs.records import RunRecord, find_runs, load_run

RUNS = Path(__file__).resolve().parents[1] / "outputs" / "published" / "runs" / "laptop"


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


def answer(runs: Sequence[RunRecord]) -> str:
    """The differences that SE makes, and what is left where the processor has an effect too, as at
    the top of the report."""
    compared = compare_runs(runs, rng=np.random.default_rng(0))
    alike = beside_arithmetic(runs, compared)
    pairs = compared.frame[compared.frame["model"] == "se_" + compared.frame["control"]]
    said, left = [], ""
    for row in pairs.itertuples():
        seeds = f"n = {row.n}" + f" with and {row.n_control} without" * (row.n != row.n_control)
        ends = f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"
        said.append(f"{row.control} {100 * row.difference:+.2f} ({ends}; {seeds})")
        *ends, decision = alike.loc[row.model]
        if row.decision not in ("undecided", decision):
            middle, low, high = (100 * end for end in ends)
            left += f" With an effect of the processor in the model, {row.control}'s is "
            left += f"{middle:+.2f} ({low:+.2f} to {high:+.2f}): {decision}."
    together = "What SE changes, in points, with 95 % intervals that hold together: "
    return f"{together}{', '.join(said)}.{left}"


if __name__ == "__main__":
    found = [load_run(folder) for folder in find_runs(RUNS)]
    print(table(found), answer(found), sep="\n\n")
