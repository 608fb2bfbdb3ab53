"""Read a folder of pictures, one sub-folder a class."""

import logging
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from senet_lib.data.pictures import SIZE, read_picture, suffixes
from senet_lib.data.sources import MAX_CLASSES, Arrays, check_names
from senet_lib.errors import DataError

LEFT_BEHIND = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "lost+found",
               "System Volume Information", "Thumbs.db", "desktop.ini", "ehthumbs.db"}  # fmt: skip
"""What archives and systems put beside pictures; hidden names are left out as well."""

log = logging.getLogger(__name__)


def read_folder(path: Path) -> Arrays:
    """Read a folder `train/<class>/*.png` with test or val beside train.

    Every kind of picture that Pillow reads is read, by the rule of `square`; what is left out is
    counted in one line of the log. Classes are the sub-folders' names in alphabetic order, composed
    (NFC). DataError where a folder is missing or empty, the classes differ, or an image cannot be
    read; OSError where a folder cannot be."""
    other = next((name for name in ("test", "val") if (path / name).is_dir()), None)
    if not (path / "train").is_dir() or other is None:
        raise DataError(
            f"{path} must hold train/<class>/*.png, and test or val beside train "
            "(or be CIFAR's own folder, such as cifar-10-batches-py)"
        )
    if other == "test" and (path / "val").is_dir():
        log.warning("%s: test is evaluated on, val is not used", path)
    left_out: Counter[str] = Counter()
    train, test = (_class_folders(path / name, left_out) for name in ("train", other))
    if differing := sorted(set(train) ^ set(test)):
        raise DataError(
            f"{path}: train and {other} differ in these class folders: {', '.join(differing)}"
        )
    if not 2 <= len(train) <= MAX_CLASSES:
        raise DataError(
            f"{path / 'train'} has {len(train)} class folders; 2 to {MAX_CLASSES} are supported"
        )
    x_train, y_train, sizes = _read_split(train, left_out)
    x_test, y_test, more_sizes = _read_split(test, left_out)
    _tell(path, [*sizes, *more_sizes], left_out)
    return Arrays(
        x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=tuple(train)
    )


def _tell(path: Path, sizes: Sequence[tuple[int, int]], left_out: Counter[str]) -> None:
    """One line in the log: how many were read, resized and left out, and why."""
    line = f"{path}: {len(sizes):,} pictures read"
    if resized := [size for size in sizes if size != (SIZE, SIZE)]:
        ends = (end(resized, key=math.prod) for end in (min, max))  # by their pixels
        small, large = (f"{width}x{height}" for width, height in ends)
        cropped = sum(width != height for width, height in resized)
        span = small if small == large else f"{small} to {large}"
        line += f", {len(resized):,} resized to {SIZE}x{SIZE} pixels (they were {span}"
        line += f"; of {cropped:,} the square in the middle)" if cropped else ")"
    if left_out:
        line += "; left out: " + ", ".join(f"{n:,} {why}" for why, n in sorted(left_out.items()))
    log.log(logging.WARNING if resized or left_out else logging.INFO, "%s", line)


def _class_folders(folder: Path, left_out: Counter[str]) -> dict[str, Path]:
    """The sub-folders by name in order."""
    found: dict[str, Path] = {}
    for path in folder.iterdir():
        name = unicodedata.normalize("NFC", path.name)
        if _is_clutter(path):
            left_out["hidden or of the system"] += 1
        elif not path.is_dir():
            left_out["beside the class folders"] += 1
        elif name in found:
            raise DataError(
                f"{folder} has two folders {name}, one composed and one decomposed Unicode; "
                "put them together"
            )
        else:
            found[name] = path
    check_names(str(folder), found)
    return dict(sorted(found.items()))


def _is_clutter(path: Path) -> bool:
    return path.name.startswith(".") or path.name in LEFT_BEHIND


def _read_split(
    classes: dict[str, Path], left_out: Counter[str]
) -> tuple[np.ndarray, np.ndarray, Sequence[tuple[int, int]]]:
    """Images and labels of one split, and the sizes that the images had."""
    pictures, labels = [], []
    for label, folder in enumerate(classes.values()):
        files = [path for path in sorted(folder.iterdir()) if _is_picture(path, left_out)]
        if not files:
            raise DataError(f"{folder} holds no picture")
        pictures += map(read_picture, files)
        labels += [label] * len(files)
    images, sizes = zip(*pictures, strict=True)
    return np.stack(images), np.array(labels, np.int64), sizes


def _is_picture(path: Path, left_out: Counter[str]) -> bool:
    """Whether the file is to be read; if not, the reason is counted."""
    suffix = path.suffix.lower()
    if _is_clutter(path):
        reason = "hidden or of the system"
    elif path.is_dir():
        reason = "folders within a class"
    elif suffix not in suffixes():
        reason = suffix or "without a suffix"
    elif path.is_file():
        return True
    elif path.is_symlink():
        raise DataError(f"{path} is a link to {path.readlink()}, which is not there")
    else:
        reason = "not a file"
    left_out[reason] += 1
    return False
