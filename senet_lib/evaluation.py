"""Logits, loss and error of a network over a set of images."""

# Legend: N images, H height, W width, K classes.

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from senet_lib.data.augment import normalise
from senet_lib.device import rounding


@contextmanager
def evaluating(model: nn.Module, *, tf32: bool = False) -> Iterator[None]:
    """Eval mode within, and each module's own mode afterwards; for tf32 see `rounding`."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with rounding(tf32=tf32):
            yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def predict(
    model: nn.Module,
    images: torch.Tensor | np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> torch.Tensor:
    """Logits of every image, (N, K) float32, computed in eval mode on the model's device.

    Args:
        model: a float32 classifier; its training mode is put back afterwards.
        images: (N, H, W, 3), uint8.
        mean, std: of each colour channel, in [0, 1].
        batch_size: images at a time; bounds the memory, not the result. By default 500, and 50 on
            a CPU, whose caches the maps of more would leave.
        precision: "fp32", or "bf16" for bf16 autocast.
    """
    device = next(model.parameters()).device
    if batch_size is None:
        batch_size = 50 if device.type == "cpu" else 500
    images = torch.as_tensor(images)
    with (
        evaluating(model, tf32=precision != "fp32"),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        parts = [
            model(normalise(batch.to(device, non_blocking=True), mean, std)).float()
            for batch in images.split(batch_size)
        ]
    return torch.cat(parts)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64, of logits (..., K)."""
    return torch.as_tensor(logits).double().softmax(-1).numpy()


def probability_text(probability: float) -> str:
    """With a decimal, and never rounded up to certainty."""
    return "over 99.9 %" if probability > 0.999 else f"{100 * probability:.1f} %"


def error_and_loss(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Share of wrong predictions, mean cross-entropy in nats; logits (N, K) and labels (N,)."""
    wrong = (logits.argmax(1) != labels).cpu().double().mean()  # MPS has no float64
    return wrong.item(), F.cross_entropy(logits.float(), labels).item()
