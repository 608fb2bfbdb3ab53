"""Datasets by name or path: `shapes`, `cifar10`, `cifar100`, an npz file or an image folder.

All are brought to one canonical order and carry a fingerprint of their content, so that a seed
means the same batches whatever the source, and a record can say what it was trained on.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from senet_lib.data import cifar, sources
from senet_lib.data.cifar import CIFAR10_CLASSES, CIFAR10_FINGERPRINT, CIFAR_COUNTS
from senet_lib.data.image_folder import read_folder
from senet_lib.data.shapes import CLASSES as SHAPES_CLASSES
from senet_lib.data.shapes import draw_shapes
from senet_lib.data.sources import LEAST_STD, Arrays
from senet_lib.errors import DataError, one_line, unknown
from senet_lib.files import anchored, from_here

NAMES = ("shapes", "cifar10", "cifar100")
SHAPES_TRAIN, SHAPES_TEST = 2_000, 1_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset(Arrays):
    """Two splits of images with labels, in canonical order, with their fingerprint: SHA-256 over
    x_train, y_train, x_test, y_test as uint8, in hexadecimal."""

    name: str  # the name or path it was loaded by
    classes: tuple[str, ...]
    fingerprint: str
    test_name: str = "test"  # what the second split is: "test", or "val" after `hold_out`

    def __repr__(self) -> str:
        counts = f"{len(self.x_train):,} training and {len(self.x_test):,} {self.test_name} images"
        masks = ", with masks" if self.masks_test is not None else ""
        return f"<Dataset {self.name}: {counts} of {self.num_classes} classes{masks}>"

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over x_train, in [0, 1]."""
        return tuple(mean for mean, _ in self._moments)

    @property
    def std(self) -> tuple[float, ...]:
        """Population standard deviation of each channel over x_train, in [0, 1], at least
        `sources.LEAST_STD`."""
        return tuple(std for _, std in self._moments)

    @cached_property
    def _moments(self) -> list[tuple[float, float]]:
        """Mean and deviation of each channel, from sums of whole numbers: exact."""
        found = []
        for channel in range(3):
            pixels = self.x_train[..., channel]
            squares = np.square(pixels, dtype=np.uint16)  # at most 255 * 255
            total = pixels.size
            first, second = (int(values.sum(dtype=np.int64)) for values in (pixels, squares))
            deviation = ((second * total - first * first) / total**2) ** 0.5
            found.append((first / total / 255, max(deviation / 255, LEAST_STD)))
        return found


def data_dir() -> Path:
    """The data folder: $SENET_DATA, or ~/.cache/senet; DataError where that is nobody's home."""
    folder = os.path.expanduser(os.environ.get("SENET_DATA") or "~/.cache/senet")
    if folder.startswith("~"):
        raise DataError(f"there is no home folder for {folder}; let SENET_DATA name a folder")
    return Path(folder)


def load_data(name_or_path: str) -> Dataset:
    """Load a dataset, check it and bring it to canonical order: `shapes`, `cifar10` or `cifar100`
    from the data folder, an npz file, or a folder `train/<class>/*.png` with test or val beside.

    Raises:
        UnknownNameError: no dataset has the name.
        DataError: the data is missing, damaged or not the one expected.
    """
    name = str(name_or_path)
    if name == "shapes":
        return make_shapes()
    if name in NAMES:
        return _load_cifar(name)
    path, read = find_path(name), sources.read_npz
    if path.is_dir():
        pickled = cifar.layout_of(path) and not (path / "train").is_dir()
        read = cifar.read_pickles if pickled else read_folder
    try:
        return _verified(name, read(path))
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise DataError(f"cannot read {error.filename or path}: {reason}") from None


def load_matching(
    name_or_path: str, *, classes: Sequence[str], fingerprint: str = "", num_val: int = 0
) -> Dataset:
    """The images that a trained network is shown, with labels as the network numbers them.

    Classes are matched by name; where the data has no names, or has the record's fingerprint, which
    holds the labels' numbers, under other names, a line in the log says that they are taken by
    number.

    Args:
        name_or_path: as in `load_data`, whose errors these are.
        classes: names of the network's classes, in the order of its logits.
        fingerprint: what the data must have, as a record says; "" takes any.
        num_val: training images to hold out, as in `hold_out`.
    Raises:
        DataError: the classes are not the network's, or the fingerprint is another one.
    """
    dataset = hold_out(load_data(name_or_path), num_val)
    if fingerprint and dataset.fingerprint != fingerprint:
        raise DataError(
            f"{name_or_path} was changed since the network was trained on it: its fingerprint is "
            f"{dataset.fingerprint[:12]}..., the record says {fingerprint[:12]}..."
        )
    classes = tuple(classes)
    if dataset.classes == classes:
        return dataset
    if fingerprint and len(dataset.classes) == len(classes):
        log.warning("%s: classes had other names in training; their numbers count", dataset.name)
        return replace(dataset, classes=classes)
    if set(dataset.classes) != set(classes):
        numbers = tuple(str(k) for k in range(len(classes)))
        if numbers in (dataset.classes, classes) and len(dataset.classes) == len(classes):
            log.warning("%s: classes are matched by number, for names are missing", dataset.name)
            return replace(dataset, classes=classes)
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


