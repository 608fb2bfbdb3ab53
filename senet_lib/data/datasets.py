"""Datasets by name or path: `shapes`, `cifar10`, `cifar100`, an npz file or an image folder.

All are brought to one canonical order and carry a fingerprint of their content, so that a seed
means the same batches whatever the source, and a record can say what it was trained on.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from senet_lib.data import cifar, sources
from senet_lib.data.cifar import CIFAR10_CLASSES, CIFAR10_FINGERPRINT, CIFAR_COUNTS
from senet_lib.data.image_folder import read_folder
from senet_lib.data.shapes import CLASSES as SHAPES_CLASSES
from senet_lib.data.shapes import draw_shapes
from senet_lib.data.sources import Arrays
from senet_lib.errors import DataError, unknown
from senet_lib.files import anchored

NAMES = ("shapes", "cifar10", "cifar100")
SHAPES_TRAIN, SHAPES_TEST = 2_000, 1_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Two splits of images with labels, in canonical order."""

    name: str
    """The name or path it was loaded by."""
    classes: tuple[str, ...]
    """K names; a label is an index into them."""
    x_train: np.ndarray
    """(N, 32, 32, 3) uint8, RGB."""
    y_train: np.ndarray
    """(N,) int64."""
    x_test: np.ndarray
    """(M, 32, 32, 3) uint8, RGB."""
    y_test: np.ndarray
    """(M,) int64."""
    fingerprint: str
    """SHA-256 over x_train, y_train, x_test, y_test as uint8, in hexadecimal."""
    masks_train: np.ndarray | None = None
    """(N, 32, 32) bool, the object's pixels, where they are known."""
    masks_test: np.ndarray | None = None
    """(M, 32, 32) bool."""
    test_name: str = "test"
    """What the second split is: "test", or "val" after `hold_out`."""
    _moments: list[tuple[float, ...]] = field(default_factory=list, init=False, repr=False)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over x_train, in [0, 1]."""
        return self._channel_moments()[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Population standard deviation of each channel over x_train, in [0, 1]."""
        return self._channel_moments()[1]

    def _channel_moments(self) -> list[tuple[float, ...]]:
        """Means and deviations from a histogram of whole numbers: exact, computed once."""
        if not self._moments:
            counts = np.zeros((3, 256), np.int64)
            for start in range(0, len(self.x_train), 1000):
                chunk = self.x_train[start : start + 1000]
                for channel in range(3):
                    counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
            value, total = np.arange(256), int(counts[0].sum())
            first = [int((row * value).sum()) for row in counts]
            second = [int((row * value * value).sum()) for row in counts]
            self._moments.append(tuple(a / total / 255 for a in first))
            self._moments.append(
                tuple(
                    ((b * total - a * a) / total**2) ** 0.5 / 255
                    for a, b in zip(first, second, strict=True)
                )
            )
        return self._moments


def data_dir() -> Path:
    """The data folder: $SENET_DATA, or ~/.cache/senet."""
    return Path(os.environ.get("SENET_DATA") or "~/.cache/senet").expanduser()


def load_data(name_or_path: str, data_dir: Path | None = None) -> Dataset:
    """Load a dataset by name or path, check it and bring it to canonical order.

    Args:
        name_or_path: `shapes`, `cifar10`, `cifar100`, an npz file, or a folder
            train/<class>/*.png with test or val beside train.
        data_dir: where `<name>.npz` lies or is written; by default what `data_dir()` says.
    Returns:
        The dataset.
    Raises:
        UnknownNameError: no dataset has the name.
        DataError: the data is missing, damaged or not the one expected.
    """
    name = str(name_or_path)
    if name == "shapes":
        return make_shapes()
    if name in NAMES:
        return _load_cifar(name, _folder(data_dir))
    path = find_path(name)
    if not path.is_dir():
        arrays = sources.read_npz(path)
    else:
        arrays = (cifar.read_pickles if cifar.layout_of(path) else read_folder)(path)
    return _verified(name, arrays)


def load_matching(
    name_or_path: str, *, classes: Sequence[str], fingerprint: str = "", num_val: int = 0
) -> Dataset:
    """The images that a trained network is shown, with labels as the network numbers them.

    Args:
        name_or_path: as in `load_data`.
        classes: names of the network's classes, in the order of its logits.
        fingerprint: what the data must have, as a record says; "" takes any.
        num_val: training images to hold out, as in `hold_out`.
    Returns:
        The dataset with `classes` in the network's order. Classes are matched by name; where
        the data has no names, a line in the log says that they are taken by number.
    Raises:
        DataError: as in `load_data`; or the classes are not the network's, or the fingerprint is
            another one.
    """
    dataset = hold_out(load_data(name_or_path), num_val)
    if fingerprint and dataset.fingerprint != fingerprint:
        raise DataError(
            f"{name_or_path} was changed since the network was trained on it: its fingerprint is "
            f"{dataset.fingerprint[:12]}..., the record says {fingerprint[:12]}..."
        )
    return _renumbered(dataset, tuple(classes))


