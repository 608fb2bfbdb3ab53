"""What the stored logits of finished runs say: how much of the spread of an error over seeds the
finite test set makes, and how sure each prediction was of itself."""

# Legend: S seeds, N images, K classes.

from collections.abc import Sequence

import numpy as np
import pandas as pd

from senet_lib.errors import SenetError
from senet_lib.evaluation import probabilities
from senet_lib.runs.records import RunRecord, check_records

BINS = 15


def correct_matrix(runs: Sequence[RunRecord]) -> np.ndarray:
    """Which images each run classifies correctly, (S, N) bool; SenetError if the runs were not
    evaluated on the same images."""
    check_records(runs)
    stored = [run.test_logits() for run in runs]
    if any(not np.array_equal(stored[0][1], labels) for _, labels in stored):
        raise SenetError("the runs were evaluated on different images, so that they do not compare")
    return np.array([logits.argmax(1) == truth for logits, truth in stored])


def split_variance(correct: np.ndarray) -> tuple[float, float]:
    """The variance (n - 1) of an error over seeds, and the part of it that the test set makes, of
    which images each seed gets right, (S, N) bool, two seeds or more.

    An error is a mean over images, so its variance is that of single images, summed, and the
    covariances between them, which are what the networks really differ by. Both estimates are
    unbiased, so that what is left may come out below zero.

    Source: Jordan 2023 (arXiv:2304.01910), section 3.
    """
    if len(correct) < 2:
        raise SenetError(f"{len(correct)} seed has no spread to split; it takes two")
    images = correct.shape[1]
    total = correct.mean(1).var(ddof=1)
    return float(total), float(correct.var(0, ddof=1).sum() / images**2)


def spread_split(groups: "dict[str, Sequence[RunRecord]]") -> pd.DataFrame:
    """The spread of every network over seeds, split by where it comes from.

    Args:
        groups: runs of each network, a seed each; those with one seed are left out.
    Returns:
        model, n, images, sd (over seeds), sd_images (what the finite test set makes), sd_networks
        (what the networks really differ by, 0 where its estimated variance is below zero) and
        share_images (the former's share of the variance, above 1 in that case). The last row, "all
        networks", pools the variances, by degrees of freedom.
    """
    rows = []
    for model, runs in groups.items():
        if len(runs) > 1:
            correct = correct_matrix(runs)
            rows.append((model, *correct.shape, *split_variance(correct)))
    frame = pd.DataFrame(rows, columns=["model", "n", "images", "total", "finite"])
    if rows:
        df = frame["n"] - 1
        pooled = (df @ frame[part] / df.sum() for part in ("total", "finite"))
        frame.loc[len(frame)] = ("all networks", frame["n"].sum(), frame["images"].max(), *pooled)
    total, finite = frame["total"], frame["finite"]
    return frame[["model", "n", "images"]].assign(
        sd=np.sqrt(total),
        sd_images=np.sqrt(finite),
        sd_networks=np.sqrt((total - finite).clip(lower=0)),
        share_images=finite / total.where(total > 0),
    )


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy over bins of equal width from 0 to 1, by their
    counts; a confidence on a border belongs to the lower bin. Logits (N, K), labels (N,), N at
    least 1.

    Source: Naeini et al. 2015 (AAAI); Guo et al. 2017 (arXiv:1706.04599).
    """
    sure, right = probabilities(logits).max(1), logits.argmax(1) == labels
    places = pd.cut(sure, np.linspace(0, 1, bins + 1), include_lowest=True)
    gaps = pd.Series(sure - right).groupby(places, observed=True).sum().abs()
    return float(gaps.sum() / len(labels))
