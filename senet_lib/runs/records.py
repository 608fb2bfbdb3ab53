"""Run records: what a finished run leaves on disk, and the table of all runs.

A run's folder is the only bridge between training and analysis. `record.json` is written last and
by renaming, so a folder that has one is complete.
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from senet_lib.errors import RecordError, unknown
from senet_lib.files import anchored, write_atomically
from senet_lib.recipe import Recipe
from senet_lib.runs.weights import CHECKPOINT, WEIGHTS, load_network

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

RECORD, HISTORY, LOGITS, FAILED = "record.json", "history.csv", "test_logits.npz", "failed.json"
DEFAULT_ROOT = Path("outputs/runs")


def from_top(path: str | Path, default: Path) -> Path:
    """The default folder seen from the top of the clone; any other as it was given."""
    return anchored(path) if Path(path) == default else Path(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One finished run. Errors are fractions in [0, 1]; losses are in nats.

    Attributes:
        path: the run's folder.
        status: "finished"; there is no record of anything else.
        study: the study it belongs to.
        protocol: name of the protocol its recipe stands for, or "custom".
        model: registry name.
        overrides: arguments given to the builder beside the name.
        seed: seed of the initialisation, the order and the augmentation.
        recipe: every field of the recipe.
        device: "cpu" or "cuda".
        precision: "fp32" or "bf16", of the training; the final evaluation is always fp32.
        compile: whether the step went through torch.compile.
        threads: CPU threads.
        evaluated_on: "test", or "val" when images were held out of the training set.
        num_val: images held out.
        test_error: share of wrong predictions after the last epoch.
        test_loss: mean cross-entropy after the last epoch.
        train_loss: mean loss over the last epoch's batches.
        num_params: parameters.
        macs: multiply-accumulates of convolutions and linear layers for one image.
        images_per_second: training speed in steady state: warm-up, evaluation and files apart;
            None for a run too short to tell.
        wall_seconds: from start to record, summed over the sessions of a resumed run.
        peak_memory_mib: allocator's peak on a GPU, the process's peak on a CPU; None if the system
            does not tell.
        data: name or path of the dataset.
        classes: names of the classes.
        mean: channel means the images were normalised with.
        std: channel standard deviations, likewise.
        data_fingerprint: SHA-256 over the dataset.
        git_commit: commit of the source, if it was a checkout.
        git_dirty: whether tracked files differed from that commit.
        versions: of Python and the packages that decide the numbers.
        hardware: processor, cores, system, and GPU.
        started: time of the first start, ISO 8601, UTC.
        finished: time of the record, likewise.
        fused: whether the kernels of `senet_lib.fused` did what they can; records older than the
            kernels lack it.
    """

    path: Path = field(compare=False)
    status: str
    study: str
    protocol: str
    model: str
    overrides: Mapping[str, Any]
    seed: int
    recipe: Mapping[str, Any]
    device: str
    precision: str
    compile: bool
    threads: int
    evaluated_on: str
    num_val: int
    test_error: float
    test_loss: float
    train_loss: float
    num_params: int
    macs: int
    images_per_second: float | None
    wall_seconds: float
    peak_memory_mib: float | None
    data: str
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    data_fingerprint: str
    git_commit: str | None
    git_dirty: bool | None
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    started: str
    finished: str
    fused: bool = False

    @property
    def recipe_id(self) -> str:
        """Equal exactly when two recipes are, whatever version wrote the records."""
        return Recipe.from_dict(self.recipe).id

    def to_dict(self) -> dict[str, Any]:
        """Every field but the folder, and the recipe's id, ready for JSON."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "path"]
        return {name: getattr(self, name) for name in [*names, "recipe_id"]}

    @property
    def history(self) -> "pd.DataFrame":
        """One row an epoch: epoch lr train_loss train_error test_loss test_error
        images_per_second (so far) wall_seconds (so far)."""
        import pandas as pd

        return pd.read_csv(self._file(HISTORY))

    def test_logits(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, K), float32, and labels (N,), int64, of the evaluated images in order."""
        with np.load(self._file(LOGITS)) as archive:
            return archive["logits"].astype(np.float32), archive["labels"].astype(np.int64)

    def load_model(self) -> "nn.Module":
        """The trained network, in eval mode and fp32, on the CPU."""
        return load_network(self._file(WEIGHTS))[0]

    def _file(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise RecordError(f"{self.path} has a record but no {name}")
        return path


def save_record(record: RunRecord) -> None:
    """Write record.json; call it last, when everything else of the run is on disk."""
    text = json.dumps(record.to_dict(), indent=2) + "\n"
    write_atomically(
        record.path / RECORD, lambda partial: partial.write_text(text, encoding="utf-8")
    )


def save_history(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write history.csv, one row an epoch."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(
        folder / HISTORY, lambda partial: partial.write_text(buffer.getvalue(), encoding="utf-8")
    )


def save_logits(folder: Path, logits: np.ndarray, labels: np.ndarray) -> None:
    """Write test_logits.npz: logits (N, K), float32 or float16, and labels (N,), integers."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez_compressed(file, logits=logits, labels=labels)

    write_atomically(folder / LOGITS, write)


def load_run(path: str | Path) -> RunRecord:
    """Read the record of a finished run.

    Args:
        path: the run's folder, or its record.json.
    Raises:
        RecordError: there is no record, or it is unreadable or incomplete.
    """
    path = Path(path)
    folder = path.parent if path.name == RECORD else path
    if not (folder / RECORD).is_file():
        state = "unfinished; run it again to go on" if (folder / CHECKPOINT).is_file() else "no run"
        raise RecordError(f"{folder} holds {state}: there is no {RECORD}")
    try:
        fields = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RecordError(f"{folder / RECORD} is not readable JSON") from None
    if not isinstance(fields, dict):
        raise RecordError(f"{folder / RECORD} is not readable JSON")
    known = [f for f in dataclasses.fields(RunRecord) if f.name != "path"]
    missing = [f.name for f in known if f.default is dataclasses.MISSING and f.name not in fields]
    if missing:
        raise RecordError(f"{folder / RECORD} is incomplete: it lacks {', '.join(sorted(missing))}")
    return RunRecord(path=folder, **{f.name: fields[f.name] for f in known if f.name in fields})


def find_runs(root: str | Path = DEFAULT_ROOT) -> list[Path]:
    """Folders below `root` that hold a run, finished or not, in natural order."""
    root = from_top(root, DEFAULT_ROOT)
    marks = (RECORD, CHECKPOINT, FAILED)
    folders = {mark.parent for name in marks for mark in root.rglob(name)}
    return sorted(
        folders, key=lambda f: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", f"{f}")]
    )


def list_runs(root: str | Path = DEFAULT_ROOT, **where: Any) -> "pd.DataFrame":
    """A table of the runs below a folder, one row each.

    Args:
        root: the folder.
        where: keep the rows whose column equals the value, as in `model="resnet20"`.
    Returns:
        The fields of `RunRecord`, with `path` as text. `status` is "finished", "unfinished" (a
        checkpoint to go on from), "failed" or "unreadable" (`load_run` says why); rows other than
        finished have study, model and seed alone.
    Raises:
        UnknownNameError: `where` names a column that does not exist.
    """
    import pandas as pd

    columns = [*(f.name for f in dataclasses.fields(RunRecord)), "recipe_id"]
    for name in where:
        if name not in columns:
            raise unknown("column", name, columns)
    rows = [_row(folder) for folder in find_runs(root)]
    table = pd.DataFrame(rows, columns=columns).astype({"seed": "Int64"})
    for name, value in where.items():
        table = table[[type(v) is type(value) and v == value for v in table[name].tolist()]]
    return table.reset_index(drop=True)


def _row(folder: Path) -> dict[str, Any]:
    if (folder / RECORD).is_file():
        with suppress(RecordError):
            return {**load_run(folder).to_dict(), "path": str(folder)}
        status = "unreadable"
    else:
        status = "failed" if (folder / FAILED).is_file() else "unfinished"
    ours = re.fullmatch(r"seed\d+", folder.name) and len(folder.parts) >= 3
    study, model, seed = folder.parts[-3:] if ours else ("", "", "")
    digits = seed.removeprefix("seed")
    return {
        "path": str(folder),
        "status": status,
        "study": study,
        "model": model,
        "seed": int(digits) if digits.isdigit() else None,
    }
