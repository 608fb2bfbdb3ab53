"""Run records: what a finished run leaves on disk, and the table of all runs.

`record.json` is written last and by renaming, so a folder that has one is complete. It holds the
SHA-256 of the files beside it and of its own content, checked where they are read; old ones don't.
"""

import csv
import dataclasses
import io
import json
import os
import re
import sys
import typing
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from senet_lib.device import computed_on
from senet_lib.errors import RecordError, SenetError, counted, unknown
from senet_lib.files import anchored, from_here, read_json, sha256_of, sha256_of_json, write_whole
from senet_lib.models.registry import full_name
from senet_lib.recipe import Recipe, needed_fields
from senet_lib.runs import DEFAULT_ROOT, FAILED, HISTORY, LOGITS, PUBLISHED, RECORD
from senet_lib.runs.weights import CHECKPOINT, PREVIOUS, WEIGHTS, load_network

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

CHECKED = (HISTORY, LOGITS, WEIGHTS)
ALWAYS = (
    "epochs", "batch_size", "lr", "lr_policy", "schedule", "gamma", "warmup", "momentum",
    "nesterov", "weight_decay", "padding", "flip", "label_smoothing",
)  # fmt: skip


def from_top(path: str | Path, default: Path) -> Path:
    """The default folder seen from the top of the clone; any other as it was given."""
    return anchored(path) if Path(path) == default else Path(path)


def runs_folder(root: str | Path = DEFAULT_ROOT, study: str = "") -> Path:
    """Where runs are looked for: the root, seen from here or else from the top of the clone. Where
    the default one has nothing of the study, the published runs', if they have, which a note
    says."""
    if Path(root) != DEFAULT_ROOT:
        return from_here(root)
    root, published = anchored(root), anchored(PUBLISHED / "runs")
    if not study or (root / study).exists() or not (published / study).is_dir():
        return root
    print(f"note: no run of {study} in {root}; shown are those of {published}", file=sys.stderr)
    return published


