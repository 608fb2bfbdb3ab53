"""The explorer's pictures as HTML: images, maps, probabilities and gates, each with a description.

Colours come from the theme where there is one, so that all is legible in light and dark.
"""

# Legend: N images, C channels, H height, W width, K classes.

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np

from senet_lib.analysis.cam import CamMaps, scale_for_display
from senet_lib.explore.numbers import Comparison, Picture, probabilities
from senet_lib.report.gallery import GAP_PIXELS, PANEL_PIXELS, panels, probability_text
from senet_lib.wording import counted

STYLE = """<style>
.senet-app { max-width: 1180px; }
.senet-app .widget-html-content { font-size: 13px; line-height: 1.45; }
.senet-app h2 { font-size: 16px; margin: 14px 0 2px; font-weight: 600; }
.senet-app p { margin: 2px 0 6px; }
.senet-app img { image-rendering: pixelated; display: block; width: 100%; height: auto; margin: 0; }
.senet-app figure { margin: 0; }
.senet-status { padding: 4px 10px; border-left: 4px solid var(--jp-brand-color1, #1976d2);
  background: var(--jp-layout-color2, #eee); color: var(--jp-ui-font-color1, inherit); }
.senet-status.problem { border-left-color: var(--jp-error-color1, #d32f2f); }
.senet-shares { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.senet-app .senet-shares td { padding: 0 4px; text-align: left; border: 0; background: none; }
.senet-app .senet-shares td:last-child { text-align: right; white-space: nowrap; }
.senet-app .senet-thumb.jupyter-button { height: auto; min-height: 92px; padding: 66px 2px 2px;
  background-repeat: no-repeat; background-position: top 2px center; background-size: 64px 64px;
  image-rendering: pixelated; line-height: 1.25; font-size: 12px; white-space: normal;
  color: var(--jp-ui-font-color1, inherit); text-overflow: clip; margin: 1px; }
.senet-app .senet-cell.jupyter-button { height: 26px; line-height: 24px; padding: 0; margin: 0;
  min-width: 0; font-size: 12px; color: var(--jp-ui-font-color1, inherit); }
.senet-app .jupyter-button:focus-visible, .senet-app select:focus-visible {
  outline: 3px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px; z-index: 1; }
.senet-app .senet-row { column-gap: 12px; }
.senet-app .senet-stacked { flex-flow: column; align-items: stretch; }
.senet-app .senet-stacked > .widget-label { text-align: left; width: auto; height: 22px;
  margin: 0; padding: 0; }
.senet-app .senet-column select { flex: 0 0 28px; height: 28px; }
.senet-app .senet-head { font-size: 12px; line-height: 26px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.senet-app .senet-head-cell, .senet-app .senet-head-cell > div { min-width: 0; overflow: hidden; }
.senet-gates { display: flex; flex-wrap: wrap; color: var(--jp-ui-font-color1, currentColor); }
.senet-gates svg { flex: 1 1 215px; max-width: 260px; height: auto; }
.senet-gates text { fill: currentColor; font: 12px sans-serif; }
</style>"""


def png_uri(pixels: np.ndarray) -> str:
    """A data URI of (H, W, 3) or (H, W, 4) uint8 as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def status_html(text: str, *, problem: bool = False) -> str:
    """The status line."""
    kind = "senet-status problem" if problem else "senet-status"
    return f'<div class="{kind}" role="status">{escape(text)}</div>'


def picture_html(picture: Picture, classes: Sequence[str]) -> str:
    """The chosen image, large, with what it is."""
    what = escape("class unknown" if picture.label is None else classes[picture.label])
    note = escape(picture.note)
    return (
        f'<figure><img src="{png_uri(picture.pixels)}" alt="{note}: {what}">'
        f"<figcaption><strong>{what}</strong><br>{note}</figcaption></figure>"
    )


def map_html(maps: CamMaps, picture: Picture, classes: Sequence[str], network: str) -> str:
    """A network's map of the image, the map over the grey image, and the likeliest classes."""
    strip = panels(picture.pixels, scale_for_display(maps.maps)[0])
    strip = strip[:, PANEL_PIXELS + GAP_PIXELS :]
    clear = np.full((*strip.shape[:2], 1), 255, np.uint8)
    clear[:, PANEL_PIXELS : PANEL_PIXELS + GAP_PIXELS] = 0
    target = classes[int(maps.targets[0])]
    alt = f"Map of {network} for {target}, and the map over the grey image"
    blank = (
        ""
        if maps.maps.any()
        else (
            f"<p><strong>The map is zero everywhere</strong>: nothing at this layer speaks for "
            f"{escape(target)}.</p>"
        )
    )
    share = probabilities(maps.logits[0])
    first = int(share.argmax())
    verdict = ""
    if picture.label is not None:
        verdict = " – right" if first == picture.label else " – wrong"
    return (
        f'<img src="{png_uri(np.concatenate([strip, clear], 2))}" alt="{escape(alt)}">{blank}'
        f"<p>It says <strong>{escape(classes[first])}</strong>, {probability_text(share[first])}"
        f"{verdict}. The map is for {escape(target)}.</p>{_shares(share, classes)}"
    )


