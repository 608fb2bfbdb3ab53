"""The explorer's pictures as HTML: images, maps, gates and confusions, each with a description.

The figures are transparent and their text is a grey that is legible on white and on dark.
"""

# Legend: H height, W width, K classes.

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.cam import CamMaps, scale_for_display
from senet_lib.analysis.gates import Gates
from senet_lib.evaluation import probabilities
from senet_lib.explore.answers import Picture
from senet_lib.figures.style import BLUE, STYLE, VERMILION
from senet_lib.report.gallery import COLOURS, GAP_PIXELS, PANEL_PIXELS, panels, probability_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "#767676"  # 4.5 to 1 against white, 4.1 to 1 against JupyterLab's dark ground
COLOURED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color",
            "xtick.labelcolor", "ytick.labelcolor", "grid.color")  # fmt: skip
DPI = 80
SQUARES = "display: block; image-rendering: pixelated"
LARGEST_GRID = 20  # classes; the cells of a larger matrix are not labelled


def img(pixels: np.ndarray, alt: str, width: str = "100%", style: str = SQUARES) -> str:
    """An image (H, W, 3) uint8 as HTML.

    Args:
        pixels: the image.
        alt: what is to be seen on it.
        width: how wide it is shown, as CSS has it.
        style: further CSS.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return _tag(file.getvalue(), alt, f"width: {width}; {style}")


def line(text: str, *, problem: bool = False) -> str:
    """A line that says what is going on, read out by screen readers."""
    return f'<div role="status">{"⚠ " if problem else ""}{escape(text, quote=False)}</div>'


def picture_html(picture: Picture, classes: Sequence[str]) -> str:
    """The chosen image, large, with what it is."""
    what = "class unknown" if picture.label is None else classes[picture.label]
    image = img(picture.pixels, f"{what}, {picture.note}")
    return image + _text(f"<strong>{escape(what)}</strong><br>{escape(picture.note)}")


def map_html(maps: CamMaps, picture: Picture, classes: Sequence[str], network: str) -> str:
    """A network's map of the image, the map over the grey image, and the likeliest classes.

    Args:
        maps: the map and the logits.
        picture: the image.
        classes: K names.
        network: name of the network.
    """
    strip = panels(picture.pixels, scale_for_display(maps.maps)[0])
    step = PANEL_PIXELS + GAP_PIXELS
    target, share = classes[int(maps.targets[0])], probabilities(maps.logits[0])
    first, *others = (int(k) for k in np.argsort(-share, kind="stable")[:3])
    verdict = "" if picture.label is None else " – right" if first == picture.label else " – wrong"
    rest = "; ".join(f"{classes[k]} {probability_text(share[k])}" for k in others)
    zero = "" if maps.maps.any() else "The map is zero everywhere: nothing here speaks for it. "
    both = img(strip[:, step:-step], f"Map of {network} for {target}", "50%")
    both += img(strip[:, 2 * step :], "The same map over the grey image", "50%")
    return f'<div style="display: flex; gap: 4px">{both}</div>' + _text(
        f"<strong>{escape(classes[first])}</strong> {probability_text(share[first])}{verdict}<br>"
        f"{escape(rest)}<br>{zero}Map for {escape(target)}"
    )


def scale() -> str:
    """The colours of the maps."""
    from matplotlib import colormaps

    ramp = (255 * colormaps[COLOURS](np.linspace(0, 1, 96))[None, :, :3]).astype(np.uint8)
    bar = img(ramp, "Colours from dark to bright", "96px", "height: 12px")
    return f"lowest {bar} highest of each map"


def _text(html: str) -> str:
    return f'<p style="line-height: 1.4; margin: 4px 0">{html}</p>'


def gates_html(
    one: Gates, mean: Mapping[str, np.ndarray], layers: Sequence[str], names: tuple[str, str]
) -> str:
    """Gates of one image and the mean of a class, over the channels of some layers.

    Args:
        one: gates of the image alone.
        mean: layer to (C,), mean gates of the class; empty where they are not known.
        layers: those to draw; the channels of each are sorted by the mean, or else by the gates.
        names: of the network and of what the mean is over, in words.
    """
    ticks = []
    with _canvas(9.4, 2.5) as figure:
        axes = figure.add_axes((0.06, 0.12, 0.93, 0.73))  # a layout of its own takes twice as long
        for place, layer in enumerate(layers):
            values = one.values[layer][0]
            order = np.argsort(mean.get(layer, values), kind="stable")
            x = place + np.linspace(0.02, 0.98, len(values))
            axes.plot(x, values[order], color=VERMILION, lw=1.5)
            if layer in mean:
                axes.plot(x, mean[layer][order], "--", color=BLUE, lw=1.5)
            ticks.append(f"{short(layer)}, {len(values)} channels")
        axes.set_xticks(np.arange(len(layers)) + 0.5, ticks)
        axes.grid(axis="x", visible=False)
        axes.set(title="gates, the channels of a layer sorted", xlim=(0, len(layers)))
        axes.legend(["this image", *names[1:]][: 1 + bool(mean)], ncols=2, loc="lower right",
                    bbox_to_anchor=(1, 1), borderaxespad=0)  # fmt: skip
        alt = f"Gates of {names[0]} for this image; their mean by layer"
        said = (f"{short(k)} {v.mean():.2f}" for k, v in one.values.items())
        if mean:
            alt = f"Gates of {names[0]} for this image and {names[1]}; their distance by layer"
            away = {k: np.sqrt(((v[0] - mean[k]) ** 2).mean()) for k, v in one.values.items()}
            said = (f"{short(k)} {v:.3f}" for k, v in away.items())
        return _shown(figure, f"{alt}: {', '.join(said)}")


def confusion_html(matrix: np.ndarray, classes: Sequence[str], network: str) -> str:
    """The confusion matrix as a heat map.

    Args:
        matrix: (K, K), counts; row: true class, column: predicted class.
        classes: K names.
        network: name of the network.
    """
    import seaborn as sns

    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    few = len(classes) <= LARGEST_GRID
    with _canvas(5.2, 4.4) as figure:
        axes = figure.add_axes((0.17, 0.24, 0.8, 0.7))
        sns.heatmap(
            share, ax=axes, cmap="Blues", vmin=0, vmax=100, square=True, cbar=not few,
            annot=np.where(matrix > 0, matrix.astype(str), "") if few else None, fmt="",
            annot_kws={"size": 8}, xticklabels=classes if few else False,
            yticklabels=classes if few else False,
        )  # fmt: skip
        axes.set(xlabel="taken for", ylabel="true class", title="images of each class, by answer")
        right = ", ".join(f"{c} {v:.0f}" for c, v in zip(classes, np.diag(share), strict=True))
        return _shown(
            figure, f"Confusion matrix of {network}. Percent right of each class: {right}"
        )


@contextmanager
def _canvas(width: float, height: float) -> Iterator["Figure"]:
    """A figure of so many inches, to be drawn and shown within."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, **dict.fromkeys(COLOURED, GREY), "grid.alpha": 0.3}):
        yield Figure((width, height))


def _shown(figure: "Figure", alt: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    return _tag(
        file.getvalue(), alt, f"max-width: {figure.get_figwidth() * DPI:.0f}px; width: 100%"
    )


def _tag(png: bytes, alt: str, style: str) -> str:
    code = base64.b64encode(png).decode("ascii")
    return f'<img src="data:image/png;base64,{code}" alt="{escape(alt)}" style="{style}">'


def short(layer: str) -> str:
    """An attention layer's path without what all of them end with."""
    return layer.removesuffix(".attention")
