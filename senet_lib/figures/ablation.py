"""The figure of one axis of the ablation, in the language of `style`."""

from typing import TYPE_CHECKING

import numpy as np

from senet_lib.figures.style import BLUE, INK, MUTED, VERMILION, WIDTH, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from senet_lib.analysis.ablation import Ablation


@styled
def axis(figure: "Figure", found: "Ablation") -> str:
    """Error of each value and its difference from no attention; every seed is a point.

    Left: errors, the dashed line being the mean without attention. Right: paired differences with
    the 95 % t interval of their mean; an arrow stands where the interval leaves the picture.
    """
    names = ["no attention", *(member.label for member in found.members)]
    figure.set_size_inches(WIDTH, 1.25 + 0.42 * len(names))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    said = [_draw_errors(left, found)]
    said.append(_draw_differences(right, found))
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.4, -0.6)
    left.set_ylabel(found.axis.key)
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    return f"{found.axis.title}. " + " ".join(said)


def _draw_errors(axes: "Axes", found: "Ablation") -> str:
    rows = [("no attention", found.plain_errors, BLUE, "white")]
    rows += [(m.label, m.errors, VERMILION, VERMILION) for m in found.members]
    said = []
    plain = 100 * float(np.mean(list(found.plain_errors.values())))
    axes.axvline(plain, color=BLUE, lw=1, ls="--", alpha=0.7)
    for row, (name, by_seed, color, fill) in enumerate(rows):
        errors = 100 * np.array(list(by_seed.values()))
        axes.plot(errors, [row] * len(errors), "o", color=color, mfc=fill, ms=6)
        axes.plot([errors.mean()] * 2, [row - 0.28, row + 0.28], color=INK, lw=1.5)
        said.append(f"{name} {errors.mean():.2f}")
    axes.margins(x=0.08)
    axes.set_xlabel(f"{found.run.evaluated_on} error (%), one point a seed")
    return f"Mean {found.run.evaluated_on} error in percent: {'; '.join(said)}."


def _draw_differences(axes: "Axes", found: "Ablation") -> str:
    axes.axvline(0, color=BLUE, lw=1, ls="--", alpha=0.7)
    spread = [100 * d for m in found.members for d in m.against_plain.differences]
    reach = 1.7 * max((abs(d) for d in spread), default=1.0) or 1.0
    said = []
    for row, member in enumerate(found.members, start=1):
        result = member.against_plain
        if result.mean is None:
            continue
        differences = 100 * np.array(result.differences)
        if result.t_interval is not None:
            _draw_interval(axes, row, result.t_interval.low, result.t_interval.high, reach)
        axes.plot(differences, [row] * len(differences), "o", color=VERMILION, ms=4, alpha=0.7)
        axes.plot([100 * result.mean] * 2, [row - 0.28, row + 0.28], color=INK, lw=1.5)
        added = 100 * (member.num_params - found.plain_params) / found.plain_params
        axes.annotate(
            f"{added:+.2f} %", (1.02, row), xycoords=("axes fraction", "data"), va="center",
            fontsize=9, color=MUTED,
        )  # fmt: skip
        said.append(f"{member.label} {100 * result.mean:+.2f}")
    axes.annotate(
        "params", (1.02, 0), xycoords=("axes fraction", "data"), va="center", fontsize=9,
        color=MUTED,
    )  # fmt: skip
    axes.set_xlim(-reach, reach)
    axes.set_xlabel("difference from no attention (points)")
    return f"Mean paired difference from no attention in percentage points: {'; '.join(said)}."


def _draw_interval(axes: "Axes", row: int, low: float, high: float, reach: float) -> None:
    ends = 100 * low, 100 * high
    inside = [min(max(end, -0.98 * reach), 0.98 * reach) for end in ends]
    axes.plot(inside, [row, row], color=VERMILION, lw=1.5, alpha=0.5)
    for end, shown, marker in zip(ends, inside, "<>", strict=True):
        if end != shown:
            axes.plot([shown], [row], marker, color=VERMILION, ms=5, alpha=0.6)
