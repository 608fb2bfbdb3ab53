"""Read a folder of pictures, one sub-folder a class."""

import logging
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from senet_lib.data.pictures import SIZE, read_picture, suffixes
from senet_lib.data.sources import KEYS, MAX_CLASSES, Arrays, check_names
from senet_lib.errors import DataError, one_line

LEFT_BEHIND = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "lost+found",
               "System Volume Information", "Thumbs.db", "desktop.ini", "ehthumbs.db"}  # fmt: skip
"""What archives and systems put beside pictures; hidden names are left out as well."""

log = logging.getLogger(__name__)


@dataclass
class _Tally:
    """What was found in a folder of pictures."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unused: list[str] = field(default_factory=list)

    def tell(self, path: Path) -> None:
        """One line in the log: how many were read, resized and left out, and why."""
        line = f"{path}: {len(self.sizes):,} pictures read"
        if resized := [size for size in self.sizes if size != (SIZE, SIZE)]:
            small, large = (f"{w}x{h}" for w, h in (min(resized), max(resized)))
            cropped = sum(width != height for width, height in resized)
            span = small if small == large else f"{small} to {large}"
            line += f", {len(resized):,} resized to {SIZE}x{SIZE} pixels (they were {span}"
            line += f"; of {cropped:,} the square in the middle)" if cropped else ")"
        if self.left_out:
            reasons = ", ".join(f"{n:,} {why}" for why, n in sorted(self.left_out.items()))
            line += f"; left out: {reasons}"
        line += "".join(f"; {name}" for name in self.unused)
        news = resized or self.left_out or self.unused
        log.log(logging.WARNING if news else logging.INFO, "%s", line)


def read_folder(path: Path) -> Arrays:
    """Read a folder `train/<class>/*.png` with test or val beside train.

    Every kind of picture that Pillow reads is read, by the rule of `square`; what is left out is
    counted in one line of the log. Classes are the sub-folders' names in alphabetic order, composed
    (NFC). DataError where a folder is missing or empty, the classes differ, or an image cannot be
    read."""
    try:
        return _read_folder(path)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise DataError(f"cannot read {error.filename or path}: {reason}") from None


def _read_folder(path: Path) -> Arrays:
    other = next((name for name in ("test", "val") if (path / name).is_dir()), None)
    if not (path / "train").is_dir() or other is None:
        raise DataError(
            f"{path} must hold train/<class>/*.png, and test or val beside train "
            "(or be CIFAR's own folder, such as cifar-10-batches-py)"
        )
    tally = _Tally()
    if other == "test" and (path / "val").is_dir():
        tally.unused.append("test is evaluated on, val is not used")
    train, test = (_class_folders(path / name, tally) for name in ("train", other))
    if differing := sorted(set(train) ^ set(test)):
        raise DataError(
            f"{path}: train and {other} differ in these class folders: {', '.join(differing)}"
        )
    if not 2 <= len(train) <= MAX_CLASSES:
        raise DataError(
            f"{path / 'train'} has {len(train)} class folders; 2 to {MAX_CLASSES} are supported"
        )
    arrays = dict(zip(KEYS, (*_read_split(train, tally), *_read_split(test, tally)), strict=True))
    tally.tell(path)
    return Arrays(**arrays, classes=tuple(train))


def _class_folders(folder: Path, tally: _Tally) -> dict[str, Path]:
    """The sub-folders by name in order."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = unicodedata.normalize("NFC", path.name)
        if _is_clutter(path):
            tally.left_out["hidden or of the system"] += 1
        elif not path.is_dir():
            tally.left_out["beside the class folders"] += 1
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


def _read_split(classes: dict[str, Path], tally: _Tally) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split."""
    images, labels = [], []
    for label, folder in enumerate(classes.values()):
        files = [path for path in sorted(folder.iterdir()) if _is_picture(path, tally)]
        if not files:
            raise DataError(f"{folder} holds no picture")
        for file in files:
            image, size = read_picture(file)
            images.append(image)
            tally.sizes.append(size)
        labels += [label] * len(files)
    return np.stack(images), np.array(labels, np.int64)


def _is_picture(path: Path, tally: _Tally) -> bool:
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
    tally.left_out[reason] += 1
    return False