def _shares(share: np.ndarray, classes: Sequence[str]) -> str:
    """The three likeliest classes."""
    rows = "".join(
        f"<tr><td>{escape(classes[k])}</td><td>{probability_text(share[k])}</td></tr>"
        for k in np.argsort(-share, kind="stable")[:3]
    )
    return f'<table class="senet-shares"><tbody>{rows}</tbody></table>'


# Gates

PANEL_WIDTH, PANEL_HEIGHT, LEFT, TOP, BELOW = 260, 150, 40, 24, 30
OWN = 'stroke="#D55E00" stroke-width="1.8"'
MEAN = 'stroke="currentColor" stroke-width="1.2" stroke-dasharray="5 3"'


def gates_html(compared: Comparison, layers: Sequence[str], network: str, of_class: str) -> str:
    """Gates of one image and the mean of a class: by layer, and over the channels of some layers.

    Args:
        compared: the numbers.
        layers: those to draw channel by channel.
        network: name of the network.
        of_class: name of the class.
    """
    drawn = []
    if compared.count:
        depth = np.arange(1, len(compared.layers) + 1)
        highest = max(compared.difference.max(), compared.usual.max(), 1e-6)
        drawn.append(
            _axes(
                "difference from the class mean",
                f"the {len(depth)} attention layers, by depth",
                (0.5, len(depth) + 0.5),
                (0.0, 1.05 * highest),
                [(depth, compared.difference, OWN), (depth, compared.usual, MEAN)],
            )
        )
    curves = [
        source[n] for source in (compared.image, compared.mean) for n in layers if n in source
    ]
    span = _span(curves)
    for layer in layers:
        sorter = compared.mean.get(layer, compared.image[layer])
        order = np.argsort(sorter, kind="stable")
        channel = np.arange(1, len(order) + 1)
        lines = [(channel, compared.image[layer][order], OWN)]
        if compared.count:
            lines.append((channel, compared.mean[layer][order], MEAN))
        below = f"{len(order)} channels, sorted by {'the mean' if compared.count else 'gate'}"
        title = f"gates of {layer.removesuffix('.attention')}"
        drawn.append(_axes(title, below, (0, len(order) + 1), span, lines))
    described = escape(_described(compared, network, of_class))
    figure = f'<div class="senet-gates" role="img" aria-label="{described}">{"".join(drawn)}</div>'
    key = f"{_key(OWN)} this image"
    if compared.count:
        images = counted(compared.count, "image")
        key += (
            f" &emsp; {_key(MEAN)} {escape(of_class)}: the mean of {images}; on the left, the "
            "difference that half of them exceed"
        )
    return f"<p>{escape(network)}. {key}</p>{figure}"


def _described(compared: Comparison, network: str, of_class: str) -> str:
    """The picture in words."""
    if not compared.count:
        means = (
            f"{n.removesuffix('.attention')} {v.mean():.2f}" for n, v in compared.image.items()
        )
        return f"Gates of {network} for this image; their mean by layer: {', '.join(means)}"
    values = zip(compared.layers, compared.difference, compared.usual, strict=True)
    said = (f"{n.removesuffix('.attention')} {d:.3f} ({u:.3f})" for n, d, u in values)
    return (
        f"Gates of {network} for this image, and their mean over {compared.count} images of "
        f"{of_class}. Root mean square difference by layer, in brackets the median of the class: "
        f"{', '.join(said)}"
    )


def _key(look: str) -> str:
    """A sample of a line."""
    return (
        f'<svg width="28" height="8" aria-hidden="true"><line x1="0" x2="28" y1="4" y2="4" {look}/>'
        "</svg>"
    )


def _span(values: list[np.ndarray]) -> tuple[float, float]:
    """Limits of the gates' axis, in whole tenths."""
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    return float(np.floor(10 * low) / 10), float(np.ceil(10 * high + 1e-9) / 10)


def _axes(
    title: str,
    below: str,
    x_span: tuple[float, float],
    y_span: tuple[float, float],
    lines: list[tuple[np.ndarray, np.ndarray, str]],
) -> str:
    """One panel; a line is its x, its y and its look, and the first one lies on top."""
    left, top, width = LEFT, TOP, PANEL_WIDTH - LEFT - 10
    parts = [f'<text x="{left}" y="{top - 9}">{escape(title)}</text>']
    for tick in np.linspace(*y_span, 3):
        y = top + PANEL_HEIGHT * (y_span[1] - tick) / (y_span[1] - y_span[0])
        parts.append(
            f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="currentColor" stroke-opacity="0.25"/>'
            f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:.2g}</text>'
        )
    for x, y, look in reversed(lines):
        across = left + width * (x - x_span[0]) / (x_span[1] - x_span[0])
        down = top + PANEL_HEIGHT * (y_span[1] - y) / (y_span[1] - y_span[0])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" {look}/>')
    parts.append(
        f'<text x="{left + width / 2}" y="{top + PANEL_HEIGHT + 18}" text-anchor="middle">'
        f"{escape(below)}</text>"
    )
    return (
        f'<svg viewBox="0 0 {PANEL_WIDTH} {PANEL_HEIGHT + TOP + BELOW}" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )
