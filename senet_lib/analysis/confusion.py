"""Which classes a network takes for which."""

import numpy as np


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many images of each class were taken for each class.

    Args:
        logits: (N, K).
        labels: (N,), integer.
    Returns:
        (K, K), int64; row: true class, column: predicted class.
    """
    matrix = np.zeros((logits.shape[1],) * 2, np.int64)
    np.add.at(matrix, (labels, logits.argmax(1)), 1)
    return matrix
