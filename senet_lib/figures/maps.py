"""Figures of maps and of what they score, in the language of `style`."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.cam import scale_for_display
from senet_lib.analysis.families import variant
from senet_lib.analysis.localisation import THRESHOLDS, Summary
from senet_lib.analysis.scores import StudyScores
from senet_lib.analysis.trials import TRIAL_LABELS
from senet_lib.claims.definitions import Definition
from senet_lib.figures.style import BLUE, FURTHER, INK, MUTED, VERMILION, WIDTH, styled
from senet_lib.report.gallery import overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from senet_lib.analysis.cam_study import Examples, GridExamples

TILE = 1.35  # inches of one picture
COLORS = (BLUE, VERMILION, *FURTHER)
CLAIM_LOOKS = ((VERMILION, "o"), (BLUE, "s"), (MUTED, "^"))
NETWORK_LOOKS = tuple(zip(COLORS, ("o", "s", "^", "D", "v", "P", "X"), strict=True))
OUTLINE = "#00e5ff"  # of the region on a map; not among the map's colours


@styled
def side_by_side(figure: "Figure", found: "Examples") -> str:
    """Images with the overlay of every network's map beside each, and what each network says.

    Args:
        found: of `CamStudy.examples`.
    """
    names, panels, scaled = _panels(figure, found.maps, "image", caption=0.32)
    blank = 0
    for row, (image, label) in enumerate(zip(found.images, found.labels, strict=True)):
        _picture(panels[row, 0], image, found.classes[label], "bold")
        for axes, name in zip(panels[row, 1:], names, strict=True):
            logits = found.logits[name][row]
            said = int(logits.argmax())
            sure = 100 / np.exp(logits - logits.max()).sum()
            words = f"{found.classes[said]} {sure:.0f} %"
            if not found.maps[name][row].any():
                words, blank = f"{words}\nmap is zero", blank + 1
            right = said == label
            _picture(axes, overlay(image, scaled[name][row]), words if right else f"✗ {words}")
    return (
        f"{len(found.index)} images ({', '.join(found.classes[k] for k in found.labels)}), each "
        f"with the maps of {', '.join(names)} laid over it; {blank} of the maps are zero."
    )


@styled
def grid_maps(figure: "Figure", found: "GridExamples") -> str:
    """Grids with every network's map of the whole grid; the tile to be found is outlined.

    Args:
        found: of `CamStudy.grid_examples`.
    """
    names, panels, scaled = _panels(figure, found.maps, "grid", caption=0.25)
    for row, (image, mask) in enumerate(zip(found.images, found.masks, strict=True)):
        _picture(panels[row, 0], image, f"find: {found.classes[found.targets[row]]}", "bold")
        _outline(panels[row, 0], mask)
        for axes, name in zip(panels[row, 1:], names, strict=True):
            share = np.maximum(found.maps[name][row], 0)
            inside = 100 * share[mask].sum() / share.sum() if share.any() else 0
            _picture(axes, overlay(image, scaled[name][row]), f"{inside:.0f} % inside")
            _outline(axes, mask)
    return (
        f"{len(found.images)} grids of four images, the tile of the class explained outlined, with "
        f"the maps of {', '.join(names)} laid over them."
    )


def _panels(
    figure: "Figure", maps: Mapping[str, np.ndarray], first: str, caption: float
) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """A row of square panels a case, headed `first` and the networks, with room for captions in
    inches. Returns the networks' names, the panels (cases, 1 + networks) and the scaled maps."""
    names = list(maps)
    rows, columns = len(maps[names[0]]), 1 + len(names)
    width = min(WIDTH, 0.2 + TILE * columns)
    figure.set_size_inches(width, 0.4 + rows * ((width - 0.2) / columns + caption))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, name in zip(panels[0], [first, *names], strict=True):
        axes.set_title(_broken(name), loc="center", fontsize=9.5)
    return names, panels, {name: scale_for_display(maps[name]) for name in names}


def _broken(name: str) -> str:
    """A long name over two lines, broken where its settings or its variant begin."""
    if len(name) <= 13:
        return name
    head, mark, rest = name.partition("+")
    if not mark:
        head, mark, rest = name.rpartition("_")
    return f"{head}\n{mark.strip('_')}{rest}"


def _picture(axes: "Axes", image: np.ndarray, words: str, weight: str = "normal") -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(visible=False)
    axes.set_xlabel(words, fontsize=8.5, fontweight=weight, labelpad=3)


def _outline(axes: "Axes", mask: np.ndarray) -> None:
    """A frame around a rectangular region."""
    from matplotlib.patches import Rectangle

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    corner = (columns[0] - 0.5, rows[0] - 0.5)
    axes.add_patch(
        Rectangle(corner, len(columns), len(rows), fill=False, ec=OUTLINE, lw=2, clip_on=False)
    )


