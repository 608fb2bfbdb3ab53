"""What the stored logits of finished runs say without any training: spread, calibration, classes.

A run stores the logits of every evaluated image. Over the seeds of a network they tell how much of
the spread of its error the finite test set makes, and how sure each prediction was of itself.
"""

# Legend: S seeds, N images, K classes.

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.families import label
from senet_lib.errors import SenetError
from senet_lib.evaluation import probabilities
from senet_lib.runs.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

BINS = 15


def correct_matrix(runs: Sequence[RunRecord]) -> np.ndarray:
    """Which images each run classifies correctly.

    Args:
        runs: of one network, a seed each, evaluated on the same images.
    Returns:
        (S, N) bool, the runs in the order given.
    Raises:
        SenetError: the runs were evaluated on different images.
    """
    stored = [run.test_logits() for run in runs]
    labels = [one[1] for one in stored]
    if any(not np.array_equal(labels[0], other) for other in labels[1:]):
        raise SenetError("the runs were evaluated on different images, so that they do not compare")
    return np.array([logits.argmax(1) == truth for logits, truth in stored])


def split_variance(correct: np.ndarray) -> tuple[float, float]:
    """The variance of an error over seeds, and the part of it that the finite test set makes.

    An error is a mean over images, so its variance is that of single images, summed, and the
    covariances between them. The first sum alone would be there if each image were got wrong with a
    chance of its own; what is left is what the networks really differ by. Both estimates are
    unbiased, so that what is left may come out below zero.

    Args:
        correct: (S, N) bool, two seeds or more.
    Returns:
        Variance (n - 1) of the error over seeds, and the part of the finite test set.
    Raises:
        SenetError: there are fewer than two seeds.
    Source: Jordan 2023 (arXiv:2304.01910), section 3.
    """
    if len(correct) < 2:
        raise SenetError(f"{len(correct)} seed has no spread to split; it takes two")
    images = correct.shape[1]
    total = correct.mean(1).var(ddof=1)
    return float(total), float(correct.var(0, ddof=1).sum() / images**2)


def spread_split(groups: "dict[str, Sequence[RunRecord]]") -> "pd.DataFrame":
    """The spread of every network over seeds, split by where it comes from.

    Args:
        groups: runs of each network, a seed each; those with one seed are left out.
    Returns:
        model, n, images, sd (over seeds), sd_images (what the finite test set makes), sd_networks
        (what the networks really differ by, 0 where its estimated variance is below zero) and
        share_images (the former's share of the variance, above 1 in that case). The last row, "all
        networks", pools the variances, by degrees of freedom.
    Raises:
        SenetError: runs of one network were evaluated on different images.
    """
    import pandas as pd

    rows = []
    for model, runs in groups.items():
        if len(runs) > 1:
            correct = correct_matrix(runs)
            rows.append((model, *correct.shape, len(runs) - 1, *split_variance(correct)))
    frame = pd.DataFrame(rows, columns=["model", "n", "images", "df", "total", "finite"])
    if rows:
        n, images = frame["n"].sum(), frame["images"].max()
        dfs, *parts = np.array([row[3:] for row in rows]).T
        pooled = (dfs @ part / dfs.sum() for part in parts)
        frame.loc[len(frame)] = ("all networks", n, images, 0, *pooled)
    total, finite = frame["total"], frame["finite"]
    return frame[["model", "n", "images"]].assign(
        sd=np.sqrt(total),
        sd_images=np.sqrt(finite),
        sd_networks=np.sqrt((total - finite).clip(lower=0)),
        share_images=finite / total.where(total > 0),
    )


def calibration(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> "pd.DataFrame":
    """A reliability diagram: how often predictions of each confidence are right.

    Args:
        logits: (N, K).
        labels: (N,), integer.
        bins: of equal width, over confidences from 0 to 1.
    Returns:
        A row a bin: low, high, count, confidence and accuracy (means; NaN in an empty bin). A
        confidence on a border belongs to the lower bin.
    Raises:
        SenetError: there is no bin, or no image.
    """
    import pandas as pd

    if bins < 1 or not len(labels):
        raise SenetError(f"{bins} bins and {len(labels)} images; both must be at least 1")
    confidence, right = probabilities(logits).max(1), logits.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = {"confidence": np.bincount(place, confidence, bins),
            "accuracy": np.bincount(place, right, bins)}  # fmt: skip
    means = {name: total / np.where(count > 0, count, np.nan) for name, total in sums.items()}
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": count, **means})


def calibration_error(table: "pd.DataFrame") -> float:
    """Mean distance of confidence and accuracy over the bins of `calibration`, by their counts.

    Source: Naeini et al. 2015 (AAAI); Guo et al. 2017 (arXiv:1706.04599).
    """
    gaps = (table["confidence"] - table["accuracy"]).abs().fillna(0)
    return float((gaps * table["count"]).sum() / table["count"].sum())


def calibration_frame(runs: Sequence[RunRecord]) -> "pd.DataFrame":
    """How well each run knows how often it is right: a row a run, with model, seed, ece (its
    `calibration_error`), confidence (mean) and accuracy."""
    import pandas as pd

    rows = []
    for run in runs:
        logits, labels = run.test_logits()
        sure, right = probabilities(logits).max(1).mean(), (logits.argmax(1) == labels).mean()
        ece = calibration_error(calibration(logits, labels))
        rows.append((label(run), run.seed, ece, float(sure), float(right)))
    return pd.DataFrame(rows, columns=["model", "seed", "ece", "confidence", "accuracy"])


def class_errors(runs: Sequence[RunRecord]) -> "pd.DataFrame":
    """The error of each run on each class: model, seed, class (its name), images and error."""
    import pandas as pd

    rows = []
    for run in runs:
        logits, labels = run.test_logits()
        wrong = pd.Series(logits.argmax(1) != labels).groupby(labels)
        rows += [(label(run), run.seed, run.classes[k], len(one), one.mean()) for k, one in wrong]
    return pd.DataFrame(rows, columns=["model", "seed", "class", "images", "error"])
