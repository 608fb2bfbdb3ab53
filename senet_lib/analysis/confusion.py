"""Which classes a network takes for which, and which images."""

# Legend: N images, K classes.

import numpy as np

from senet_lib.evaluation import probabilities


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many images of each class (row) were taken for each class (column), (K, K) int64.

    Args:
        logits: (N, K).
        labels: (N,), integer.
    """
    k = logits.shape[1]
    return np.bincount(k * labels + logits.argmax(1), minlength=k**2).reshape(k, k)


def choose_images(
    logits: np.ndarray, labels: np.ndarray, true: int | str = "", said: int | str = ""
) -> np.ndarray:
    """Indices of the images that fit, those the network is surest of first; ties by index.

    Args:
        logits, labels: (N, K), and (N,) integer.
        true: the true class; "" for any.
        said: the predicted class, "right" or "wrong"; "" for any.
    """
    predicted = logits.argmax(1)
    fits = np.ones(len(labels), bool) if true == "" else labels == true
    if said in ("right", "wrong"):
        fits &= (predicted == labels) == (said == "right")
    elif said != "":
        fits &= predicted == said
    found = np.flatnonzero(fits)
    return found[np.argsort(-probabilities(logits[found]).max(1), kind="stable")]


def commonest(matrix: np.ndarray) -> list[tuple[int, int]]:
    """True and predicted class of the cells of a confusion matrix (K, K) that hold images: the
    commonest confusion first, right predictions last."""
    rank = np.where(np.eye(len(matrix)), 0.5, matrix)
    cells = np.argwhere(matrix)
    order = np.argsort(-rank[tuple(cells.T)], kind="stable")
    return [(int(true), int(said)) for true, said in cells[order]]
