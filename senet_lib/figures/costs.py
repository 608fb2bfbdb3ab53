"""Error against cost, ours beside what others have published, in the language of `style`."""

import re
from collections.abc import Sequence
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.families import by_model, variant
from senet_lib.analysis.literature import PUBLISHED, PublishedPoint
from senet_lib.errors import unknown
from senet_lib.figures.style import INK, MUTED, WIDTH, legend_name, looks, styled
from senet_lib.figures.style import _log_if_wide as log_if_wide
from senet_lib.runs.records import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Point = tuple[float, float]  # (cost in millions, error in percent)
COSTS = {"num_params": "parameters", "macs": "multiply-accumulates for one image"}
LABEL_SIZE = 8.5  # points
NEAR = 8  # points; a label farther from its point has a line to it
CLEAR = 9  # points; what a label keeps to its left and right from points it does not name
# Where a label may stand: offset from its point in points, and how it is aligned to it.
PLACES = [
    (dx * far, dy * far, align, level)
    for far in (1.0, 2.0, 3.2, 4.6, 6.5)
    for dx, dy, align, level in (
        (8, 0, "left", "center"), (-8, 0, "right", "center"), (0, 8, "center", "bottom"),
        (0, -8, "center", "top"), (7, 7, "left", "bottom"), (7, -7, "left", "top"),
        (-7, 7, "right", "bottom"), (-7, -7, "right", "top"),
    )
]  # fmt: skip


@styled
def pareto(
    figure: "Figure",
    runs: Sequence[RunRecord],
    published: Sequence[PublishedPoint] | None = None,
    x: str = "num_params",
) -> str:
    """Error against parameters or multiply-accumulates, with the networks no other one beats.

    A large mark is the mean of a network's seeds, a small one a seed. The stepped line joins the
    networks of ours than which no other of ours is both cheaper and better. Hollow grey diamonds
    are published points; those whose cost is not known are left out.

    Args:
        runs: finished runs of one study.
        published: points of others, drawn apart; None for those of CIFAR-10 beside runs on it, and
            beside other runs for none.
        x: num_params or macs.
    Raises:
        UnknownNameError: x is neither.
    """
    from senet_lib.analysis.statistics import pareto as undominated

    if x not in COSTS:
        raise unknown("cost", x, COSTS)
    if published is None:
        published = PUBLISHED if all(run.data == "cifar10" for run in runs) else ()
    groups = by_model(runs)
    place = {
        name: (getattr(group[0], x) / 1e6, 100 * float(np.mean([r.test_error for r in group])))
        for name, group in groups.items()
    }
    names = list(groups)
    front = sorted((names[i] for i in undominated(list(place.values()))), key=lambda n: place[n])
    figure.set_size_inches(WIDTH, 5.6)
    axes = figure.subplots()
    theirs = _draw_published(axes, published, x)
    _draw_front(axes, [place[name] for name in front])
    _draw_ours(axes, groups, place)
    values = [*place.values(), *(point for points in theirs.values() for point in points)]
    log_if_wide(axes, "x", [cost for cost, _ in values])
    log_if_wide(axes, "y", [error for _, error in values])
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel(f"{COSTS[x]} (millions)")
    axes.set_ylabel(f"{runs[0].evaluated_on} error (%)")
    shown = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=2, fontsize=9)
    ours = [(n, place[n], INK, (CLEAR, 0)) for n in front]
    ours += [(n, place[n], INK, (CLEAR,)) for n in names if n not in front]
    lowest = [(n, min(ps, key=lambda p: p[1]), MUTED, (CLEAR,)) for n, ps in sorted(theirs.items())]
    step = [place[name] for name in front]
    _label(figure, axes, [*ours, *lowest], [*values, *_seeds(groups, x)], step)
    return _describe(place, front, theirs, x)


def _draw_published(
    axes: "Axes", published: Sequence[PublishedPoint], x: str
) -> dict[str, list[Point]]:
    """Draw the points whose cost is known; returns network to its (millions, percent)."""
    theirs: dict[str, list[Point]] = {}
    for point in published:
        if (cost := getattr(point, x)) is not None:
            theirs.setdefault(point.network, []).append((cost / 1e6, 100 * point.error))
    said = "published by others, trained for hundreds of epochs"
    for points in theirs.values():
        axes.plot(*zip(*points, strict=True), "D", color=MUTED, mfc="none", ms=5, alpha=0.8,
                  label=said)  # fmt: skip
    return theirs


def _draw_front(axes: "Axes", front: Sequence[Point]) -> None:
    """A step down at each network of the front, whose points ascend in cost."""
    axes.step(
        *zip(*front, strict=True), where="post", color=INK, lw=1.2, alpha=0.6, zorder=1.5,
        label="no other of ours is both cheaper and better",
    )  # fmt: skip


