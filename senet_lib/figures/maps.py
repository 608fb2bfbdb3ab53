"""Pictures with the maps of several networks beside each, in the language of `style`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.cam import scale_for_display
from senet_lib.analysis.cam_study import Examples
from senet_lib.analysis.overlay import COLOURS, overlay
from senet_lib.figures.style import WIDTH, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE = 1.35  # inches of one picture
OUTLINE = "#00e5ff"  # of the region on a map; not among the map's colours


@styled
def side_by_side(
    figure: "Figure", found: Examples, words: Sequence[str], captions: Mapping[str, Sequence[str]]
) -> str:
    """A row an image: the image, then the overlay of every network's map; regions are outlined.

    Args:
        found: M images with the maps of several networks.
        words: M captions of the images.
        captions: M captions of each network's maps.
    """
    from matplotlib.cm import ScalarMappable

    names, rows = list(found.maps), len(found.images)
    width = min(WIDTH, 0.2 + TILE * (1 + len(names)))
    lines = 1 + max((text.count("\n") for some in captions.values() for text in some), default=0)
    height = rows * ((width - 0.2) / (1 + len(names)) + 0.1 + 0.15 * lines)
    figure.set_size_inches(width, 1.0 + height)
    panels = figure.subplots(rows, 1 + len(names), squeeze=False)
    for axes, name in zip(panels[0], ["image", *names], strict=True):
        axes.set_title(_broken(name), loc="center", fontsize=9.5)
    shown = {"": (found.images, words)}
    for name, maps in found.maps.items():
        laid = zip(found.images, scale_for_display(maps), strict=True)
        shown[name] = [overlay(*one) for one in laid], captions[name]
    for column, (pictures, texts) in zip(panels.T, shown.values(), strict=True):
        for row, (axes, picture, text) in enumerate(zip(column, pictures, texts, strict=True)):
            _picture(axes, picture, text)
            if found.masks is not None:
                _outline(axes, found.masks[row])
    scale = {"ax": panels, "location": "bottom", "aspect": 45, "shrink": 0.5, "ticks": [0, 1]}
    bar = figure.colorbar(ScalarMappable(cmap=COLOURS), **scale)
    bar.ax.set_xticklabels(["lowest of the map", "highest"], fontsize=8.5)
    lists = zip(words, *captions.values(), strict=True)
    said = "; ".join(f"{word}: {', '.join(some)}" for word, *some in lists).replace("\n", " ")
    return f"{rows} pictures with maps of {', '.join(names)} laid over them. {said}"


def _broken(name: str) -> str:
    """A long name over two lines, broken where its settings or its variant begin."""
    if len(name) <= 13:
        return name
    head, mark, rest = name.partition("+") if "+" in name else name.rpartition("_")
    return f"{head}\n{mark.strip('_')}{rest}"


def _picture(axes: "Axes", image: np.ndarray, words: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.set_xlabel(words, fontsize=8.5, labelpad=3)


def _outline(axes: "Axes", mask: np.ndarray) -> None:
    """A frame around a rectangular region."""
    from matplotlib.patches import Rectangle

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    corner, look = (columns[0] - 0.5, rows[0] - 0.5), {"fill": False, "ec": OUTLINE, "lw": 2}
    axes.add_patch(Rectangle(corner, len(columns), len(rows), clip_on=False, **look))
