"""One language for all figures: the house style, and colours that colour-blind readers can tell
apart (Okabe and Ito): a plain network is blue, the same network with SE vermilion."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from senet_lib.analysis.families import variant

BLUE, VERMILION, INK, MUTED, GRID = "#0072B2", "#D55E00", "#1d2329", "#56616c", "#dfe3e7"
FURTHER = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "image.interpolation": "none",  # drawings hold an image's own pixels
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def colours_of(models: Sequence[str]) -> dict[str, str]:
    """The colour of each model; equal variants of different families have the same."""
    variants = {model: variant(model, models) for model in models}
    others = sorted(set(variants.values()) - {"plain", "se"})
    further = FURTHER if len(others) <= len(FURTHER) else [MUTED] * len(others)
    known = {"plain": BLUE, "se": VERMILION, **dict(zip(others, further, strict=False))}
    return {model: known[kind] for model, kind in variants.items()}


def legend_name(name: str, kind: str, models: Sequence[str]) -> str:
    """What a legend calls a network: `kind`, or one name for all where there are too many."""
    others = {variant(m, models) for m in models} - {"plain", "se"}
    crowded = len(others) > len(FURTHER) and variant(name, models) in others
    return "other variants" if crowded else kind


def in_lines(name: str) -> str:
    """A network's name in lines that are short enough to stand above a picture."""
    return name.replace("_", "_\n", 1).replace("+", "\n+").replace("=", "=\n")


def few_ticks(ax: Axes) -> None:
    """Below an axis of like numbers: few of them, and written out."""
    ax.locator_params(axis="x", nbins=4)
    ax.ticklabel_format(axis="x", useOffset=False)
