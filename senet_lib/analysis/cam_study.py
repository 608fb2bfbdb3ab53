"""Maps of several networks on the same images: what the Grad-CAM notebook shows of one seed."""

# Legend: M images or cases, H W size.

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from senet_lib.analysis.cam import compute_maps
from senet_lib.analysis.localisation import THRESHOLDS, iou_curve
from senet_lib.analysis.scores import write_scores
from senet_lib.analysis.trials import (
    DRAW,
    Comparison,
    Trial,
    compare,
    explainer,
    make_trials,
    measure,
    measure_faithfulness,
)
from senet_lib.device import keep_freed_memory
from senet_lib.errors import DataError, RecordError
from senet_lib.runs.records import DEFAULT_ROOT, RunRecord, anchored

if TYPE_CHECKING:
    import pandas as pd

OBJECTS_A_GRID, GRIDS_A_REMOVAL, LEAST_REMOVALS = 5, 4, 4
FEW = 4  # the other methods and layers are tried on a quarter of the cases


@dataclass(frozen=True, kw_only=True)
class CamStudy:
    """The networks of one seed, with everything they are asked.

    Attributes:
        compared: all runs that were compared in choosing the images.
        seed: whose runs are shown and measured.
        runs: these runs.
        networks: their networks by name, in eval mode.
        trials: what they are asked to find.
        few: the same, smaller, to compare methods and layers.
        method: of the maps.
        layer: of the maps.
        num_removals: images whose pixels are removed and put back.
        page_folder: where the page and the scores go.
    """

    compared: Comparison
    seed: int
    runs: Sequence[RunRecord]
    networks: dict[str, nn.Module]
    trials: Sequence[Trial]
    few: Sequence[Trial]
    method: str
    layer: str
    num_removals: int
    page_folder: Path

    def measure(self) -> "pd.DataFrame":
        """Score every network on every trial and by faithfulness, and write the scores beside the
        page. Returns model, trial, metric, score, chance, cases, zero."""
        import pandas as pd

        index = self.compared.kept[: self.num_removals]
        images = self.compared.images(index)
        targets = torch.from_numpy(self.compared.dataset.y_test[index])
        frames = []
        for name, network in self.networks.items():
            explain = explainer(network, self.method, self.layer)
            found = [measure(explain, self.trials)]
            found.append(measure_faithfulness(network, explain, images, targets))
            frames += [frame.assign(model=name) for frame in found]
        frame = pd.concat(frames, ignore_index=True)
        path = self.page_folder / f"localisation-seed{self.seed}.json"
        write_scores(path, self.compared, self.seed, frame, self.method, self.layer)
        return frame

    def measure_ways(self, ways: Sequence[tuple[str, str]]) -> "pd.DataFrame":
        """Score other methods and layers on fewer cases.

        Args:
            ways: pairs of method and layer.
        Returns:
            The columns of `trials.measure`, with model, method and layer; of the first trial.
        """
        import pandas as pd

        frames = [
            measure(explainer(network, method, layer), self.few[:1]).assign(
                model=name, method=method, layer=layer
            )
            for method, layer in ways
            for name, network in self.networks.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def curves(self, trial: str) -> dict[str, np.ndarray]:
        """Mean IoU over the cases of a trial at each of `localisation.THRESHOLDS`, by network."""
        chosen = next(t for t in self.trials if t.name == trial)
        return {
            name: iou_curve(
                chosen.ask(explainer(network, self.method, self.layer)), chosen.masks, THRESHOLDS
            ).mean(0)
            for name, network in self.networks.items()
        }

    def examples(self, num_right: int = 4, num_split: int = 4) -> "Examples":
        """Images for all networks side by side: some that all get right, then some on which they
        disagree; drawn at random, and any images where there are none of either kind."""
        labels = self.compared.dataset.y_test
        said = np.stack([run.test_logits()[0].argmax(1) for run in self.runs])  # (networks, N)
        agreed = (said == said[0]).all(0)
        rng = np.random.default_rng(DRAW)
        right = rng.permutation(np.flatnonzero(agreed & (said[0] == labels)))[:num_right]
        split = rng.permutation(np.flatnonzero(~agreed & (said == labels).any(0)))[:num_split]
        chosen = np.concatenate([right, split])
        return self._explained(chosen if len(chosen) else np.arange(min(num_right, len(labels))))

    def _explained(self, index: np.ndarray) -> "Examples":
        images = self.compared.images(index)
        found = {
            name: compute_maps(network, images, method=self.method, layer=self.layer)
            for name, network in self.networks.items()
        }
        return Examples(
            index=index,
            images=self.compared.dataset.x_test[index],
            labels=self.compared.dataset.y_test[index],
            classes=self.compared.dataset.classes,
            maps={name: one.maps for name, one in found.items()},
            logits={name: one.logits for name, one in found.items()},
        )

    def grid_examples(self, count: int = 3) -> "GridExamples":
        """A case of each of the first 2 x 2 grids, with every network's map of the whole grid."""
        trial = self.trials[0]
        cases = trial.grids
        chosen = np.unique(cases.grid_of, return_index=True)[1][:count]
        images = cases.images(cases.grid_of[chosen])
        targets = torch.from_numpy(cases.targets[chosen])
        return GridExamples(
            images=_shown(images, self.runs[0]),
            masks=trial.masks[chosen],
            targets=cases.targets[chosen],
            classes=self.compared.dataset.classes,
            maps={
                name: explainer(network, self.method, self.layer)(images, targets)
                for name, network in self.networks.items()
            },
        )


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Images with the maps of several networks.

    Attributes:
        index: (M,), places in the split.
        images: (M, H, W, 3) uint8.
        labels: (M,), their classes.
        classes: names.
        maps: (M, H, W) of each network, raw, for the class it names.
        logits: (M, K) of each network.
    """

    index: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    maps: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class GridExamples:
    """Grids with the maps of several networks for one of the classes on each.

    Attributes:
        images: (M, H, W, 3) uint8.
        masks: (M, H, W) bool, the tile of the class.
        targets: (M,), the class explained.
        classes: names.
        maps: (M, H, W) of each network, raw.
    """

    images: np.ndarray
    masks: np.ndarray
    targets: np.ndarray
    classes: Sequence[str]
    maps: dict[str, np.ndarray]


def _shown(images: Tensor, run: RunRecord) -> np.ndarray:
    """Normalised images (M, C, H, W) as (M, H, W, C) uint8."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (run.mean, run.std))
    pixels = (255 * (images * std + mean)).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()


def open_study(
    study: str,
    models: Sequence[str],
    seed: int = 0,
    *,
    runs_root: str = str(DEFAULT_ROOT),
    method: str = "gradcam",
    layer: str = "last",
    grids: int = 100,
    page_folder: str = "",
) -> CamStudy:
    """Load the networks of one seed and draw what they are asked.

    Args:
        study: the study's name.
        models: registry names; those without a finished run are left out.
        seed: whose networks are loaded; the images are those that all seeds get right.
        runs_root: folder of the studies' folders.
        method: as in `cam.compute_maps`.
        layer: likewise.
        grids: grids of each size; five times as many objects, a quarter as many images for
            deletion, insertion and ROAD.
        page_folder: where page and scores go; empty: outputs/reports/<study>.
    Raises:
        RecordError: no run of the seed has finished, or what `trials.compare` raises.
        DataError: the data has too few classes for grids and mosaics.
    """
    keep_freed_memory()  # or each batch would have its memory mapped and cleared anew
    compared = compare(study, models, runs_root)
    runs = compared.of_seed(seed)
    if not runs:
        seeds = ", ".join(map(str, sorted({run.seed for run in compared.runs})))
        raise RecordError(f"study {study} has no finished run of seed {seed}; there are: {seeds}")
    trials = make_trials(compared, grids, OBJECTS_A_GRID * grids)
    if not trials or trials[0].grids is None:
        raise DataError(f"grids need at least three classes; {compared.dataset.name} has too few")
    return CamStudy(
        compared=compared,
        seed=seed,
        runs=runs,
        networks={run.model: run.load_model() for run in runs},
        trials=trials,
        few=make_trials(compared, max(grids // FEW, 1), 0),
        method=method,
        layer=layer,
        num_removals=max(grids // GRIDS_A_REMOVAL, LEAST_REMOVALS),
        page_folder=Path(page_folder or anchored("outputs/reports") / study),
    )
