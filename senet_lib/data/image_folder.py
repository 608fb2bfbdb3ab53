"""Read a folder of images, one sub-folder a class."""

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from senet_lib.data.sources import MAX_CLASSES, SIZE, Arrays, one_line, to_size
from senet_lib.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")
_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)

log = logging.getLogger(__name__)


def read_folder(path: Path) -> Arrays:
    """Read a folder train/<class>/*.png with test or val beside train; jpg is read as well.

    Args:
        path: the folder; images of any size and mode are made RGB and resized to 32x32.
    Returns:
        Its arrays; classes are the names of the sub-folders in alphabetic order.
    Raises:
        DataError: a folder is missing or empty, the classes differ, or an image cannot be read.
    """
    other = next((name for name in ("test", "val") if (path / name).is_dir()), None)
    if not (path / "train").is_dir() or other is None:
        raise DataError(f"{path} must hold train/<class>/*.png, and test or val beside train")
    classes = _class_folders(path / "train")
    found = _class_folders(path / other)
    if found != classes:
        differing = ", ".join(sorted(set(classes) ^ set(found)))
        raise DataError(f"{path}: train and {other} differ in these class folders: {differing}")
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(
            f"{path / 'train'} has {len(classes)} class folders; 2 to {MAX_CLASSES} are supported"
        )
    sizes: list[tuple[int, int]] = []
    x_train, y_train = _read_split(path / "train", classes, sizes)
    x_test, y_test = _read_split(path / other, classes, sizes)
    resized = [size for size in sizes if size != (SIZE, SIZE)]
    if resized:
        small, large = (f"{size[0]}x{size[1]}" for size in (min(resized), max(resized)))
        log.warning(
            "%s: %d of %d images resized to %dx%d pixels (they were %s)",
            *(path, len(resized), len(sizes), SIZE, SIZE),
            small if small == large else f"{small} to {large}",
        )
    return Arrays(
        x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=tuple(classes)
    )


def _class_folders(folder: Path) -> list[str]:
    """Names of the sub-folders in order."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_split(
    folder: Path, classes: list[str], sizes: list[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split; the sizes found are appended to `sizes`."""
    images, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(p for p in (folder / name).iterdir() if _is_image(p))
        if not files:
            raise DataError(f"{folder / name} holds no {', '.join(SUFFIXES)} file")
        for file in files:
            image, size = _read_image(file)
            images.append(image)
            sizes.append(size)
        labels += [label] * len(files)
    return np.stack(images), np.array(labels, np.int64)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _read_image(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """One image as (32, 32, 3) uint8, and its size (width, height) in the file."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path} has more than 8 bits a channel; save it with 8")
            return to_size(image), image.size
    except DataError:
        raise
    except (*_BROKEN_IMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable image: {one_line(error)}") from error
