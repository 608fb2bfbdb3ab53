"""Read one picture, of any kind and size, by one rule that training and the explorer share."""

import io
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from senet_lib.errors import DataError, one_line

SIZE = 32
"""Height and width of every image that a network is given."""
MAX_PIXELS = 40_000_000
"""A larger picture is refused, unless it is a JPEG, which can be read at a fraction of its size."""
# EPS runs another program; the rest are stubs that Pillow itself cannot read.
_UNREADABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


def square(image: Image.Image) -> np.ndarray:
    """The one rule for pictures: upright by EXIF, the square in the middle, over white, resized.

    The image is of any size and of any mode with 8 bits a channel or less; the result, (32, 32, 3)
    uint8, RGB. Pillow's bilinear filter widens with the scale, so a smaller picture is antialiased.
    """
    image = ImageOps.exif_transpose(image)
    width, height = image.size
    side = min(width, height)
    if width != height:
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if "A" in image.getbands() or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    image = image.convert("RGB")
    if side != SIZE:
        image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.array(image, np.uint8)


def read_picture(source: Path | bytes, name: str = "") -> tuple[np.ndarray, tuple[int, int]]:
    """Read one picture, of whatever kind Pillow reads, by the rule of `square`.

    Args:
        source: a file, or its content.
        name: what an error calls it; by default its path.
    Returns:
        (32, 32, 3) uint8, and its (width, height) in the file, as one sees it upright.
    Raises:
        DataError: it is missing, damaged, of an unknown kind, too large, or grey and deeper than 8
            bits.
    """
    name = name or str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our limit is lower, and damage is an error
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(file, formats=_formats()) as image:
                return _checked(image, name)
    except DataError:
        raise
    except UnidentifiedImageError:
        reason = "damaged, or of a kind not known"
    except Image.DecompressionBombError:
        raise DataError(f"{name} has too many pixels; at most {MAX_PIXELS:,} are read") from None
    except MemoryError:
        reason = "there is not enough memory for it"
    except Exception as error:  # a damaged file can make a decoder raise anything
        reason = one_line(error)
    raise DataError(f"{name} is not a readable image: {reason}")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _UNREADABLE))


def _checked(image: Image.Image, name: str) -> tuple[np.ndarray, tuple[int, int]]:
    width, height = image.size
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{name} has more than 8 bits a channel; save it with 8")
    if width * height > MAX_PIXELS:
        image.draft("RGB", (4 * SIZE, 4 * SIZE))  # for a JPEG; others stay as large as they are
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{name} has {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are read, "
            "make it smaller"
        )
    upright = ImageOps.exif_transpose(image)
    turned = upright.size != image.size
    return square(upright), (height, width) if turned else (width, height)


@cache
def suffixes() -> set[str]:
    """Endings of the files that `read_picture` reads, in lower case, such as `.png`."""
    return {s for s, kind in Image.registered_extensions().items() if kind in _formats()}