def _renumbered(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The dataset with its labels in the order of `classes`."""
    if dataset.classes == classes:
        return dataset
    numbers = tuple(str(k) for k in range(len(classes)))
    if dataset.classes == numbers or (classes == numbers and len(dataset.classes) == len(classes)):
        log.warning("%s: classes are matched by number, for names are missing", dataset.name)
        return replace(dataset, classes=classes)
    if set(dataset.classes) != set(classes):
        lacking, foreign = (
            f"{len(names)} ({', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''})"
            for names in (set(classes) - set(dataset.classes), set(dataset.classes) - set(classes))
        )
        raise DataError(
            f"{dataset.name} has other classes than the network, which tells {len(classes)} apart: "
            f"it lacks {lacking}, and has {foreign} that the network does not know"
        )
    new = np.array([classes.index(name) for name in dataset.classes], np.int64)
    return replace(
        dataset, classes=classes, y_train=new[dataset.y_train], y_test=new[dataset.y_test]
    )


def prepare(name: str, data_dir: Path | None = None) -> Path:
    """Make sure that a dataset can be loaded without network: what `senet data NAME` does.

    Args:
        name: as in `load_data`.
        data_dir: as in `load_data`.
    Returns:
        The verified file or folder. For `shapes`, which is always made afresh, a copy with masks
        for use elsewhere, `shapes.npz` in the data folder.
    Raises:
        UnknownNameError: no dataset has the name.
        DataError: as in `load_data`.
    """
    dataset = load_data(name, data_dir)
    if name not in NAMES:
        return find_path(name)
    path = _folder(data_dir) / f"{name}.npz"
    if name == "shapes":
        sources.write_npz(path, _arrays(dataset))
    return path


def make_shapes(
    num_train: int = SHAPES_TRAIN, num_test: int = SHAPES_TEST, seed: int = 0
) -> Dataset:
    """Draw the embedded dataset; the same arguments give the same bytes on every platform.

    Args:
        num_train: images to train on, at least 1.
        num_test: images to test on, at least 1.
        seed: 0 or more; `load_data("shapes")` uses 0.
    Returns:
        The dataset with exact masks.
    Raises:
        DataError: a number is out of range.
    """
    x_train, y_train, masks_train = draw_shapes(num_train, seed, 0)
    x_test, y_test, masks_test = draw_shapes(num_test, seed, 1)
    arrays = Arrays(
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=SHAPES_CLASSES,
        masks_train=masks_train,
        masks_test=masks_test,
    )
    return _verified("shapes", arrays)


def hold_out(dataset: Dataset, num_val: int) -> Dataset:
    """Cut a validation split from train; it takes the place of test, which stays unused.

    Args:
        dataset: any dataset.
        num_val: images to hold out, less than train has; 0 returns the dataset as it is.
    Returns:
        A dataset whose `x_test`, `y_test` are the last `num_val` of a fixed permutation of train,
        and whose `test_name` is "val". Both parts keep the canonical order.
    Raises:
        DataError: `num_val` is negative or leaves nothing to train on.
    """
    total = len(dataset.x_train)
    if num_val == 0:
        return dataset
    if not 0 < num_val < total:
        raise DataError(
            f"cannot hold out {num_val} of {total} training images; 0 to {total - 1} are possible"
        )
    # A permutation by hash depends on no random generator's version.
    order = sorted(range(total), key=lambda i: hashlib.sha256(b"hold out %d" % i).digest())
    train, val = sorted(order[:-num_val]), sorted(order[-num_val:])
    masks = dataset.masks_train
    held = replace(
        dataset,
        x_train=dataset.x_train[train],
        y_train=dataset.y_train[train],
        masks_train=None if masks is None else masks[train],
        x_test=dataset.x_train[val],
        y_test=dataset.y_train[val],
        masks_test=None if masks is None else masks[val],
        test_name="val",
    )
    return replace(held, fingerprint=sources.fingerprint(_arrays(held)))


def take(dataset: Dataset, num_train: int) -> Dataset:
    """Keep the first training images alone, to make training cheaper.

    The order is that of the images' hashes, so the first are as good as drawn at random, and a
    smaller choice lies within a larger one.

    Args:
        dataset: any dataset; its fingerprint stays, for it names the whole.
        num_train: images to keep; 0 keeps all.
    Raises:
        DataError: `num_train` is negative or more than there are.
    """
    total = len(dataset.x_train)
    if not 0 <= num_train <= total:
        raise DataError(f"cannot take {num_train} of {total} training images; 0 takes all")
    if num_train in (0, total):
        return dataset
    masks = dataset.masks_train
    return replace(
        dataset,
        x_train=dataset.x_train[:num_train],
        y_train=dataset.y_train[:num_train],
        masks_train=None if masks is None else masks[:num_train],
    )


def _folder(chosen: Path | None) -> Path:
    """The data folder that the caller chose, or the usual one."""
    return data_dir() if chosen is None else Path(chosen).expanduser()


def find_path(name: str) -> Path:
    """A file or folder of data: as seen from here, or else from the top of the clone.

    Raises:
        UnknownNameError: it is meant as a name, and no dataset has it.
        DataError: there is no such file or folder.
    """
    path = Path(name).expanduser()
    for place in (path, anchored(path)):
        if name and place.exists():
            return place
    if Path(name).name != name or name.startswith("~") or path.suffix in (".npz", ".zip"):
        raise DataError(f"no such file or folder: {name}")
    raise unknown("dataset", name, NAMES)


def _arrays(dataset: Dataset) -> Arrays:
    """The dataset's arrays as a source would give them."""
    keys = (*sources.KEYS, "classes", "masks_train", "masks_test")
    return Arrays(**{key: getattr(dataset, key) for key in keys})


def _verified(name: str, arrays: Arrays) -> Dataset:
    """Sort, fingerprint, and compare with the fingerprint that the source claims for itself."""
    arrays = sources.canonical(arrays)
    found = sources.fingerprint(arrays)
    if arrays.fingerprint is not None and arrays.fingerprint != found:
        raise DataError(
            f"{name}: its content has fingerprint {found[:12]}..., but it claims "
            f"{arrays.fingerprint[:12]}...: the file is damaged or was changed"
        )
    return _dataset(name, arrays, found)


def _dataset(name: str, arrays: Arrays, found: str) -> Dataset:
    """A dataset of arrays in canonical order, whose classes are numbered if they have no names."""
    classes = arrays.classes or tuple(str(k) for k in range(int(arrays.y_train.max()) + 1))
    if len(classes) < 2:
        raise DataError(f"{name} has {len(classes)} class; at least 2 are needed")
    empty = np.flatnonzero(np.bincount(arrays.y_train, minlength=len(classes)) == 0)
    if len(empty) and not arrays.classes:
        raise DataError(
            f"{name}: no training image has the label {empty[0]}; labels must go from 0 to K - 1, "
            "or `classes` name them"
        )
    if len(empty):
        log.warning("%s: no training image of %s", name, ", ".join(classes[k] for k in empty))
    return Dataset(
        name=name,
        classes=classes,
        x_train=arrays.x_train,
        y_train=arrays.y_train,
        x_test=arrays.x_test,
        y_test=arrays.y_test,
        fingerprint=found,
        masks_train=arrays.masks_train,
        masks_test=arrays.masks_test,
    )


def _load_cifar(name: str, folder: Path) -> Dataset:
    """CIFAR from its npz; if there is none it is downloaded and the npz written."""
    path = folder / f"{name}.npz"
    if path.exists():
        return _check_cifar(name, sources.read_npz(path), str(path))
    arrays = sources.canonical(cifar.download_cifar(name, folder))
    dataset = _check_cifar(name, arrays, f"the download of {name}")
    sources.write_npz(path, _arrays(dataset))
    return dataset


def _check_cifar(name: str, arrays: Arrays, where: str) -> Dataset:
    """Check that these are the images of CIFAR, in whatever order, and sort them."""
    num_classes, *per_class = CIFAR_COUNTS[name]
    remedy = f"remove it and run `senet data {name}`"
    for split, count in zip(("train", "test"), per_class, strict=True):
        found = np.bincount(getattr(arrays, f"y_{split}"), minlength=num_classes)
        if len(found) != num_classes or (found != count).any():
            raise DataError(
                f"{where} is not {name}: {split} must have {num_classes} classes "
                f"of {count} images each; {remedy}"
            )
    if name == "cifar100":
        return replace(_verified(where, arrays), name=name)
    if (found := sources.fingerprint(arrays)) != CIFAR10_FINGERPRINT:
        arrays = sources.canonical(arrays)
        found = sources.fingerprint(arrays)
    if found != CIFAR10_FINGERPRINT:
        raise DataError(
            f"{where} is not {name}: fingerprint {found[:12]}..., "
            f"expected {CIFAR10_FINGERPRINT[:12]}...; {remedy}"
        )
    return _dataset(name, replace(arrays, classes=CIFAR10_CLASSES), found)
