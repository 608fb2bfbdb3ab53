"""Maps in colour, and laid over their images: arrays to be looked at, not to be measured."""

# Legend: H height, W width.

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap

COLOURS = "inferno"
PANEL_PIXELS, GAP_PIXELS = 128, 4
OPACITY = 0.7  # of the overlay where the map is at its maximum
GREY = (0.299, 0.587, 0.114)  # luminance of red, green and blue, ITU-R BT.601


def panels(image: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Image, map, and the map laid over the grey image, side by side and enlarged.

    Args:
        image: (H, W, 3), uint8.
        scaled: (H, W), in [0, 1], as `scale_for_display` gives it.
    Returns:
        (H', W', 3), uint8, every pixel of the image shown as a square.
    """
    coloured = (255 * heat(scaled)).round().astype(np.uint8)
    factor = max(PANEL_PIXELS // max(image.shape[:2]), 1)
    square = np.ones((factor, factor, 1), np.uint8)
    enlarged = [np.kron(part, square) for part in (image, coloured, overlay(image, scaled))]
    gap = np.full((enlarged[0].shape[0], GAP_PIXELS, 3), 255, np.uint8)
    return np.concatenate([enlarged[0], gap, enlarged[1], gap, enlarged[2]], axis=1)


def overlay(image: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """The map laid over the grey image, the more opaque the higher it is: (H, W, 3) uint8;
    arguments as in `panels`."""
    grey = (image / 255 @ np.array(GREY))[..., None]
    opacity = OPACITY * scaled[..., None]
    mixed = (1 - opacity) * grey + opacity * heat(scaled)
    return (255 * mixed).round().astype(np.uint8)


def heat(scaled: np.ndarray) -> np.ndarray:
    """The colours of maps, (..., 3) in [0, 1], of values (...) in [0, 1]."""
    return colormaps[COLOURS](scaled)[..., :3]


_GREY = np.full((1, 256, 3), 128, np.uint8)
OVERLAID = ListedColormap(overlay(_GREY, np.linspace(0, 1, 256)[None])[0] / 255)  # for a scale
