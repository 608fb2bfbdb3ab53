"""Draw the README's picture from the published runs, and print its table: python docs/picture.py"""

from pathlib import Path

from senet_lib.figures.errors import seed_points
from senet_lib.report.summary import leaderboard_markdown
from senet_lib.runs.records import find_runs, load_run

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "outputs" / "published" / "runs" / "laptop"

if __name__ == "__main__":
    runs = [load_run(folder) for folder in find_runs(RUNS)]
    figure = seed_points(runs)
    out = HERE / "images" / "laptop.png"
    figure.savefig(out, dpi=180, facecolor="white")
    print(f"{out}: {figure.get_label()}\n")
    print(leaderboard_markdown(runs))
