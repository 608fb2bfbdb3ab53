"""Where images come from: npz files and torchvision's downloads, read and checked.

Every reader, here and in `image_folder`, returns `Arrays` of 32x32 images in the source's order;
`canonical` brings them to the one order in which a seed means the same batches whatever the source.
"""

import hashlib
import http.client
import logging
import os
import socket
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from senet_lib.errors import DataError

SIZE = 32
MAX_CLASSES = 256  # labels are hashed as single bytes
KEYS = ("x_train", "y_train", "x_test", "y_test")
_BROKEN_NPZ = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """Two splits of images with labels."""

    x_train: np.ndarray
    """(N, 32, 32, 3) uint8, RGB."""
    y_train: np.ndarray
    """(N,) int64, 0 to K - 1."""
    x_test: np.ndarray
    """(M, 32, 32, 3) uint8, RGB."""
    y_test: np.ndarray
    """(M,) int64."""
    classes: tuple[str, ...] | None = None
    """K names, or None where the source has none."""
    masks_train: np.ndarray | None = None
    """(N, 32, 32) bool, the object's pixels, where the source knows them."""
    masks_test: np.ndarray | None = None
    """(M, 32, 32) bool."""
    fingerprint: str | None = None
    """The fingerprint that the source claims for itself, if it does."""


