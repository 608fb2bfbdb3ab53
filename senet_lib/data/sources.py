"""Images as arrays: npz files read, checked and written, the canonical order, the fingerprint.

Every reader, here, in `image_folder` and in `cifar`, returns `Arrays` in the source's order.
"""

import hashlib
import logging
import math
import os
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from senet_lib.data.pictures import SIZE, square
from senet_lib.errors import DataError, one_line
from senet_lib.files import replacing

LEAST_STD = 1 / 255  # a smaller standard deviation, as of a constant channel, counts as this
MAX_CLASSES = 256  # labels are hashed as single bytes
KEYS = ("x_train", "y_train", "x_test", "y_test")
MORE = ("classes", "masks_train", "masks_test", "fingerprint")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """Two splits of images with labels."""

    x_train: np.ndarray  # (N, 32, 32, 3) uint8, RGB
    y_train: np.ndarray  # (N,) int64, 0 to K - 1, indices of `classes`
    x_test: np.ndarray  # (M, 32, 32, 3) uint8, RGB
    y_test: np.ndarray  # (M,) int64
    classes: tuple[str, ...] | None = None  # K names, or None where the source has none
    masks_train: np.ndarray | None = None  # (N, 32, 32) bool, the object's pixels, if known
    masks_test: np.ndarray | None = None  # (M, 32, 32) bool
    fingerprint: str | None = None  # what the source claims for itself, if it does

    def rows(self, split: str, rows: Any, name: str = "") -> dict[str, np.ndarray | None]:
        """Some rows of a split's images, labels and masks, as fields of `Arrays`, perhaps of
        another split's name."""
        parts = {key: getattr(self, f"{key}_{split}") for key in ("x", "y", "masks")}
        return {f"{k}_{name or split}": a if a is None else a[rows] for k, a in parts.items()}


def fingerprint(arrays: Arrays) -> str:
    """SHA-256 over x_train, y_train, x_test, y_test in their present order, as uint8 and NHWC, in
    hexadecimal."""
    digest = hashlib.sha256()
    for images, labels in ((arrays.x_train, arrays.y_train), (arrays.x_test, arrays.y_test)):
        digest.update(np.ascontiguousarray(images))
        digest.update(labels.astype(np.uint8))
    return digest.hexdigest()


def canonical(arrays: Arrays) -> Arrays:
    """Sort both splits by the SHA-256 of each image's bytes, then label, then present order, so
    that a seed means the same batches whatever the source."""
    for split in ("train", "test"):
        images, labels = getattr(arrays, f"x_{split}"), getattr(arrays, f"y_{split}")
        digests = [hashlib.sha256(np.ascontiguousarray(image)).digest() for image in images]
        order = sorted(range(len(images)), key=lambda i: (digests[i], labels[i]))
        if order != list(range(len(images))):
            arrays = replace(arrays, **arrays.rows(split, order))
    return arrays


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write an npz that `read_npz` reads, whole or not at all, with its fingerprint inside."""
    content = {key: getattr(arrays, key) for key in (*KEYS, *MORE)}
    content |= {key: content[key].astype(np.uint8) for key in ("y_train", "y_test")}
    content["fingerprint"] = fingerprint(arrays)
    content = {key: np.array(value) for key, value in content.items() if value is not None}
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **content)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; "
            "set SENET_DATA to a folder with room that you may write to"
        ) from error


def read_npz(path: Path) -> Arrays:
    """Read and check an npz with x_train y_train x_test y_test, and perhaps classes and masks, in
    the file's order; images, (N, H, W, 3) uint8, are resized where H and W are not 32.

    Shapes, types and sizes are checked before any array is read, so that no file can claim more
    memory than it holds content for. DataError where the file is truncated, not an npz, lacks a
    key, or an array does not fit."""
    content = _load_npz(path)
    content["classes"] = _npz_classes(path, content)
    if "fingerprint" in content:
        content["fingerprint"] = str(content["fingerprint"])
    for split in ("train", "test"):
        content[f"x_{split}"] = _resize_all(path, split, content[f"x_{split}"])
        content[f"y_{split}"] = content[f"y_{split}"].astype(np.int64)
    return Arrays(**content)


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    """All the arrays that we know of in the file."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if not zipfile.is_zipfile(path):
            state = "is truncated" if start == b"PK" else "is not an npz file"
            raise DataError(
                f"{path} {state}; an npz from numpy.savez with {', '.join(KEYS)} is wanted"
            )
        with zipfile.ZipFile(path) as archive:
            headers = {key: _header(path, archive, key) for key in _members(path, archive)}
            _check_headers(path, headers)
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in headers}
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path} does not fit in memory") from None
    except Exception as error:  # a damaged or strange zip can make its reader raise anything
        raise DataError(f"{path} cannot be read, it may be damaged: {one_line(error)}") from error


