"""Print the README's table of the published runs: python docs/results.py"""

from collections.abc import Sequence
from pathlib import Path

from senet_lib.analysis.errors import leaderboard
from senet_lib.runs.records import RunRecord, find_runs, load_run

RUNS = Path(__file__).resolve().parents[1] / "outputs" / "published" / "runs" / "laptop"


def table(runs: Sequence[RunRecord]) -> str:
    """The leaderboard in Markdown, errors in percent."""
    lines = [
        "| network | parameters | MACs | n | mean error % | SD | single seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in leaderboard(runs).itertuples():
        seeds = ", ".join(f"{100 * error:.2f}" for _, error in sorted(row.errors.items()))
        sd = f"{100 * row.sd_error:.2f}" if row.n > 1 else "–"
        lines.append(
            f"| {row.model} | {row.num_params:,} | {row.macs / 1e6:.2f} M | {row.n} "
            f"| {100 * row.mean_error:.2f} | {sd} | {seeds} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([load_run(folder) for folder in find_runs(RUNS)]))