def fingerprint(arrays: Arrays) -> str:
    """SHA-256 over x_train, y_train, x_test, y_test in their present order.

    Args:
        arrays: the splits; labels are hashed as uint8, images as uint8 NHWC.
    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for images, labels in ((arrays.x_train, arrays.y_train), (arrays.x_test, arrays.y_test)):
        digest.update(np.ascontiguousarray(images))
        digest.update(labels.astype(np.uint8))
    return digest.hexdigest()


def canonical(arrays: Arrays) -> Arrays:
    """Sort both splits by the SHA-256 of each image's bytes, then label, then present order."""
    changes: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        images, labels = getattr(arrays, f"x_{split}"), getattr(arrays, f"y_{split}")
        images = np.ascontiguousarray(images)
        digests = [hashlib.sha256(image).digest() for image in images]
        order = sorted(range(len(images)), key=lambda i: (digests[i], labels[i]))
        if order == list(range(len(images))):
            continue
        changes |= {f"x_{split}": images[order], f"y_{split}": labels[order]}
        masks = getattr(arrays, f"masks_{split}")
        if masks is not None:
            changes[f"masks_{split}"] = masks[order]
    return replace(arrays, **changes)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; it takes the place of `path` if the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; "
            "set SENET_DATA to a folder with room that you may write to"
        ) from error
    finally:
        if temporary.is_file():
            temporary.unlink()


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write an npz that `read_npz` reads, whole or not at all, with its fingerprint inside."""
    content = {key: getattr(arrays, key) for key in KEYS}
    content |= {key: content[key].astype(np.uint8) for key in ("y_train", "y_test")}
    for split in ("train", "test"):
        if getattr(arrays, f"masks_{split}") is not None:
            content[f"masks_{split}"] = getattr(arrays, f"masks_{split}")
    if arrays.classes is not None:
        content["classes"] = np.array(arrays.classes)
    content["fingerprint"] = np.array(fingerprint(arrays))
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **content)


def read_npz(path: Path) -> Arrays:
    """Read and check an npz with x_train y_train x_test y_test, and perhaps classes and masks.

    Args:
        path: the file; images are (N, H, W, 3) uint8 and are resized where H and W are not 32.
    Returns:
        Its arrays, in the file's order.
    Raises:
        DataError: the file is truncated, not an npz, lacks a key, or an array does not fit.
    """
    content = _load_npz(path)
    images, labels, masks = {}, {}, {}
    for split in ("train", "test"):
        x, y = content[f"x_{split}"], content[f"y_{split}"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3 or 0 in x.shape:
            raise DataError(
                f"{path}: x_{split} is {_spell(x)}; it must be (N, H, W, 3) uint8, N at least 1"
            )
        if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
            raise DataError(f"{path}: y_{split} is {_spell(y)}; it must be (N,) of whole numbers")
        if len(x) != len(y):
            raise DataError(
                f"{path}: {len(x)} images in x_{split} but {len(y)} labels in y_{split}"
            )
        mask = content.get(f"masks_{split}")
        if mask is not None and (mask.dtype != bool or mask.shape != (len(x), SIZE, SIZE)):
            raise DataError(
                f"{path}: masks_{split} is {_spell(mask)}; it must be ({len(x)}, 32, 32) bool"
            )
        images[split], labels[split], masks[split] = x, y, mask
    classes = _npz_classes(path, content, labels)
    resized = {split: _resize_all(path, split, images[split]) for split in images}
    claimed = content.get("fingerprint")
    return Arrays(
        x_train=resized["train"],
        y_train=labels["train"].astype(np.int64),
        x_test=resized["test"],
        y_test=labels["test"].astype(np.int64),
        classes=classes,
        masks_train=masks["train"],
        masks_test=masks["test"],
        fingerprint=None if claimed is None else str(claimed),
    )


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
        wanted = (*KEYS, "classes", "masks_train", "masks_test", "fingerprint")
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive.files]
            if missing:
                raise DataError(
                    f"{path} lacks {', '.join(missing)}; it must hold {', '.join(KEYS)}"
                )
            return {key: archive[key] for key in wanted if key in archive.files}
    except DataError:
        raise
    except _BROKEN_NPZ as error:
        raise DataError(f"{path} cannot be read, it may be damaged: {one_line(error)}") from error


def _npz_classes(
    path: Path, content: dict[str, np.ndarray], labels: dict[str, np.ndarray]
) -> tuple[str, ...] | None:
    """Names of the classes, after checking that every label has one."""
    names = content.get("classes")
    if names is not None and (names.ndim != 1 or names.dtype.kind not in "US"):
        raise DataError(f"{path}: classes is {_spell(names)}; it must be (K,) of names")
    count = int(labels["train"].max()) + 1 if names is None else len(names)
    if count > MAX_CLASSES:
        raise DataError(f"{path}: {count} classes; at most {MAX_CLASSES} are supported")
    for split, values in labels.items():
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= count:
            raise DataError(
                f"{path}: y_{split} has labels from {low} to {high}; "
                f"with {count} classes they must lie in 0 to {count - 1}"
            )
    if names is None:
        return None
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)


def _resize_all(path: Path, split: str, images: np.ndarray) -> np.ndarray:
    """Images of 32x32, with a line in the log if they had another size."""
    height, width = images.shape[1:3]
    if (height, width) == (SIZE, SIZE):
        return np.ascontiguousarray(images)
    log.warning(
        "%s: x_%s resized from %dx%d to %dx%d pixels", path, split, width, height, SIZE, SIZE
    )
    return np.stack([to_size(Image.fromarray(image)) for image in images])


def to_size(image: Image.Image) -> np.ndarray:
    """(32, 32, 3) uint8; Pillow's bilinear filter widens with the scale, so it is antialiased."""
    image = image.convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)


def download_cifar(name: str, folder: Path) -> Arrays:
    """Let torchvision fetch CIFAR-10 or CIFAR-100, or read what it left in the folder before.

    Args:
        name: "cifar10" or "cifar100".
        folder: the data folder; a download goes to a temporary folder in it, removed afterwards.
    Returns:
        Its arrays, in torchvision's order.
    Raises:
        DataError: the folder cannot be written, or the download failed.
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
            train, test = (source(root, train=flag, download=True) for flag in (True, False))
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot download {name}: {one_line(error)}; put {name}.npz "
            f"({', '.join(KEYS)}) into {folder}, or set SENET_DATA to the folder that has it"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return Arrays(
        x_train=np.ascontiguousarray(train.data),
        y_train=np.array(train.targets, np.int64),
        x_test=np.ascontiguousarray(test.data),
        y_test=np.array(test.targets, np.int64),
        classes=tuple(train.classes),
    )


def _spell(array: np.ndarray) -> str:
    return f"{array.shape} {array.dtype}"


def one_line(error: BaseException) -> str:
    """The error's text without line breaks, or its type if it has none."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
