"""Maps of several networks on the same images: what the Grad-CAM notebook shows of one seed."""

# Legend: M images or cases, H W size.

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from senet_lib.analysis import trials
from senet_lib.analysis.gates import untrained_network
from senet_lib.analysis.grids import Explain
from senet_lib.analysis.scores import USUAL, write_scores
from senet_lib.device import keep_freed_memory
from senet_lib.errors import DataError, RecordError
from senet_lib.runs.records import DEFAULT_ROOT, anchored

OBJECTS_A_GRID, GRIDS_A_REMOVAL, LEAST_REMOVALS = 5, 4, 4
FEW = 4  # the other methods and layers are tried on a quarter of the cases


class CamStudy:
    """The networks of one seed, with everything they are asked: `compared`, all runs that the
    images were chosen by; `runs` and `networks` of the seed, by name and in eval mode; `trials`.

    Args:
        study, models, runs_root, config: as in `trials.compare`, whose errors these are.
        seed: whose networks are loaded; the images are those that all seeds get right.
        method, layer: of the maps, as in `cam.compute_maps`.
        grids: of each size; five times as many objects, a quarter as many images for ROAD.
        page_folder: where page and scores go; empty: outputs/reports/<study>, without scores.
    """

    def __init__(
        self,
        study: str,
        models: Sequence[str],
        seed: int = 0,
        *,
        runs_root: str = str(DEFAULT_ROOT),
        method: str = "gradcam",
        layer: str = "last",
        grids: int = 100,
        page_folder: str = "",
        config: str = "",
    ) -> None:
        keep_freed_memory()  # or each batch would have its memory mapped and cleared anew
        self.compared = compared = trials.compare(study, models, runs_root, config)
        self.seed, self.method, self.layer = seed, method, layer
        self.runs = [run for run in compared.runs if run.seed == seed]
        if not self.runs:
            seeds = ", ".join(map(str, sorted({run.seed for run in compared.runs})))
            raise RecordError(f"study {study} has no finished run of seed {seed}, but of {seeds}")
        self.trials = trials.make_trials(compared, grids, OBJECTS_A_GRID * grids)
        if not self.trials or self.trials[0].grids is None:
            raise DataError(
                f"no mosaic can be made of {compared.dataset.name}: of the {len(compared.kept):,} "
                "images to use, fewer than two classes have two"
            )
        few = max(OBJECTS_A_GRID * grids // FEW, 1)
        self.few = trials.make_trials(compared, max(grids // FEW, 1), few)
        self.networks = {run.network: run.load_model() for run in self.runs}
        self.num_removals = max(grids // GRIDS_A_REMOVAL, LEAST_REMOVALS)
        # The report and the claims are about these, and not about a look by hand.
        self.keeps_scores = bool(page_folder) and (method, layer) == USUAL
        self.page_folder = Path(page_folder or anchored("outputs/reports") / study)

    def explain(self, network: nn.Module) -> Explain:
        """What gives a network's raw maps by the method and layer that were asked for."""
        return trials.explainer(network, self.method, self.layer)

    def measure(self) -> pd.DataFrame:
        """Score every network on every trial and by faithfulness; scores of Grad-CAM's maps at the
        last layer are written beside the page, if its folder was given. A bar counts the images of
        all grids, unless $SENET_PROGRESS is log or none.

        Returns:
            Model, the columns of `trials.measure`, and untrained: what the maps of the network
            score before training, on fewer cases.
        """
        data, index = self.compared.dataset, self.compared.kept[: self.num_removals]
        images, targets = self.compared.images(index), torch.from_numpy(data.y_test[index])
        frames, pixels = [], data.x_test[0, ..., 0].size
        work = sum(trial.masks.size for trial in (*self.trials, *self.few)) // pixels + len(index)
        unwatched = os.environ.get("SENET_PROGRESS") in ("log", "none")  # as in a batch
        look = {"unit": "image", "smoothing": 0, "disable": unwatched}
        with tqdm(total=work * len(self.networks), **look) as bar:

            def counted(network: nn.Module, *asked: torch.Tensor) -> np.ndarray:
                maps = self.explain(network)(*asked)
                bar.update(maps.size // pixels)
                return maps

            for run, (name, network) in zip(self.runs, self.networks.items(), strict=True):
                bar.set_description(name)
                explain = partial(counted, network)
                untrained = partial(counted, untrained_network(run, data.x_test))
                before = trials.measure(untrained, self.few)
                before = before.set_index(["trial", "metric"])["score"].rename("untrained")
                found = trials.measure(explain, self.trials).join(before, on=["trial", "metric"])
                faithful = trials.measure_faithfulness(network, explain, images, targets)
                frames += [frame.assign(model=name) for frame in (found, faithful)]
        frame = pd.concat(frames, ignore_index=True)
        if self.keeps_scores:
            path = self.page_folder / f"localisation-seed{self.seed}.json"
            write_scores(path, self.compared, self.seed, frame)
        return frame
