"""What every network of a study is asked to point at, and how well its maps do.

A trial is a set of images, a class to explain on each, and the region where that class is. All
networks get the same trials, made from images that all of them classify correctly, so that one that
is right more often is not given harder ones; where hardly any image is, any may be used.
"""

# Legend: N images, H W size, M cases.

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from senet_lib.analysis import grids as grid
from senet_lib.analysis.cam import compute_maps
from senet_lib.analysis.faithfulness import area, blurred, removal_curve, road, road_curves
from senet_lib.analysis.grids import Explain, Grids
from senet_lib.analysis.localisation import METRICS, chance, score
from senet_lib.analysis.predictions import correct_matrix
from senet_lib.data.augment import normalise
from senet_lib.data.datasets import Dataset
from senet_lib.errors import DataError, RecordError
from senet_lib.models.registry import check_name
from senet_lib.runs.evaluate import images_of
from senet_lib.runs.records import DEFAULT_ROOT, RunRecord
from senet_lib.runs.study import collect

DRAW = 2020  # seed of the draw of tiles; the same for every network, seed and study
FEWEST_RIGHT = 200  # images that all networks must get right, or any image is used
FAITHFULNESS_LABELS = {"deletion": "deletion", "insertion": "insertion", "road": "ROAD"}
TRIAL_LABELS = {
    "grid2": "2 × 2 grid",
    "grid2-alone": "2 × 2 grid, each tile seen alone",
    "grid3": "3 × 3 grid",
    "grid3-alone": "3 × 3 grid, each tile seen alone",
    "mosaic": "Focus mosaic",
    "objects": "object",
}
KNOW_NOTHING = {"chance": "a uniform map", "untrained": "untrained networks"}
OTHERS = KNOW_NOTHING | {"wrong": "the same maps, wrong region"}  # what stands below the networks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """Images with the region to find, and the way to ask for maps of them."""

    name: str  # a key of `TRIAL_LABELS`
    masks: np.ndarray  # (M, H, W) bool, the region of each case
    ask: Callable[[Explain], np.ndarray]  # what gives maps of a batch, to those of all cases
    grids: Grids | None = None  # what the cases are drawn from; None: single images

    @property
    def label(self) -> str:
        """Its name in tables."""
        return TRIAL_LABELS[self.name]

    @property
    def over_maps(self) -> str:
        """How a network's cases become one number; Focus is published as a median."""
        return "median" if self.name == "mosaic" else "mean"

    @property
    def wrong(self) -> np.ndarray:
        """(M, H, W) bool, other regions: in a grid the next tile, in a mosaic the two other tiles,
        else that of the image before, which may overlap this one's."""
        if self.grids is None:
            return np.roll(self.masks, 1, axis=0)
        return ~self.masks if self.name == "mosaic" else self.grids.masks(shift=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """The networks that are compared, and the images they share."""

    runs: Sequence[RunRecord]  # networks in the order asked for, seeds ascending
    dataset: Dataset  # its second split is asked about
    kept: np.ndarray  # indices of the images that may be used, ascending
    right: int  # images that every run classifies correctly; below `FEWEST_RIGHT` all may be used

    def images(self, index: Sequence[int] | np.ndarray | slice = slice(None)) -> Tensor:
        """Normalised images (M, C, H, W) of the second split; all by default."""
        chosen = torch.from_numpy(self.dataset.x_test[index])
        return normalise(chosen, self.runs[0].mean, self.runs[0].std)


def compare(
    study: str, models: Sequence[str], runs_root: str = str(DEFAULT_ROOT), config: str = ""
) -> Compared:
    """Find the runs of some networks in a study, all seeds, and the images to ask them about.

    Args:
        study, config, runs_root: as in `collect`, whose errors these are too.
        models: registry names, or one; those without a finished run are left out, as damaged runs
            are.
    Raises:
        RecordError: no run of these has finished.
        UnknownNameError: there is no such network.
    """
    models = [models] if isinstance(models, str) else models
    known = [run for run in collect(study, config, runs_root).runs if run.network in models]
    for name in set(models).difference(run.network for run in known):
        check_name(name)
    runs = sorted(known, key=lambda run: (list(models).index(run.network), run.seed))
    if not runs:
        asked = f"study {study} has no finished run of {', '.join(models)}"
        raise RecordError(f"{asked}; `make study STUDY={study}` makes them")
    dataset = images_of(runs[0])
    if not np.array_equal(runs[0].test_logits()[1], dataset.y_test):
        raise DataError(f"the labels of {runs[0].path} are not those of {runs[0].data} here")
    right = correct_matrix(runs).all(0)
    number = int(right.sum())
    kept = np.flatnonzero(right if number >= FEWEST_RIGHT else np.ones_like(right))
    return Compared(runs=runs, dataset=dataset, kept=kept, right=number)


def make_trials(compared: Compared, grids: int, objects: int) -> list[Trial]:
    """The trials of `TRIAL_LABELS`, drawn alike wherever they are made; what the images do not
    allow, for want of classes or masks, is left out.

    Args:
        compared: the networks and their images.
        grids: grids of each size; a grid of n x n tiles gives n x n cases. Mosaics: at
            most as many in all, of each class the same number, and at least one.
        objects: images with an exact mask at most.
    """
    dataset, images = compared.dataset, compared.images()
    keep = np.isin(np.arange(len(images)), compared.kept)
    each = max(grids // dataset.num_classes, 1)
    makers = {
        "grid2": partial(grid.make_grids, n=2, count=grids),
        "grid3": partial(grid.make_grids, n=3, count=grids),
        "mosaic": partial(grid.focus_mosaics, count=each),
    }
    trials = []
    for name, make in makers.items():
        with suppress(DataError):
            cases = make(images, dataset.y_test, keep, rng=np.random.default_rng(DRAW))
            ways = {name: grid.grid_maps, f"{name}-alone": grid.tile_maps}
            trials += [
                Trial(name=way, masks=cases.masks(), ask=partial(maps, cases), grids=cases)
                for way, maps in ways.items()
                if way in TRIAL_LABELS
            ]
    if dataset.masks_test is not None and objects:
        index = compared.kept[:objects]
        asked = images[torch.from_numpy(index)], torch.from_numpy(dataset.y_test[index])
        masks = dataset.masks_test[index]
        trials.append(Trial(name="objects", masks=masks, ask=lambda explain: explain(*asked)))
    return trials


def explainer(model: nn.Module, method: str = "gradcam", layer: str = "last") -> Explain:
    """What gives a network's raw maps of a batch, at the images' size; see `cam.compute_maps`."""
    return lambda *asked: compute_maps(model, *asked, method=method, layer=layer).maps


def measure(explain: Explain, trials: Sequence[Trial]) -> pd.DataFrame:
    """Score a network, by the maps that `explain` gives of it, on every trial.

    Returns:
        One row a trial and metric: trial, metric, score (the mean over the cases; of energy on
        mosaics the median), chance (likewise, of a uniform map), wrong (likewise, of the same maps
        and `Trial.wrong` regions: what such maps score where they should find nothing), cases (M)
        and zero (maps without a positive value).
    """
    frames, metrics = [], list(METRICS)
    for trial in trials:
        maps, masks = trial.ask(explain), trial.masks
        found, wrong = score(maps, masks), score(maps, trial.wrong)
        by_chance = pd.DataFrame({name: chance(name, masks) for name in metrics})
        kinds = {"score": found[metrics], "chance": by_chance, "wrong": wrong[metrics]}
        how = dict.fromkeys(metrics, "mean") | {"energy": trial.over_maps}
        frame = pd.DataFrame({kind: some.agg(how) for kind, some in kinds.items()})
        frame = frame.rename_axis("metric").reset_index()
        frames.append(frame.assign(trial=trial.name, cases=len(found), zero=found["zero"].sum()))
    return pd.concat(frames, ignore_index=True)


def measure_faithfulness(
    model: nn.Module, explain: Explain, images: Tensor, targets: Tensor
) -> pd.DataFrame:
    """Whether the network's answer for the targets (M,) depends on the pixels of the normalised
    images (M, C, H, W) that its maps rank high.

    Returns:
        Rows as `measure` gives them, trial "faithfulness": the area under the deletion curve (lower
        is better), that of the insertion curve and ROAD (higher is better). Chance is the score of
        a uniform map, which removes pixels at random.
    """

    deletion, insertion = (images, torch.zeros_like(images)), (blurred(images), images)

    def means(maps: np.ndarray) -> dict[str, float]:
        asked, draw = (maps, targets), partial(np.random.default_rng, DRAW)
        ways = {
            "deletion": area(*removal_curve(model, *deletion, *asked, rng=draw())),
            "insertion": area(*removal_curve(model, *insertion, *asked, rng=draw())),
            "road": road(*road_curves(model, images, *asked, rng=draw())),
        }
        return {name: float(values.mean()) for name, values in ways.items()}

    found = explain(images, targets)
    scores = pd.DataFrame({"score": means(found), "chance": means(np.ones_like(found))})
    zero = int((~(found > 0).any((1, 2))).sum())
    scores = scores.rename_axis("metric").reset_index()
    return scores.assign(trial="faithfulness", cases=len(found), zero=zero)
