"""The explorer's pictures as HTML: images, maps, gates and confusions, each with a description."""

# Legend: H height, W width, K classes.

import io
from collections.abc import Mapping, Sequence
from html import escape

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from senet_lib.analysis.cam import CamMaps, scale_for_display
from senet_lib.analysis.gates import Gates
from senet_lib.analysis.overlay import GAP_PIXELS, PANEL_PIXELS, heat, panels
from senet_lib.evaluation import probabilities, probability_text
from senet_lib.explore.answers import Picture
from senet_lib.figures.errors import confusion
from senet_lib.figures.style import BLUE, STYLE, VERMILION
from senet_lib.report.gallery import file_of, source_of

DPI = 80
SQUARES = "display: block; image-rendering: pixelated"


def img(pixels: np.ndarray, alt: str, width: str = "100%", style: str = SQUARES) -> str:
    """An image (H, W, 3) uint8 as HTML; `alt` says what is to be seen, width and style are CSS."""
    return _tag(file_of(pixels, compress_level=1), alt, f"width: {width}; {style}")


def line(text: str, *, problem: bool = False) -> str:
    """A line that says what is going on, read out by screen readers."""
    return f'<div role="status">{"⚠ " if problem else ""}{escape(text, quote=False)}</div>'


def picture_html(picture: Picture, classes: Sequence[str]) -> str:
    """The chosen image, large, with what it is."""
    what = "class unknown" if picture.label is None else classes[picture.label]
    image = img(picture.pixels, f"{what}, {picture.note}")
    return image + _text(f"<strong>{escape(what)}</strong><br>{escape(picture.note)}")


def map_html(maps: CamMaps, picture: Picture, classes: Sequence[str], network: str) -> str:
    """A network's map of the image, the map over the grey image, and the likeliest classes."""
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
    ramp = (255 * heat(np.linspace(0, 1, 96)[None])).astype(np.uint8)
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
        names: of the network, and of what the mean is over.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure((9.4, 2.5))
        axes = figure.add_axes((0.06, 0.12, 0.93, 0.73))  # a layout of its own takes twice as long
        for place, layer in enumerate(layers):
            values = one.values[layer][0]
            order = np.argsort(mean.get(layer, values), kind="stable")
            x = place + np.linspace(0.02, 0.98, len(values))
            axes.plot(x, values[order], color=VERMILION, lw=1.5)
            if layer in mean:
                axes.plot(x, mean[layer][order], "--", color=BLUE, lw=1.5)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, high - 0.05), max(high, low + 0.05))  # no less than 0.05
        ticks = [f"{short(layer)}, {one.values[layer].shape[1]} channels" for layer in layers]
        axes.set_xticks(np.arange(len(layers)) + 0.5, ticks)
        axes.set(title="gates, the channels of a layer sorted", xlim=(0, len(layers)))
        axes.legend(["this image", *names[1:]][: 1 + bool(mean)], ncols=2, loc="lower right",
                    bbox_to_anchor=(1, 1), borderaxespad=0)  # fmt: skip
        alt, numbers = "their mean", {k: v.mean() for k, v in one.values.items()}
        if mean:
            alt = f"their distance from the {names[1]}"
            numbers = {k: np.sqrt(((v[0] - mean[k]) ** 2).mean()) for k, v in one.values.items()}
        said = ", ".join(f"{short(k)} {v:.3f}" for k, v in numbers.items())
        figure.set_label(f"Gates of {names[0]} for this image; {alt} by layer: {said}")
        return _shown(figure)


def confusion_html(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """The confusion matrix (K, K), row: true class, column: predicted class, as a heat map."""
    return _shown(confusion(matrix, classes))


def _shown(figure: Figure) -> str:
    """A figure on a light ground, with its label as its description."""
    file, fast = io.BytesIO(), {"compress_level": 1}
    figure.savefig(file, format="png", dpi=DPI, facecolor="white", pil_kwargs=fast)
    width = f"max-width: {figure.get_figwidth() * DPI:.0f}px; width: 100%"
    return _tag(file.getvalue(), figure.get_label(), width)


def _tag(png: bytes, alt: str, style: str) -> str:
    return f'<img src="{source_of(png)}" alt="{escape(alt)}" style="{style}">'


def short(layer: str) -> str:
    """An attention layer's path without what all of them end with."""
    return layer.removesuffix(".attention")
