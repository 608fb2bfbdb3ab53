"""CIFAR-10 and CIFAR-100 as their makers give them: downloaded, or their own folder of pickles."""

import http.client
import pickle
import socket
import tempfile
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from senet_lib.data.sources import KEYS, MAX_CLASSES, Arrays, check_names
from senet_lib.errors import DataError, one_line

CIFAR10_FINGERPRINT = "cac8a7f09e8811334cea009f770bf0040c5a12f65bc27a54603a17d6adba36b7"
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
CIFAR_COUNTS = {"cifar10": (10, 5000, 1000), "cifar100": (100, 500, 100)}
"""Classes, and images of each in train and in test."""
# File names of train and test, of the names of the classes, and the keys of labels and names.
_LAYOUTS = {
    "cifar10": (
        [f"data_batch_{k}" for k in range(1, 6)], ["test_batch"],
        "batches.meta", "labels", "label_names",
    ),
    "cifar100": (["train"], ["test"], "meta", "fine_labels", "fine_label_names"),
}  # fmt: skip
# What a pickle of arrays and lists needs; anything else in one could run a stranger's code.
_HARMLESS = {
    *product(("numpy.core.multiarray", "numpy._core.multiarray"), ("_reconstruct", "scalar")),
    *product(("numpy",), ("ndarray", "dtype")),
    *(("numpy._core.numeric", "_frombuffer"), ("_codecs", "encode")),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which no array needs")
        return super().find_class(module, name)


def layout_of(folder: Path) -> str | None:
    """Which CIFAR the folder holds as pickles: "cifar10", "cifar100" or None."""
    return next((name for name, about in _LAYOUTS.items() if (folder / about[2]).is_file()), None)


def read_pickles(folder: Path) -> Arrays:
    """Read CIFAR's own folder, `cifar-10-batches-py` or `cifar-100-python`, or one made like it, in
    the files' order; DataError where a file is missing, damaged, or holds anything but arrays,
    lists and text."""
    train, test, meta, labels, names = _LAYOUTS[layout_of(folder)]
    try:
        classes = [_text(name) for name in _unpickle(folder / meta)[names]]
        x_train, y_train = _read_batches(folder, train, labels, len(classes))
        x_test, y_test = _read_batches(folder, test, labels, len(classes))
    except KeyError as error:
        raise DataError(f"{folder} is not CIFAR's folder: it lacks {error.args[0]}") from None
    except (TypeError, ValueError) as error:  # of names or numbers that are none
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} is not CIFAR's folder: {one_line(error)}") from None
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{folder}: {len(classes)} classes; at most {MAX_CLASSES} are supported")
    check_names(str(folder), classes)
    return Arrays(
        x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=tuple(classes)
    )


def _read_batches(
    folder: Path, files: list[str], key: str, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split."""
    images, labels = [], []
    for file in files:
        batch = _unpickle(folder / file)
        pixels, numbers = np.asarray(batch["data"]), np.asarray(batch[key])
        good = pixels.dtype == np.uint8 and pixels.shape == (len(numbers), 3072)
        if not good or numbers.dtype.kind not in "iu" or numbers.ndim != 1:
            raise DataError(f"{folder / file}: data must be (N, 3072) uint8, with N labels")
        images.append(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(numbers.astype(np.int64))
    y = np.concatenate(labels)
    if not len(y) or y.min() < 0 or y.max() >= num_classes:
        raise DataError(f"{folder}: {key} must lie in 0 to {num_classes - 1}")
    return np.ascontiguousarray(np.concatenate(images)), y


def _unpickle(path: Path) -> Mapping[str, Any]:
    """A file's mapping, with keys as text."""
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        return {_text(key): value for key, value in content.items()}
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path} cannot be read, it may be damaged: {one_line(error)}") from None


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def download_cifar(name: str, folder: Path) -> Arrays:
    """Let torchvision fetch cifar10 or cifar100, or take what it left in the data folder before;
    DataError where that cannot be. A download goes to a temporary folder in it, removed afterwards.
    """
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder)
    except OSError as error:
        raise DataError(
            f"cannot write to the data folder {folder}: {error.strerror or error}; "
            "set SENET_DATA to a folder that you may write to"
        ) from error
    kept = any((folder / part).exists() for part in (source.base_folder, source.filename))
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # seconds without a byte; torchvision sets none
    try:
        with scratch as temporary:
            root = folder if kept else Path(temporary)
            source(root, download=True)
            return read_pickles(root / source.base_folder)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot download {name}: {one_line(error)}; put {name}.npz "
            f"({', '.join(KEYS)}) into {folder}, or set SENET_DATA to the folder that has it"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
