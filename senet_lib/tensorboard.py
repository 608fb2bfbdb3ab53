"""Runs as TensorBoard's event files: curves, gates by layer, settings beside the final error."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_lib.errors import RecordError, SenetError, need
from senet_lib.runs.records import DEFAULT_ROOT, HISTORY, RECORD, RunRecord, load_run, runs_folder
from senet_lib.runs.weights import WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

SCALARS = {  # column of the history, and the chart it goes to
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "train_error": "error/train",
    "test_error": "error/test",
    "lr": "rate",
    "images_per_second": "speed/images per second",
}
SETTINGS = ("epochs", "batch_size", "lr", "lr_policy", "weight_decay", "nesterov")
GATED_IMAGES = 256


@contextmanager
def event_file(folder: str | Path) -> Iterator["SummaryWriter"]:
    """A writer of TensorBoard's events into a folder; what an earlier one left there goes.
    MissingDependencyError where TensorBoard is not installed."""
    need("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    for old in Path(folder).glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        yield writer


def add_epoch(writer: "SummaryWriter", row: Mapping[str, float]) -> None:
    """One row of a history, errors in [0, 1]; numbers that were not measured are left out."""
    for column, chart in SCALARS.items():
        if column in row and not math.isnan(row[column]):
            writer.add_scalar(chart, row[column], int(row["epoch"]))


def events_of(run: Path, logdir: str | Path, root: str | Path = DEFAULT_ROOT) -> Path:
    """The folder of a run's events, called as the run's own is below the root, such as
    <study>/<model>/seed<k>; of a run that is elsewhere, by the last three parts."""
    run, root = (Path(os.path.abspath(path)) for path in (run, runs_folder(root)))
    inside = run.is_relative_to(root)
    return Path(logdir, *(run.relative_to(root).parts if inside else run.parts[1:][-3:]))


def write_run(
    path: str | Path,
    logdir: str | Path,
    *,
    gates: bool = True,
    root: str | Path = DEFAULT_ROOT,
) -> Path:
    """Write the events of the run at `path`, as far as its history goes, and give their folder in
    `logdir`, see `events_of`; with gates, histograms of those of a finished run, over the
    first 256 images that it was evaluated on, where its weights are kept."""
    import pandas as pd

    path = Path(path)
    if not (path / HISTORY).is_file():
        raise SenetError(f"{path} holds no run: there is no {HISTORY}")
    folder = events_of(path, logdir, root)
    record = load_run(path) if (path / RECORD).is_file() else None
    try:
        history = record.history if record else pd.read_csv(path / HISTORY).astype(float)
        _ = history["epoch"]
    except RecordError:
        raise
    except (KeyError, ValueError):  # pandas' errors are ValueErrors
        raise RecordError(f"{path / HISTORY} is damaged: it is no table of numbers") from None
    found = _gates_of(record) if record and gates and (path / WEIGHTS).is_file() else {}
    with event_file(folder) as writer:
        for row in history.to_dict("records"):
            add_epoch(writer, row)
        if record:
            settings: dict[str, Any] = {key: record.recipe[key] for key in SETTINGS}
            settings |= {"model": record.network, "seed": record.seed, "study": record.study}
            writer.add_hparams(settings, {"error/final": record.test_error}, run_name=".")
        for layer, values in found.items():
            writer.add_histogram(f"gates/{layer}", values, len(history))
    return folder


def _gates_of(record: RunRecord) -> Mapping[str, "np.ndarray"]:
    """Layer to gates (N, C); empty for a network without."""
    import torch

    from senet_lib.analysis.gates import NoAttentionError, record_gates
    from senet_lib.data.augment import normalise
    from senet_lib.runs.evaluate import images_of

    model = record.load_model()
    images = torch.from_numpy(images_of(record).x_test[:GATED_IMAGES])
    try:
        return record_gates(model, normalise(images, record.mean, record.std)).values
    except NoAttentionError:
        return {}