def but_published(*names: str) -> str:
    """What an error says more of a file or folder that is missing below the root of runs, if there
    is one so named below that of the published runs."""
    root = anchored(PUBLISHED / "runs")
    found = os.path.exists(f"{root}/{'/'.join(names)}")
    return f"; published: runs_root={str(root)!r}" if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One finished run. Errors are fractions in [0, 1]; losses are in nats."""

    path: Path = field(compare=False)  # the run's folder
    status: str  # "finished"; there is no record of anything else
    study: str  # the study it belongs to
    protocol: str  # name of the protocol its recipe stands for, or "custom"
    model: str  # registry name
    overrides: Mapping[str, Any]  # given to the builder beside the name
    seed: int  # seed of the initialisation, the order and the augmentation
    recipe: Mapping[str, Any]  # every field of the recipe
    device: str  # "cpu", "cuda", "mps" or "xpu"
    precision: str  # "fp32" or "bf16" in training; the last evaluation is in fp32
    compile: bool  # whether the step went through torch.compile
    threads: int  # CPU threads
    evaluated_on: str  # "test", or "val" if images were held out of the training set
    num_val: int  # images held out
    test_error: float  # share of wrong predictions after the last epoch
    test_loss: float  # mean cross-entropy after the last epoch
    # mean loss over the last epoch's batches: with label smoothing, of the smoothed labels; with an
    # average of the weights, of those that are averaged
    train_loss: float
    num_params: int  # parameters
    macs: int  # of convolutions and linear layers, for one image
    images_per_second: float | None  # steady state, training alone; None: too short to tell
    wall_seconds: float  # from start to record, over all sessions of a resumed run
    peak_memory_mib: float | None  # allocator's on a GPU, else the process's; None: unknown
    data: str  # name or path of the dataset
    classes: Sequence[str]  # names of the classes
    mean: Sequence[float]  # channel means the images were normalised with
    std: Sequence[float]  # channel standard deviations, likewise
    data_fingerprint: str  # SHA-256 over the dataset
    git_commit: str | None  # commit of the source, if it was a checkout
    git_dirty: bool | None  # whether tracked files differed from that commit
    versions: Mapping[str, str]  # of Python and the packages that decide the numbers
    hardware: Mapping[str, Any]  # processor, instructions, cores, system, and GPU
    started: str  # time of the first start, ISO 8601, UTC
    finished: str  # time of the record, likewise
    fused: bool = False  # whether senet_lib.kernels did what they can
    kernels_missing: str = ""  # why neither they nor torch.compile, where wanted
    weights_error: float | None = field(default=None, compare=False)  # once rounded to publish them
    plugins: Mapping[str, str] = field(default_factory=dict)  # text by name of own files it needs
    files: Mapping[str, str] = field(default_factory=dict, compare=False)  # SHA-256 of those beside

    def __repr__(self) -> str:  # `dataclasses.asdict` has all of it
        return (
            f"<{self.network}, seed {self.seed}, study {self.study}: wrong on "
            f"{100 * self.test_error:.2f} % of the {self.evaluated_on} images; {self.path}>"
        )

    @property
    def network(self) -> str:
        """Name of the network with every setting of it, such as `se_resnet20+reduction=4`."""
        return full_name(self.model, self.overrides)

    @property
    def recipe_id(self) -> str:
        """Equal exactly when two recipes are, whatever version wrote the records."""
        return Recipe.from_dict(self.recipe).id

    @property
    def computed_on(self) -> str:
        """Device, precision, and what made it faster, such as "cpu, fp32, kernels"."""
        return computed_on(self)

    @property
    def arithmetic(self) -> str:
        """`computed_on` and, in bf16 on a CPU, the processor, for they do not multiply alike."""
        if (self.device, self.precision) != ("cpu", "bf16"):
            return self.computed_on
        cpu, known = (self.hardware.get(key) or "" for key in ("cpu", "instructions"))
        amx = " with AMX" if "AMX" in known else ""
        if not known and "Intel" in cpu:  # a record of 0.1 before it named them
            amx = " with or without AMX"
        return f"{self.computed_on}, {cpu or 'unknown'}{amx}"

    @property
    def machine(self) -> str:
        """GPU, processor, instructions, system and cores, as far as they are known."""
        known = [self.hardware.get(key) for key in ("gpu", "cpu", "instructions", "system")]
        if type(cores := self.hardware.get("cores")) is int:
            known.append(counted(cores, "core"))
        return ", ".join(filter(None, known))

    @property
    def commit(self) -> str:
        """Twelve digits of the source's commit, with a + where files differed; "unknown"."""
        return self.git_commit[:12] + "+" * bool(self.git_dirty) if self.git_commit else "unknown"

    def to_dict(self) -> dict[str, Any]:
        """Every field but the folder, and the recipe's id, ready for JSON."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "path"]
        return {name: getattr(self, name) for name in [*names, "recipe_id"]}

    @property
    def history(self) -> "pd.DataFrame":
        """One row an epoch: epoch lr train_loss train_error test_loss test_error images_per_second
        (so far) wall_seconds (so far). RecordError where the file is missing or damaged."""
        import pandas as pd

        return pd.read_csv(self._history())

    def _history(self) -> Path:
        """The file of the history, a row of numbers for each epoch; read without pandas, as
        training does without it."""
        path, epochs = self._file(HISTORY), self.recipe["epochs"]
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = [{k: float(v or "nan") for k, v in r.items()} for r in csv.DictReader(file)]
            whole = [row["epoch"] for row in rows] == list(range(1, epochs + 1))
        except (ValueError, KeyError, TypeError, csv.Error):
            whole = False
        if not whole:
            raise RecordError(f"{path} is damaged: it is no table of {epochs} epochs")
        return path

    def test_logits(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, K), float32 (of a published run rounded), and labels (N,), int64, of the
        evaluated images in order. RecordError where the file is missing or damaged."""
        path = self._file(LOGITS)
        try:
            with np.load(path) as archive:
                logits = archive["logits"].astype(np.float32)
                labels = archive["labels"].astype(np.int64)
            shape = (len(labels), len(self.classes))
            whole = logits.shape == shape and labels.ndim == 1 and np.isfinite(logits).all()
            whole = whole and (labels >= 0).all() and (labels < shape[1]).all()
        except MemoryError:
            raise
        except Exception:  # numpy, zipfile and zlib raise whatever the bytes provoke
            whole = False
        if not whole:
            raise RecordError(
                f"{path} is damaged: not a label and {len(self.classes)} logits for each image"
            )
        return logits, labels

    def load_model(self) -> "nn.Module":
        """The trained network, in eval mode and fp32, on the CPU."""
        return load_network(self._file(WEIGHTS))[0]

    def verify(self) -> None:
        """Read all files beside the record; RecordError names one missing or damaged."""
        for name in self.files:
            self._file(name)
        _ = self._history(), self.test_logits()

    def _file(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise RecordError(f"{self.path} has a record but no {name}")
        if name in self.files and sha256_of(path) != self.files[name]:
            raise RecordError(f"{path} was changed after it was written: its checksum differs")
        return path


def save_record(record: RunRecord) -> None:
    """Write record.json with the checksums of the files beside it, all of which must be on disk."""
    present = [name for name in CHECKED if (record.path / name).is_file()]
    content = record.to_dict() | {"files": {n: sha256_of(record.path / n) for n in present}}
    content["sha256"] = sha256_of_json(content)
    write_whole(record.path / RECORD, json.dumps(content, indent=2, allow_nan=False) + "\n")


def save_history(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write history.csv, one row an epoch."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / HISTORY, buffer.getvalue())


def save_logits(folder: Path, logits: np.ndarray, labels: np.ndarray) -> None:
    """Write test_logits.npz: logits (N, K), floating point, and labels (N,), integers."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as archive:  # a fifth less than NumPy's
        for name, values in {"logits": logits, "labels": labels}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, values)
    write_whole(folder / LOGITS, buffer.getvalue())


def load_run(path: str | Path) -> RunRecord:
    """The record of a finished run, by folder or record.json; RecordError if none is whole."""
    path = from_here(path)
    folder = path.parent if path.name == RECORD else path
    if not (folder / RECORD).is_file():
        begun = any((folder / name).is_file() for name in (CHECKPOINT, PREVIOUS))
        state = "unfinished; run it again to go on" if begun else "no run"
        more = but_published(*folder.parts[-3:], RECORD)
        raise RecordError(f"{folder} holds {state}: there is no {RECORD}{more}")
    path = folder / RECORD
    # Fields with a default are younger than others.
    fields = read_json(path, [name for name in needed_fields(RunRecord) if name != "path"])
    digest = fields.pop("sha256", None)
    if (digest or "files" in fields) and digest != sha256_of_json(fields):
        raise RecordError(f"{path} was changed after it was written: its checksum differs")
    known = {spec.name for spec in dataclasses.fields(RunRecord)} - {"path"}
    record = RunRecord(path=folder, **{name: fields[name] for name in known if name in fields})
    if reason := _wrong(record):
        raise RecordError(f"{path} is damaged: {reason}")
    return record


def _wrong(record: RunRecord) -> str:
    """Which field of a record has a wrong type or is out of range; empty if none."""
    kinds = {k: v for k, v in typing.get_type_hints(RunRecord).items() if k != "path"}
    fits = {name: is_a(getattr(record, name), kind) for name, kind in kinds.items()}
    if all(fits.values()):
        fits = {
            "status": record.status == "finished",
            "evaluated_on": record.evaluated_on in ("test", "val"),
            "seed": record.seed < 2**63,
            "test_error": record.test_error <= 1,
            "weights_error": (record.weights_error or 0) <= 1,
            "classes": len(record.classes) > 0,
            "std": len(record.std) == len(record.mean) > 0 and min(record.std) > 0,
            "files": set(record.files) <= set(CHECKED),
        }
    if wrong := [name for name, good in fits.items() if not good]:
        return f"{wrong[0]} is {str(getattr(record, wrong[0]))[:40]!r}"
    if missing := [name for name in ALWAYS if name not in record.recipe]:
        return f"its recipe lacks {', '.join(missing)}"
    try:
        Recipe.from_dict(record.recipe)
    except (SenetError, TypeError) as error:
        return f"its recipe: {error}"
    return ""


def is_a(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON is of an annotated type; numbers are finite and 0 or above."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin is Mapping:
        return isinstance(value, dict) and all(is_a(item, parts[1]) for item in value.values())
    if origin is Sequence:
        return isinstance(value, list) and all(is_a(item, parts[0]) for item in value)
    if origin is not None:  # a union
        return any(is_a(value, part) for part in parts)
    if kind is float:
        return type(value) in (int, float) and 0 <= value <= sys.float_info.max
    return type(value) is kind and (kind is not int or value >= 0)


def find_runs(
    root: str | Path = DEFAULT_ROOT, by: Sequence[str] = (RECORD, CHECKPOINT, PREVIOUS, FAILED)
) -> list[Path]:
    """Folders below `root` that hold a run, finished or not, `by` one of these files, in natural
    order, each once, also behind links; none that is hidden, for those are copies being made."""
    found, seen = [], set()
    for folder, inside, files in os.walk(runs_folder(root), followlinks=True):
        real = os.path.realpath(folder)
        inside[:] = [name for name in sorted(inside) if name[0] != "." and real not in seen]
        if real not in seen and not set(by).isdisjoint(files):
            found.append(Path(folder))
        seen.add(real)
    return sorted(
        found, key=lambda f: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", f"{f}")]
    )


def list_runs(root: str | Path = DEFAULT_ROOT, **where: Any) -> "pd.DataFrame":
    """A table of the runs below a folder, one row each.

    Args:
        root: the folder.
        where: keep the rows whose column equals the value, as in `model="resnet20"`;
            UnknownNameError where there is no such column.
    Returns:
        The fields of `RunRecord`, with `path` as text, and `network`, the model's name with every
        setting. `status` is "finished", "unfinished" (a checkpoint to go on from), "failed" or
        "damaged"; rows other than finished have study, model, network and seed alone. `problem`
        says what is damaged, or in which folder the same run is; else "".
    """
    import pandas as pd

    columns = [f.name for f in dataclasses.fields(RunRecord)]
    columns += ["network", "recipe_id", "problem"]
    for name in where:
        if name not in columns:
            raise unknown("column", name, columns)
    where = {name: v.item() if isinstance(v, np.generic) else v for name, v in where.items()}
    runs, rows = [], {}
    for folder in find_runs(root):
        run, status, reason = look(folder)
        model, seed = names(folder)
        known = len(folder.parts) >= 3 and seed is not None
        named = {"study": folder.parts[-3], "model": model, "seed": seed} if known else {}
        row = run.to_dict() if run else {"study": "", "model": "", **named}
        network = run.network if run else row["model"]
        problem = reason if status == "damaged" else ""
        found = {"path": str(folder), "network": network, "status": status, "problem": problem}
        rows[folder] = row | found
        runs += [run] if run else []
    for copy, original in copies(runs).items():
        rows[copy]["problem"] = f"the same network and seed as {original}"

    def fits(row: Mapping[str, Any]) -> bool:
        pairs = ((row.get(name), value) for name, value in where.items())
        return all(isinstance(a, bool) == isinstance(b, bool) and a == b for a, b in pairs)

    kept = list(filter(fits, rows.values()))
    return pd.DataFrame(kept, columns=columns).astype({"seed": "Int64"})


def check_records(runs: Sequence[RunRecord]) -> None:
    """RecordError for anything but a list of records, such as the table of `list_runs`."""
    listed = isinstance(runs, Sequence)
    if odd := [run for run in runs if not isinstance(run, RunRecord)] if listed else [runs]:
        raise RecordError(
            "runs must be a list of records, [load_run(path) for path in paths], not a "
            f"{type(odd[0]).__name__}"
        )


def copies(runs: Sequence[RunRecord]) -> dict[Path, Path]:
    """The folder of each copy of a run, to that of the run: of those of one study, network, seed,
    recipe and data the one whose folder is called as `fit` calls it, or else the first."""
    found: dict[str, list[RunRecord]] = {}
    for run in runs:
        kind = [run.study, run.network, run.seed, run.recipe_id, run.num_val, run.data]
        found.setdefault(json.dumps(kind), []).append(run)
    copied = {}
    for same in found.values():
        own = [run for run in same if run.path.parts[-2:] == (run.model, f"seed{run.seed}")]
        original = (own or same)[0].path
        copied |= {run.path: original for run in same if run.path != original}
    return copied


def look(folder: Path) -> tuple[RunRecord | None, str, str]:
    """What became of a run that `find_runs` found: itself if it is whole, its state as in
    `list_runs`, and the reason for that state."""
    if (folder / RECORD).is_file():
        try:
            run = load_run(folder)
            run.verify()
            return run, "finished", ""
        except (RecordError, OSError) as error:
            return None, "damaged", str(error)
    begun = any((folder / name).is_file() for name in (CHECKPOINT, PREVIOUS))
    if not (folder / FAILED).is_file():
        return None, "unfinished", "stopped before its last epoch; it goes on from its checkpoint"
    resumable = " (it goes on from its checkpoint)" if begun else ""
    try:
        content = read_json(folder / FAILED, ("error", "message"))
        return None, "failed", f"{content['error']}: {content['message']}{resumable}"
    except RecordError:
        return None, "failed", f"{FAILED} is not readable{resumable}"


def names(folder: Path) -> tuple[str, int | None]:
    """Model and seed that a run's folder is called by; None for a name that says no seed."""
    ours = re.fullmatch(r"seed(\d{1,18})", folder.name)
    return folder.parent.name, int(ours[1]) if ours else None
