"""Draw the README's picture from the published runs, and print its table: python docs/picture.py"""

from collections.abc import Sequence
from pathlib import Path

from senet_lib.analysis.errors import leaderboard
from senet_lib.analysis.families import by_model
from senet_lib.runs.records import RunRecord, find_runs, load_run

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "outputs" / "published" / "runs" / "laptop"


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


def draw(runs: Sequence[RunRecord], path: Path) -> None:
    """Every seed a point, a bar at each network's mean."""
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns

    from senet_lib.figures.style import INK, STYLE, colours_of

    models = by_model(runs)
    colours = colours_of(list(models))
    rows = [(model, 100 * run.test_error) for model in models for run in models[model]]
    points = pd.DataFrame(rows, columns=["network", "error"])
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8.6, 1 + 0.42 * len(models)), layout="constrained")
        place = {"x": "error", "y": "network", "ax": ax}
        sns.stripplot(points, hue="network", palette=colours, size=7, jitter=False, **place)
        mean = {"errorbar": None, "marker": "|", "markersize": 18, "linestyle": "none"}
        sns.pointplot(points, color=INK, **mean, **place)
        ax.set(xlabel="test error (%), one point a seed; bar: their mean", ylabel="")
        figure.savefig(path, dpi=180, facecolor="white")


if __name__ == "__main__":
    published = [load_run(folder) for folder in find_runs(RUNS)]
    draw(published, HERE / "images" / "laptop.png")
    print(table(published))
