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
    """One meaning that "the IoU of the map" could have, and what the networks score by it.

    Attributes:
        trial: key of the trial.
        metric: key of the metric.
        means: over the seeds, by network.
        ordered: whether the means stand in the claimed order.
        seeds_ordered: seeds whose own scores stand in it.
        seeds: seeds that all networks have.
    """

    trial: str
    metric: str
    means: Mapping[str, float]
    ordered: bool
    seeds_ordered: int
    seeds: int

    @property
    def label(self) -> str:
        """Metric and trial in words."""
        return f"{METRICS[self.metric].label}, {TRIAL_LABELS[self.trial]}"


def definitions(scores: StudyScores, order: Sequence[str]) -> list[Definition]:
    """Every IoU that was measured, for networks in the order claimed, the highest first.

    Args:
        scores: of one study.
        order: the networks.
    Returns:
        A definition for each trial and each of `IOU_METRICS` that all networks have scores of.
    """
    found = []
    for trial, metric in itertools.product(scores.trials, IOU_METRICS):
        values = [scores.per_seed(model, trial, metric) for model in order]
        if all(values):
            shared = set.intersection(*map(set, values))
            means = [float(np.mean(list(by_seed.values()))) for by_seed in values]
            alike = sum(_falls([v[seed] for v in values]) for seed in shared)
            named = dict(zip(order, means, strict=True))
            found.append(Definition(trial, metric, named, _falls(means), alike, len(shared)))
    return found


def _falls(values: Sequence[float]) -> bool:
    """Whether each value lies below the one before."""
    return all(a > b for a, b in itertools.pairwise(values))