def _draw_ours(axes: "Axes", groups: dict[str, list[RunRecord]], place: dict[str, Point]) -> None:
    """The seeds small and pale, their mean large."""
    names = list(groups)
    look = looks(names)
    for name, group in groups.items():
        (cost, error), style = place[name], look[name]
        errors = [100 * run.test_error for run in group]
        axes.plot([cost] * len(errors), errors, style.marker, color=style.color, ms=4, alpha=0.4)
        kind = re.sub(r"^se\b", "with SE", variant(name, names))
        kind = legend_name(name, kind, names)
        axes.plot(cost, error, style.marker, color=style.color, mfc=style.fill, ms=8, label=kind)


def _seeds(groups: dict[str, list[RunRecord]], x: str) -> list[Point]:
    return [(getattr(r, x) / 1e6, 100 * r.test_error) for group in groups.values() for r in group]


def _label(
    figure: "Figure",
    axes: "Axes",
    wanted: Sequence[tuple[str, Point, str, Sequence[float]]],
    points: Sequence[Point],
    step: Sequence[Point],
) -> None:
    """Write each name beside its point, with a thin line to it where they are apart.

    A name that would cover a point, the stepped line or another name wherever it is put is left
    out, as is one that would stand as near to another point as the last of its distances allows;
    the figure's description has them all.

    Args:
        wanted: name, point, colour, and distances in points to keep from other points, tried in
            turn.
        points: all points that are drawn.
        step: corners of the front.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    bounds, unit = axes.get_window_extent(renderer), figure.dpi / 72
    taken = _occupied(axes, points, step, unit)
    pixels = axes.transData.transform(np.array(points))
    labels: list[Bbox] = []
    for name, point, color, distances in wanted:
        apart = np.abs(pixels - axes.transData.transform(point)).max(1) > CLEAR * unit
        for distance, (dx, dy, align, level) in product(distances, PLACES):
            line = {"arrowstyle": "-", "color": color, "lw": 0.6, "alpha": 0.6, "shrinkB": 4}
            text = axes.annotate(
                name, point, (dx, dy), textcoords="offset points", ha=align, va=level,
                size=LABEL_SIZE, color=color,
                arrowprops=line if max(abs(dx), abs(dy)) > NEAR else None,
            )  # fmt: skip
            text.set_in_layout(False)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)
            inside = bounds.x0 <= box.x0 and box.x1 <= bounds.x1
            inside = inside and bounds.y0 <= box.y0 and box.y1 <= bounds.y1
            around = box.padded(distance * unit, distance * unit / 2)
            clear = not any(around.contains(*pixel) for pixel in pixels[apart])
            way = _way(box, axes.transData.transform(point))
            clear = clear and not any(label.overlaps(part) for label in labels for part in way)
            if inside and clear and not any(box.overlaps(other) for other in taken):
                taken += [box, *way]
                labels.append(box)
                break
            text.remove()


def _way(box: "Bbox", point: np.ndarray) -> list["Bbox"]:
    """Small squares along the line from a point to a label's middle, those inside it apart."""
    from matplotlib.transforms import Bbox

    middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
    steps = [point + share * (middle - point) for share in np.linspace(0.1, 1, 30)]
    return [Bbox([at - 1, at + 1]) for at in steps if not box.contains(*at)]


def _occupied(
    axes: "Axes", points: Sequence[Point], step: Sequence[Point], unit: float
) -> list["Bbox"]:
    """What no name may cover, in pixels: a square around each point, and the stepped line."""
    from matplotlib.transforms import Bbox

    corners = [(right[0], left[1]) for left, right in pairwise(step)]
    path = [point for pair in zip(step, [*corners, step[-1]], strict=True) for point in pair]
    ends = axes.transData.transform(np.array(path))
    line = [Bbox([np.minimum(a, b), np.maximum(a, b)]).padded(unit) for a, b in pairwise(ends)]
    places = axes.transData.transform(np.array(points))
    return line + [Bbox([place, place]).padded(6 * unit) for place in places]


def _describe(
    place: dict[str, Point],
    front: Sequence[str],
    theirs: dict[str, list[Point]],
    x: str,
) -> str:
    """All of the figure's numbers in words."""
    ours = "; ".join(
        f"{n} {cost:,.4g} million, {error:.2f} %" for n, (cost, error) in place.items()
    )
    others = "; ".join(
        f"{name} {points[0][0]:,.4g} million, {', '.join(f'{error:.2f}' for _, error in points)} %"
        for name, points in theirs.items()
    )
    text = f"Mean error of each network of ours against its {COSTS[x]}: {ours}. "
    text += f"No other of ours is both cheaper and better than {', '.join(front)}. "
    if others:
        text += f"Published by others, trained for hundreds of epochs: {others}."
    return text.strip()
