"""Draw the README's picture from the published runs: python docs/picture.py"""

from pathlib import Path

from senet_lib.plots import seed_points
from senet_lib.records import find_runs, load_run

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "outputs" / "published" / "runs" / "short"

if __name__ == "__main__":
    figure = seed_points([load_run(folder) for folder in find_runs(RUNS)])
    out = HERE / "images" / "short.png"
    figure.savefig(out, dpi=180, facecolor="white")
    print(f"{out}: {figure.get_label()}")