def _members(path: Path, archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays that we know of, each there once."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if missing := [key for key in KEYS if key not in names]:
        raise DataError(f"{path} lacks {', '.join(missing)}; it must hold {', '.join(KEYS)}")
    wanted = (*KEYS, *MORE)
    if twice := [key for key in wanted if names.count(key) > 1]:
        raise DataError(f"{path} holds {', '.join(twice)} twice")
    return [key for key in wanted if key in names]


def _header(path: Path, archive: zipfile.ZipFile, key: str) -> np.ndarray:
    """What one array claims to be, as an array that takes no memory; its size must be right."""
    name = f"{key}.npy" if f"{key}.npy" in archive.namelist() else key
    info = archive.getinfo(name)
    with archive.open(info) as file:
        old = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        start = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{path}: {key} holds Python objects; store it as plain "
            f"{'text, such as np.array(names, dtype=str)' if key == 'classes' else 'numbers'}"
        )
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise DataError(
            f"{path} cannot be read, it may be damaged: {key} is not as long as it says"
        )
    return np.broadcast_to(np.empty((), dtype), shape)


def _check_headers(path: Path, headers: dict[str, np.ndarray]) -> None:
    """Refuse arrays that are not what they must be."""
    for split in ("train", "test"):
        x, y = headers[f"x_{split}"], headers[f"y_{split}"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3 or 0 in x.shape:
            raise DataError(
                f"{path}: x_{split} is {_spell(x)}; it must be (N, H, W, 3) uint8, N at least 1"
            )
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise DataError(f"{path}: y_{split} is {_spell(y)}; it must be (N,) of whole numbers")
        if x.shape[0] != y.shape[0]:
            raise DataError(
                f"{path}: {x.shape[0]} images in x_{split} but {y.shape[0]} labels in y_{split}"
            )
        mask = headers.get(f"masks_{split}")
        if mask is not None and (mask.dtype != bool or mask.shape != (x.shape[0], SIZE, SIZE)):
            raise DataError(
                f"{path}: masks_{split} is {_spell(mask)}; it must be ({x.shape[0]}, 32, 32) bool"
            )
    size = sum(header.nbytes for header in headers.values())
    if size > (most := _most_bytes()):
        raise DataError(
            f"{path} claims to hold {size / 1e9:,.0f} GB of arrays; this machine's memory is "
            f"enough for {most / 1e9:,.0f} GB"
        )
    names = headers.get("classes")
    if names is not None and (names.ndim != 1 or names.dtype.kind not in "US"):
        raise DataError(f"{path}: classes is {_spell(names)}; it must be (K,) of names")


def _most_bytes() -> float:
    """A third of the memory, for sorting takes as much again."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 3


def _npz_classes(path: Path, content: dict[str, np.ndarray]) -> tuple[str, ...] | None:
    """Names of the classes, after checking that every label has one."""
    names = content.get("classes")
    count = int(content["y_train"].max()) + 1 if names is None else len(names)
    if count > MAX_CLASSES:
        raise DataError(f"{path}: {count} classes; at most {MAX_CLASSES} are supported")
    for split in ("train", "test"):
        low, high = int(content[f"y_{split}"].min()), int(content[f"y_{split}"].max())
        if low < 0 or high >= count:
            raise DataError(
                f"{path}: y_{split} has labels from {low} to {high}; "
                f"with {count} classes they must lie in 0 to {count - 1}"
            )
    if names is None:
        return None
    try:
        texts = [n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in names]
    except UnicodeDecodeError:
        raise DataError(f"{path}: classes are not in UTF-8") from None
    texts = tuple(unicodedata.normalize("NFC", text) for text in texts)
    check_names(str(path), texts)
    return texts


def check_names(where: str, names: Iterable[str]) -> None:
    """DataError, which calls their source `where`, for names of classes that are empty, alike, or
    cannot be printed in one line."""
    found = Counter(list(names))
    for name in found:
        if not name.strip() or not name.isprintable():
            raise DataError(f"{where}: a class is called {name!r}; it must be printable text")
    if twice := sorted(name for name, number in found.items() if number > 1):
        raise DataError(f"{where}: several classes are called {', '.join(twice)}")


def _resize_all(path: Path, split: str, images: np.ndarray) -> np.ndarray:
    """Images of 32x32, with a line in the log if they had another size."""
    height, width = images.shape[1:3]
    if (height, width) == (SIZE, SIZE):
        return np.ascontiguousarray(images)
    middle = "" if height == width else ", of each the square in the middle"
    log.warning(
        "%s: x_%s resized from %dx%d to %dx%d pixels%s",
        *(path, split, width, height, SIZE, SIZE, middle),
    )
    return np.stack([square(Image.fromarray(image)) for image in images])


def _spell(array: np.ndarray) -> str:
    return f"{array.shape} {array.dtype}"