@styled
def iou_curves(figure: "Figure", curves: Mapping[str, np.ndarray], chance: float) -> str:
    """Mean IoU against the share of its maximum at which a map is cut; a dot at the highest.

    Args:
        curves: (T,) of each network, see `CamStudy.curves`.
        chance: IoU of a uniform map.
    """
    figure.set_size_inches(WIDTH, 3.4)
    axes = figure.subplots()
    said = []
    for (name, curve), color in zip(curves.items(), cycle(COLORS), strict=False):
        line = "-" if variant(name, list(curves)) != "plain" else "--"
        axes.plot(THRESHOLDS, curve, line, color=color, lw=1.8, label=name)
        best = int(curve.argmax())
        axes.plot(THRESHOLDS[best], curve[best], "o", color=color, ms=6)
        said.append(f"{name} at best {curve[best]:.2f} at {THRESHOLDS[best]:.2f}")
    axes.axhline(chance, color=INK, ls=":", lw=1.3)
    axes.annotate("a uniform map", (0.99, chance), ha="right", va="bottom", fontsize=8.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("threshold, as a share of the map's maximum")
    axes.set_ylabel("mean IoU")
    axes.legend(fontsize=9.5)
    return f"Mean IoU over the threshold: {'; '.join(said)}; a uniform map {chance:.2f}."


@styled
def pointing(figure: "Figure", scores: StudyScores) -> str:
    """How much of each network's maps lies where it should, on every trial.

    Args:
        scores: of one study.
    """
    trials = [t for t in scores.trials if t in TRIAL_LABELS]
    names = scores.models
    figure.set_size_inches(WIDTH, 1.3 + (0.25 + 0.11 * len(names)) * len(trials))
    axes = figure.subplots()
    said = []
    for row, trial in enumerate(trials):
        shifts = np.linspace(-0.32, 0.32, len(names)) if len(names) > 1 else [0.0]
        values = []
        for shift, name, look in zip(shifts, names, cycle(NETWORK_LOOKS), strict=False):
            found = scores.summary(name, trial, "energy")
            if found.mean is None:
                continue
            _estimate(axes, row + shift, found, look, name if row == 0 else None)
            values.append(f"{name} {found.mean:.2f}")
        chance = scores.chance(trial, "energy")
        axes.plot([chance] * 2, [row - 0.42, row + 0.42], color=INK, lw=1.3, ls=":")
        said.append(f"{TRIAL_LABELS[trial]}: {', '.join(values)}, a uniform map {chance:.2f}")
    axes.set_yticks(range(len(trials)), [TRIAL_LABELS[t] for t in trials], fontsize=9)
    axes.set_ylim(len(trials) - 0.45, -0.55)
    axes.set_xlim(0, 1)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(
        "share of the map's mass in the region\nbars: 95 % interval over the seeds; dotted: a "
        "uniform map"
    )
    figure.legend(loc="outside lower center", ncols=min(len(names), 5), fontsize=9)
    return f"Share of the mass of the maps in the region. {'; '.join(said)}."


def _estimate(
    axes: "Axes", row: float, found: Summary, look: tuple[str, str], name: str | None
) -> None:
    """A mean with its interval, as far as it lies between 0 and 1."""
    color, marker = look
    if found.interval:
        ends = np.clip([found.interval.low, found.interval.high], 0, 1)
        axes.plot(ends, [row] * 2, color=color, lw=1.5, alpha=0.6)
    axes.plot(found.mean, row, marker, color=color, ms=6, label=name)


@styled
def definitions(figure: "Figure", found: Sequence[Definition], claimed: Mapping[str, float]) -> str:
    """What each network scores by each meaning of "IoU", and what was claimed of it.

    Args:
        found: of `measures.definitions`.
        claimed: the claimed IoU by network, the highest first.
    """
    names = list(claimed)
    figure.set_size_inches(WIDTH, 1.3 + 0.44 * len(found))
    axes = figure.subplots()
    styles = dict(zip(names, CLAIM_LOOKS, strict=False))
    said = []
    for row, one in enumerate(found):
        for shift, name in zip((-0.2, 0.0, 0.2), names, strict=False):
            label = name if row == 0 else None
            _estimate(axes, row + shift, one.summaries[name], styles[name], label)
        values = ", ".join(f"{name} {one.summaries[name].mean:.2f}" for name in names)
        said.append(f"{one.label}: {values}")
    for name, value in claimed.items():
        color, marker = styles[name]
        axes.axvline(value, color=color, lw=1.2, ls="--")
        axes.plot(value, -0.75, marker, color=color, mfc="white", ms=6, clip_on=False)
    axes.set_yticks(range(len(found)), [one.label for one in found], fontsize=9)
    axes.set_ylim(len(found) - 0.4, -0.75)
    axes.set_xlim(0, 1)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("IoU; filled: measured\nbars: 95 % interval over the seeds; dashed: claimed")
    figure.legend(loc="outside lower center", ncols=len(names), fontsize=9.5)
    claims = ", ".join(f"{name} {value:.2f}" for name, value in claimed.items())
    return f"IoU by definition, claimed {claims}. Measured: {'; '.join(said)}."
