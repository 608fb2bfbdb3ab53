"""What "the IoU of a Grad-CAM map" could mean, and the order in which the networks are claimed."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from senet_lib.analysis.localisation import METRICS
from senet_lib.analysis.scores import IOU_METRICS, StudyScores
from senet_lib.analysis.trials import TRIAL_LABELS
from senet_lib.claims.claim import Claim

CHOSEN = ("grid2", "iou_at_half")
"""The one definition that an IoU is judged by, chosen before any network of the protocol was there:
the source thresholds its maps, for which half of the maximum is the usual level, and a grid of two
by two tiles is the least that gives an exact mask on CIFAR-10."""


def claimed_order(claims: Iterable[Claim]) -> dict[str, float]:
    """The claimed Grad-CAM IoU of each network, the highest first."""
    claimed = {c.models[0]: c.middle for c in claims if c.measure == "localisation"}
    return dict(sorted(claimed.items(), key=lambda pair: -pair[1]))


class Definition(NamedTuple):
    """One meaning that "the IoU of the map" could have, and what the networks score by it."""

    trial: str
    metric: str
    means: Mapping[str, float]  # over the seeds, by network
    ordered: bool  # whether the means stand in the claimed order
    seeds: int  # that all networks have

    @property
    def label(self) -> str:
        """Metric and trial in words."""
        return f"{METRICS[self.metric].label}, {TRIAL_LABELS[self.trial]}"


def definitions(scores: StudyScores, order: Sequence[str]) -> list[Definition]:
    """A definition for each trial and each of `IOU_METRICS` that all networks have scores of; the
    networks in the order claimed, the highest first."""
    found = []
    for trial, metric in itertools.product(scores.frame["trial"].unique(), IOU_METRICS):
        values = [scores.per_seed(model, trial, metric) for model in order]
        if all(values):
            means = [float(np.mean(list(by_seed.values()))) for by_seed in values]
            falls = all(a > b for a, b in itertools.pairwise(means))
            seeds = len(set.intersection(*map(set, values)))
            by_model = dict(zip(order, means, strict=True))
            found.append(Definition(trial, metric, by_model, falls, seeds))
    return found