def prepare(name: str) -> Path:
    """The verified file or folder of a dataset, which then can be loaded without network. Of
    `shapes`, which is always made afresh, a copy with masks for use elsewhere, `shapes.npz` in the
    data folder. Errors as in `load_data`."""
    dataset = load_data(name)
    if name not in NAMES:
        return find_path(name)
    path = data_dir() / f"{name}.npz"
    if name == "shapes":
        sources.write_npz(path, dataset)
    return path


def make_shapes(
    num_train: int = SHAPES_TRAIN, num_test: int = SHAPES_TEST, seed: int = 0
) -> Dataset:
    """Draw the embedded dataset; the same arguments give the same bytes on every platform. At least
    one image of each split, and a seed of 0 or more; `load_data("shapes")` uses 0."""
    content = {"classes": SHAPES_CLASSES}
    for k, (split, number) in enumerate((("train", num_train), ("test", num_test))):
        keys = (f"x_{split}", f"y_{split}", f"masks_{split}")
        content |= zip(keys, draw_shapes(number, seed, k), strict=True)
    return _verified("shapes", Arrays(**content))


def hold_out(dataset: Dataset, num_val: int) -> Dataset:
    """Cut a validation split from train; it takes the place of test, which stays unused.

    Args:
        dataset: any dataset.
        num_val: images to hold out, less than train has; 0 returns the dataset as it is.
    Returns:
        A dataset whose `x_test`, `y_test` are the last `num_val` of a fixed permutation of train,
        and whose `test_name` is "val". Both parts keep the canonical order.
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
    train = dataset.rows("train", sorted(order[:-num_val]))
    val = dataset.rows("train", sorted(order[-num_val:]), "test")
    held = replace(dataset, **train, **val, test_name="val")
    return replace(held, fingerprint=sources.fingerprint(held))


def take(dataset: Dataset, num_train: int) -> Dataset:
    """Keep the first training images alone, to make training cheaper; 0 keeps all. The fingerprint
    stays, for it names the whole.

    The order is that of the images' hashes, so the first are as good as drawn at random, and a
    smaller choice lies within a larger one."""
    total = len(dataset.x_train)
    if not 0 <= num_train <= total:
        raise DataError(f"cannot take {num_train} of {total} training images; 0 takes all")
    if num_train in (0, total):
        return dataset
    return replace(dataset, **dataset.rows("train", slice(num_train)))


def find_path(name: str) -> Path:
    """A file or folder of data: as seen from here, or else from the top of the clone. DataError
    where it does not exist, UnknownNameError where it is meant as a name."""
    path = Path(os.path.expanduser(name))  # which leaves an unknown ~user as it is
    if name and (place := from_here(path)).exists():
        return place
    if Path(name).name != name or name.startswith("~") or path.suffix in (".npz", ".zip"):
        raise DataError(f"no such file or folder: {name}")
    raise unknown("dataset", name, NAMES)


def named_from_top(name: str) -> str:
    """A dataset's name or path such that it is found from anywhere in the clone."""
    top = anchored(".")
    if name in NAMES or top == Path() or os.path.isabs(os.path.expanduser(name)):
        return name
    path = os.path.relpath(find_path(name), top)
    return os.path.join(".", path) if path in NAMES else path


def _verified(name: str, arrays: Arrays) -> Dataset:
    """Sort, fingerprint, and compare with the fingerprint that the source claims for itself; number
    the classes if they have no names."""
    arrays = sources.canonical(arrays)
    found = sources.fingerprint(arrays)
    if arrays.fingerprint not in (None, found):
        raise DataError(
            f"{name}: its content has fingerprint {found[:12]}..., but it claims "
            f"{arrays.fingerprint[:12]}...: the file is damaged or was changed"
        )
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
    return Dataset(**vars(arrays) | {"name": name, "classes": classes, "fingerprint": found})


def _load_cifar(name: str) -> Dataset:
    """CIFAR from its npz, in whatever order; if there is none, it is downloaded and written."""
    path = data_dir() / f"{name}.npz"
    known = path.exists()
    where = str(path) if known else f"the download of {name}"
    arrays = sources.read_npz(path) if known else cifar.download_cifar(name, path.parent)
    num_classes, *per_class = CIFAR_COUNTS[name]
    remedy = f"remove it and run `senet data {name}`"
    for split, count in zip(("train", "test"), per_class, strict=True):
        found = np.bincount(getattr(arrays, f"y_{split}"), minlength=num_classes)
        if len(found) != num_classes or (found != count).any():
            raise DataError(
                f"{where} is not {name}: {split} must have {num_classes} classes "
                f"of {count} images each; {remedy}"
            )
    if name == "cifar10":
        arrays = replace(arrays, classes=CIFAR10_CLASSES, fingerprint=None)
    dataset = replace(_verified(where, arrays), name=name)
    if name == "cifar10" and (found := dataset.fingerprint) != CIFAR10_FINGERPRINT:
        raise DataError(
            f"{where} is not {name}: fingerprint {found[:12]}..., "
            f"expected {CIFAR10_FINGERPRINT[:12]}...; {remedy}"
        )
    if not known:
        sources.write_npz(path, dataset)
    return dataset
