"""Figures of gates, in the language of `style`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.gates import telling_classes
from senet_lib.figures.style import BLUE, FURTHER, MUTED, VERMILION, WIDTH, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASS_LOOKS = ((BLUE, "-"), (VERMILION, "--"), (FURTHER[0], "-."), (FURTHER[4], ":"))


@styled
def class_gates(figure: "Figure", means: Mapping[str, np.ndarray], classes: Sequence[str]) -> str:
    """Mean gate of each class over the channels, one panel a layer and one line a class.

    A layer's channels are sorted by their mean over all classes, for their own order means nothing;
    the lines of one panel share the order.

    Args:
        means: layer to (K, C), as `gates.class_means` gives them; the layers to draw.
        classes: K names.
    Source: Hu et al. 2018 (arXiv:1709.01507), figure 5.
    """
    chosen = telling_classes(list(means.values())[-1])  # these are drawn in colour
    figure.set_size_inches(WIDTH, 0.6 + 2.3 * len(means))
    panels = figure.subplots(len(means), 1, squeeze=False)[:, 0]
    for axes, (layer, values) in zip(panels, means.items(), strict=True):
        ordered = values[:, np.argsort(np.nanmean(values, 0), kind="stable")]
        x = np.arange(1, values.shape[1] + 1)
        others = [k for k in range(len(values)) if k not in chosen]
        for k in others:
            name = "other classes" if k == others[0] else None
            axes.plot(x, ordered[k], color=MUTED, lw=0.7, alpha=0.5, label=name)
        for k, (color, line) in zip(chosen, CLASS_LOOKS, strict=False):
            axes.plot(x, ordered[k], line, color=color, lw=1.6, label=classes[k])
        axes.set(title=layer.removesuffix(".attention"), ylabel="mean gate")
        axes.margins(x=0.01)
    panels[-1].set_xlabel("channel, sorted by its mean gate")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=10)
    gaps = {k: np.nanmean(np.nanmax(v, 0) - np.nanmin(v, 0)) for k, v in means.items()}
    apart = ", ".join(f"{gap:.3f} in {layer}" for layer, gap in gaps.items())
    return (
        "Mean gate of each class over the channels. Highest and lowest class of a channel differ "
        f"by {apart} on average."
    )
