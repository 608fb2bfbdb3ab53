"""What one run is, what it cost, and what its network gets wrong."""

# Legend: N images, K classes.

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.families import label
from senet_lib.errors import counted
from senet_lib.evaluation import probabilities
from senet_lib.report.table import Text, escape
from senet_lib.runs.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One misclassified image.

    Attributes:
        index: its place among the evaluated images.
        true: its label.
        predicted: the class with the largest logit.
        confidence: softmax probability of that class, in (0, 1].
    """

    index: int
    true: int
    predicted: int
    confidence: float

    def title(self, classes: Sequence[str]) -> str:
        """Two lines: what it is, and what it was taken for."""
        said = f"taken for {classes[self.predicted]} ({100 * self.confidence:.0f} %)"
        return f"{classes[self.true]}\n{said}"


def confident_mistakes(logits: np.ndarray, labels: np.ndarray, count: int) -> list[Mistake]:
    """The misclassified images with the highest confidence, highest first; ties by index.

    Args:
        logits: (N, K).
        labels: (N,), integer.
        count: how many at most.
    """
    confidence = probabilities(logits).max(1)
    predicted = logits.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")[:count]]
    return [
        Mistake(
            index=int(i),
            true=int(labels[i]),
            predicted=int(predicted[i]),
            confidence=float(confidence[i]),
        )
        for i in chosen
    ]


def run_facts(run: RunRecord) -> "pd.DataFrame":
    """What one run is, and what it cost: a value a fact, as text."""
    import pandas as pd

    speed = run.images_per_second
    pairs = {
        f"{run.evaluated_on} error": f"{100 * run.test_error:.2f} %",
        "parameters": f"{run.num_params:,}",
        "multiply-accumulates for one image": f"{run.macs:,}",
        "epochs": run.recipe["epochs"],
        "wall time": f"{run.wall_seconds / 60:.1f} minutes",
        "training speed, once warm": "too short to tell"
        if speed is None
        else f"{speed:,.0f} images/s",
        "peak memory": f"{run.peak_memory_mib:,.0f} MiB",
        "device, precision": f"{run.computed_on}, {counted(run.threads, 'CPU thread')}",
        "machine": run.machine,
        "versions": ", ".join(f"{k} {v}" for k, v in run.versions.items()),
        "source commit": run.commit,
        "data fingerprint": run.data_fingerprint,
        "folder": os.path.relpath(run.path),
    }
    names = pd.Index(list(pairs), name="fact")
    return pd.DataFrame({"value": [str(value) for value in pairs.values()]}, index=names)


def run_answer(run: RunRecord) -> Text:
    """What one run has shown, in a paragraph."""
    logits, labels = run.test_logits()
    matrix = confusion_matrix(logits, labels)
    share = 1 - np.diag(matrix) / np.maximum(matrix.sum(1), 1)
    hardest = int(share.argmax())
    guess = 1 - matrix.sum(1).max() / matrix.sum()
    history = run.history
    falling = (history["train_loss"].diff().dropna() < 0).all()
    return Text(
        f"After {counted(run.recipe['epochs'], 'epoch')} **{escape(label(run))}** (seed "
        f"{run.seed}) is wrong on **{100 * run.test_error:.2f} %** of {len(labels):,} "
        f"{run.evaluated_on} images; always naming the commonest class would be wrong on "
        f"{100 * guess:.2f} %. The training loss "
        f"{'fell in every epoch' if falling else 'did not fall in every epoch'}, to "
        f"{run.train_loss:.3f}. The hardest class is {escape(run.classes[hardest])}: "
        f"{100 * share[hardest]:.0f} % of its images are taken for something else. Training took "
        f"{run.wall_seconds / 60:.1f} minutes on {run.device}."
    )
