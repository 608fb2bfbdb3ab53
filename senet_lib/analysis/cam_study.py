"""Maps of several networks on the same images: what the Grad-CAM notebook shows of one seed."""

# Legend: M images or cases, H W size.

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from senet_lib.analysis.cam import compute_maps
from senet_lib.analysis.gates import untrained_network
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
        page.

        Returns:
            Columns model, those of `trials.measure`, and untrained: what the maps of the network
            score before training, on fewer cases.
        """
        import pandas as pd

        index = self.compared.kept[: self.num_removals]
        images = self.compared.images(index)
        targets = torch.from_numpy(self.compared.dataset.y_test[index])
        frames = []
        for run in self.runs:
            network = self.networks[run.model]
            explain = explainer(network, self.method, self.layer)
            fresh = untrained_network(run, self.compared.dataset.x_test)
            before = measure(explainer(fresh, self.method, self.layer), self.few)
            before = before.set_index(["trial", "metric"])["score"].rename("untrained")
            found = [
                measure(explain, self.trials).join(before, on=["trial", "metric"]),
                measure_faithfulness(network, explain, images, targets),
            ]
            frames += [frame.assign(model=run.model) for frame in found]
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
        """Images with every network's map for the class it names.

        Args:
            num_right: images that all networks get right, drawn at random.
            num_split: then images on which they disagree, one of them being right.
        Returns:
            The images; the first of the split where there are none of either kind.
        """
        data = self.compared.dataset
        said = np.stack([run.test_logits()[0].argmax(1) for run in self.runs])  # (networks, N)
        agreed = (said == said[0]).all(0)
        rng = np.random.default_rng(DRAW)
        right = rng.permutation(np.flatnonzero(agreed & (said[0] == data.y_test)))[:num_right]
        split = rng.permutation(np.flatnonzero(~agreed & (said == data.y_test).any(0)))[:num_split]
        index = np.concatenate([right, split])
        index = index if len(index) else np.arange(min(num_right, len(data.y_test)))
        images = self.compared.images(index)
        found = {
            name: compute_maps(network, images, method=self.method, layer=self.layer)
            for name, network in self.networks.items()
        }
        return Examples(
            images=data.x_test[index],
            labels=data.y_test[index],
            maps={name: one.maps for name, one in found.items()},
            logits={name: one.logits for name, one in found.items()},
            index=index,
        )

    def grid_examples(self, count: int = 3) -> "Examples":
        """A case of each of the first `count` 2 x 2 grids, with maps of the whole grid."""
        trial = self.trials[0]
        cases = trial.grids
        chosen = np.unique(cases.grid_of, return_index=True)[1][:count]
        images = cases.images(cases.grid_of[chosen])
        targets = torch.from_numpy(cases.targets[chosen])
        return Examples(
            images=_shown(images, self.runs[0]),
            labels=cases.targets[chosen],
            maps={
                name: explainer(network, self.method, self.layer)(images, targets)
                for name, network in self.networks.items()
            },
            masks=trial.masks[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Images or grids with the maps of several networks.

    Attributes:
        images: (M, H, W, 3) uint8.
        labels: (M,), their classes; of a grid the class explained.
        maps: (M, H, W) of each network, raw; of an image for the class that the network names.
        logits: (M, K) of each network; none of grids.
        masks: (M, H, W) bool, the tile of the class; None of images.
        index: (M,), places in the split; None of grids.
    """

    images: np.ndarray
    labels: np.ndarray
    maps: dict[str, np.ndarray]
    logits: dict[str, np.ndarray] = field(default_factory=dict)
    masks: np.ndarray | None = None
    index: np.ndarray | None = None


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
        few=make_trials(compared, max(grids // FEW, 1), max(OBJECTS_A_GRID * grids // FEW, 1)),
        method=method,
        layer=layer,
        num_removals=max(grids // GRIDS_A_REMOVAL, LEAST_REMOVALS),
        page_folder=Path(page_folder or anchored("outputs/reports") / study),
    )
