"""One language for all figures: colours, marks, lines, and the house style.

A plain network is blue, dashed and hollow; the same network with SE is vermilion, solid and filled;
other variants have further colours that colour-blind readers can tell apart (Okabe and Ito).
Nothing here touches pyplot, so nothing is drawn twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from senet_lib.analysis.families import variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


P = ParamSpec("P")


BLUE, VERMILION, INK, MUTED, GRID = "#0072B2", "#D55E00", "#1d2329", "#56616c", "#dfe3e7"


FURTHER = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


FURTHER_MARKERS = ("s", "^", "D", "v", "P")


WIDTH = 8.6  # inches; the page shows 96 pixels an inch


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
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def styled(
    draw: Callable[Concatenate["Figure", P], str],
) -> Callable[P, "Figure"]:
    """Make a function that draws on a figure and returns its description into one that returns
    the figure, in the house style."""
    import functools

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(STYLE):
            figure = Figure(layout="constrained")
            figure.set_label(draw(figure, *args, **kwargs))
            return figure

    return wrapper


@dataclass(frozen=True)
class Look:
    """How one variant of a network is drawn."""

    color: str
    marker: str
    line: str
    fill: str


def looks(models: Sequence[str]) -> dict[str, Look]:
    """How each model is drawn; equal variants of different families look the same."""
    known = {"plain": Look(BLUE, "o", "--", "white"), "se": Look(VERMILION, "o", "-", VERMILION)}
    others = sorted({variant(m, models) for m in models} - known.keys())
    further = zip(FURTHER, FURTHER_MARKERS, strict=True)
    for name in others:
        color, marker = next(further) if len(others) <= len(FURTHER) else (MUTED, "o")
        known[name] = Look(color, marker, "-", color)
    return {m: known[variant(m, models)] for m in models}


def legend_name(name: str, kind: str, models: Sequence[str]) -> str:
    """What a legend calls a network: `kind`, or one name for all where there are too many."""
    others = {variant(m, models) for m in models} - {"plain", "se"}
    crowded = len(others) > len(FURTHER) and variant(name, models) in others
    return "other variants" if crowded else kind


def _log_if_wide(axes: "Axes", which: str, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers, where the values span more than a factor of six."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if min(values) <= 0 or max(values) <= 6 * min(values):
        return
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend_of_each_once(axes: "Axes", **options: Any) -> None:
    """A legend in which what looks alike stands once."""
    shown = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(shown.values(), shown.keys(), **options)
