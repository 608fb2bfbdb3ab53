"""Saved networks and the images they are shown: of the same classes, and unchanged."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from senet_lib.data import Dataset, hold_out, load_data, load_matching, read_picture
from senet_lib.data.augment import normalise
from senet_lib.data.datasets import find_path
from senet_lib.data.pictures import SIZE
from senet_lib.device import Setup
from senet_lib.errors import RecordError, SenetError, one_line
from senet_lib.evaluation import error_and_loss, predict, probabilities
from senet_lib.runs.published import find_pretrained
from senet_lib.runs.records import RECORD, RunRecord, is_a, load_run
from senet_lib.runs.weights import NetSpec, load_network

PICTURES_AT_ONCE = 100  # which bounds the memory that `classify` takes
MOST_AT_ONCE = 1_000_000  # images of a batch


def images_of(run: "RunRecord | NetSpec", data: str = "") -> Dataset:
    """The images of a run's training, or other ones, with labels as its network numbers them.

    Args:
        run: a record, or what weights say of themselves.
        data: a dataset's name or path, evaluated whole; "" for the run's own, whose images must
            be those of the training.
    """
    own = {"fingerprint": run.data_fingerprint, "num_val": run.num_val}
    return load_matching(data or run.data, classes=run.classes, **({} if data else own))


def saved_at(source: str | Path) -> Path:
    """Where a network is saved: the path itself or, of a published network's name, the folder."""
    path = Path(source)
    named = not (path.exists() or len(path.parts) > 1 or path.suffix)
    return find_pretrained(str(source)).path if named else path


def network_and_images(
    checkpoint: str | Path, data: str = ""
) -> tuple[nn.Module, NetSpec, RunRecord | None, Dataset]:
    """A saved network, what it is, any record, its images; see `saved_at`, `load_network`,
    `images_of`."""
    path = saved_at(checkpoint)
    model, spec = load_network(path)
    folder = path if path.is_dir() else path.parent
    record = load_run(folder) if (folder / RECORD).is_file() else None
    if record:
        record.verify()
    if not (data or spec.data or record):
        raise SenetError(f"{path} does not say what it was trained on; name it with --data")
    return model, spec, record, images_of(spec if spec.data or not record else record, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How a saved network does."""

    spec: NetSpec  # what it is
    dataset: Dataset  # the images it was shown
    error: float  # share of wrong predictions, in [0, 1]
    loss: float  # mean cross-entropy in nats
    recorded: float | None  # the error its record states for these very images, if it does
    measured_so: bool = True  # whether with these weights, which of published ones are rounded

    @property
    def agrees(self) -> bool:
        """Whether it is the recorded error, if any, but for near ties that rounding decides."""
        allowed = 2e-4 if self.measured_so else 2e-3
        most = max(2 / len(self.dataset.x_test), allowed)
        return self.recorded is None or abs(self.error - self.recorded) <= most


def evaluate(
    checkpoint: str | Path, data: str = "", *, device: str = "auto", batch_size: int | None = None
) -> Evaluation:
    """Measure a saved network's error in fp32; see `load_network`, `images_of`, `predict`."""
    if batch_size is not None and not 1 <= batch_size <= MOST_AT_ONCE:
        raise SenetError(f"batch size is {batch_size}; it must be from 1 to {MOST_AT_ONCE:,}")
    model, spec, record, dataset = network_and_images(checkpoint, data)
    setup = Setup.choose(device=device, precision="fp32", compile="off", threads=0)
    model = setup.place(model)
    logits = predict(model, dataset.x_test, spec.mean, spec.std, batch_size=batch_size).cpu()
    error, loss = error_and_loss(logits, torch.from_numpy(dataset.y_test))
    same = record is not None and record.data_fingerprint == dataset.fingerprint
    own = record.weights_error if same and spec.half_precision else None
    return Evaluation(
        spec=spec,
        dataset=dataset,
        error=error,
        loss=loss,
        recorded=own if own is not None else record.test_error if same else None,
        measured_so=own is not None or not spec.half_precision,
    )


def runs_on_other_images(folders: Iterable[Path], data: str) -> Sequence[RunRecord]:
    """Finished runs whose images are not what their data, a file or folder, holds now.

    The images are read only if a file or a link is newer than a record, by the time of its last
    change on this system, which copying does not carry over, or a record is of a time to come.
    """
    runs = []
    for folder in folders:
        with suppress(RecordError):  # there is none, or a damaged one, as the report says
            runs.append(load_run(folder))
    path = find_path(data)
    inside = (found for depth in ("*", "*/*", "*/*/*") for found in path.glob(depth))
    files = [file for file in (path, *inside) if file.exists()]  # through links to folders too
    changed = max(max(p.lstat().st_ctime, p.stat().st_ctime) for p in files)
    written = [(run.path / RECORD).stat().st_mtime for run in runs]
    if all(changed < one <= time.time() for one in written):
        return []
    dataset = load_data(data)
    found = {n: hold_out(dataset, n).fingerprint for n in {run.num_val for run in runs}}
    return [run for run in runs if run.data_fingerprint != found[run.num_val]]


def classify(
    source: str | Path, pictures: Sequence[str | Path]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Probabilities of the K classes for some pictures, each brought to 32x32 as in training:
    (pictures, K), float64, and the classes' names.

    Args:
        source: a run's folder or its weights, an exported file (.onnx, .ts, .pt2), or the name of a
            published network.
        pictures: files of any kind that Pillow reads.
    """
    from senet_lib.export import SUFFIXES, load_exported  # torch.export takes a second to load

    path = Path(source)
    if path.suffix in SUFFIXES.values():
        run, about = load_exported(path)
        classes, mean, std = (about.get(name) for name in ("classes", "mean", "std"))
        told = is_a(classes, Sequence[str]) and all(is_a(v, Sequence[float]) for v in (mean, std))
        if not (told and len(mean) == len(std) == 3 and min(std) > 0):
            raise SenetError(f"{path} says no valid classes, mean, std; export it by senet export")
        if about.get("input_size") != [3, SIZE, SIZE]:
            raise SenetError(f"{path} takes images of {about.get('input_size')}, not of 3x32x32")
    else:
        run, spec = load_network(saved_at(source))
        classes, mean, std = spec.classes, spec.mean, spec.std
    found = []
    for start in range(0, len(pictures), PICTURES_AT_ONCE):
        chosen = pictures[start : start + PICTURES_AT_ONCE]
        images = torch.from_numpy(np.stack([read_picture(Path(one))[0] for one in chosen]))
        try:
            with torch.no_grad():
                logits = run(normalise(images, mean, std).contiguous())
        except Exception as error:  # each runtime has errors of its own
            raise SenetError(f"{path} cannot be run on these pictures: {one_line(error)}") from None
        if (shape := tuple(logits.shape)) != (len(images), len(classes)):
            raise SenetError(f"{path} gives {shape} logits for {len(classes)} classes")
        found.append(probabilities(logits.float().numpy()))
    return np.concatenate([np.empty((0, len(classes))), *found]), tuple(classes)
