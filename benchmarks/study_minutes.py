"""Where do the minutes of a study go?

    make clean-runs && make study && python benchmarks/study_minutes.py smoke

Read from the executed notebooks of its runs and reports, which hold when each cell began and ended:
how long it took until the kernel was there and the library was imported, how long the cell that
trains, how long the others. The pages are made again to be timed. One row a kind of notebook, in
seconds, and what passed from the first one's start to the last one's end.
"""

import argparse
import json
import tempfile
import time
from datetime import datetime
from pathlib import Path

import pandas as pd
import torch
from keep import keep

from senet_lib.report.page import write_page

PARTS = ["start", "training", "other cells", "page"]


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def parts_of(path: Path) -> dict[str, object]:
    """Seconds of each part of one executed notebook, and when it began and ended."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    ran = notebook["metadata"]["papermill"]
    began, ended = moment(ran["start_time"]), moment(ran["end_time"])
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    tagged = ("parameters", "injected-parameters")
    own = [c for c in cells if not any(tag in c["metadata"].get("tags", []) for tag in tagged)]
    start = moment(own[0]["metadata"]["papermill"]["end_time"]) - began
    training = sum(
        c["metadata"]["papermill"]["duration"] for c in own if "run = fit(" in "".join(c["source"])
    )
    before = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_page(path, Path(folder) / "page.html", path.parent)
    return {
        "notebook": path.stem.split("-")[0], "began": began, "ended": ended, "start": start,
        "training": training, "other cells": ended - began - start - training,
        "page": time.perf_counter() - before,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", default="smoke")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--save", action="store_true", help="keep under benchmarks/results")
    arguments = parser.parse_args()
    runs = sorted((arguments.outputs / "runs" / arguments.study).glob("*/seed*/train.ipynb"))
    reports = sorted((arguments.outputs / "reports" / arguments.study).glob("*.ipynb"))
    if not runs or not reports:
        parser.error(f"{arguments.outputs} has no finished study {arguments.study}")
    frame = pd.DataFrame([parts_of(path) for path in [*runs, *reports]])
    table = frame.groupby("notebook", sort=False)[PARTS].sum()
    table.insert(0, "n", frame.groupby("notebook", sort=False).size())
    table["sum"] = table[PARTS].sum(axis=1)
    table.loc["all"] = table.sum()
    wall = frame["ended"].max() - frame["began"].min()
    print(table.round(0).astype(int).to_string())
    print(f"\nfrom the first start to the last end: {wall:.0f} s")
    if arguments.save:
        arguments.outputs = str(arguments.outputs)
        seconds = json.loads(table.round(1).to_json(orient="index"))
        keep("study_minutes", torch.device("cpu"), arguments, seconds=seconds, wall_seconds=wall)


if __name__ == "__main__":
    main()
