"""Whether a network's output depends on the pixels that a map ranks high.

No region is needed: pixels are removed or put back in the order of the map and the network is asked
again. Maps are taken raw, for only their order counts; pixels with equal values come in an order
drawn anew for each image, so that a uniform map removes pixels at random, which is the score to
compare with.
"""

# Legend: N images, C channels, P = H W pixels, K classes, R removals along a curve.

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse.linalg import spsolve
from torch import Tensor, nn

from senet_lib.errors import DataError, SenetError, unknown
from senet_lib.evaluation import evaluating

SUBSTRATES = ("zero", "blur")
FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# RISE blurs with these, 11 pixels and a deviation of 5, on images of 224.
_BLUR_SIZE, _BLUR_SIGMA = 11, 5.0


def removal_curve(
    model: nn.Module,
    images: Tensor,
    maps: np.ndarray,
    targets: Tensor,
    *,
    rng: np.random.Generator,
    insert: bool = False,
    substrate: str = "",
    steps: int = 32,
    batch_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of a class while pixels are removed or put back, highest first.

    Args:
        model: any classifier; run in eval mode, its modes are put back.
        images: (N, C, H, W), normalised floats.
        maps: (N, H, W), any float, finite.
        targets: (N,) int64, the classes explained.
        rng: orders pixels with equal values.
        insert: put pixels back instead of removing them; then higher areas are better.
        substrate: what takes a pixel's place: "zero", which for a normalised image is the mean
            colour, or "blur", the image blurred (Gaussian of 11 pixels and deviation 5). By default
            zero for removal, blur for insertion.
        steps: equal removals until none is left, 1 to H W; the curve has one point more.
        batch_size: images at a time; bounds the memory, not the result.
    Returns:
        Shares of the pixels changed, (steps + 1,), and probabilities, (N, steps + 1), float64; see
        `area`.
    Source: Petsiuk et al. 2018 (RISE).
    Differs from the paper: the blur mirrors the image at its border, where theirs pads with zeros.
    """
    substrate = substrate or ("blur" if insert else "zero")
    images, maps, classes = _fitting(images, maps, targets)
    pixels = maps[0].size
    if not 1 <= steps <= pixels:
        raise SenetError(f"steps is {steps}; it must be from 1 to {pixels}, the number of pixels")
    if substrate not in SUBSTRATES:
        raise unknown("substrate", substrate, SUBSTRATES)
    counts = [round(step * pixels / steps) for step in range(steps + 1)]
    probabilities = np.empty((len(images), steps + 1))
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        rank = np.argsort(_order(maps[part], rng), axis=1)
        rank = torch.from_numpy(rank).reshape(-1, 1, *images.shape[-2:])  # (B, 1, H, W)
        before, after = images[part], _substrate(images[part], substrate)
        if insert:
            before, after = after, before
        for step, count in enumerate(counts):
            batch = torch.where(rank < count, after, before)
            probabilities[part, step] = _probability(model, batch, classes[part])
    return np.array(counts) / pixels, probabilities


def area(shares: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Area under each image's `removal_curve` by the trapezoid rule, (N,), in [0, 1]."""
    return np.trapezoid(probabilities, shares, axis=1)


def road_curves(
    model: nn.Module,
    images: Tensor,
    maps: np.ndarray,
    targets: Tensor,
    *,
    rng: np.random.Generator,
    fractions: Sequence[float] = FRACTIONS,
    noise: float | Sequence[float] = 0.01,
    batch_size: int = 256,
) -> np.ndarray:
    """Remove and debias: replace pixels by noisy linear imputation and look at the class again.

    A replaced pixel is the weighted mean of its eight neighbours, 1/6 each beside it and 1/12 each
    across a corner, solved for all replaced pixels at once, plus normal noise. pytorch-grad-cam's
    `NoisyLinearImputer`, the authors' own code, sets up the equations and scipy solves them. The
    order of the pixels and the noise are drawn here: the package removes all pixels that tie with
    its threshold, which for a map with many zeros can be the whole image, and does not seed.

    Args:
        model, images, maps, targets, batch_size: as in `removal_curve`.
        rng: orders pixels with equal values and draws the noise.
        fractions: F parts of the pixels to replace, each in (0, 1).
        noise: standard deviation in the unit of the images, one number or one a channel. The
            published 0.01 is of images in [0, 1]; on normalised images it is 0.01 / std.
    Returns:
        Probability of the class, (2, N, F): the highest pixels replaced (MoRF), and the lowest
        (LeRF); see `road`.
    Source: Rong et al. 2022 (arXiv:2202.00449).
    """
    images, maps, classes = _fitting(images, maps, targets)
    pixels = maps[0].size
    counts = [round(fraction * pixels) for fraction in fractions]
    if not counts or not all(0 < count < pixels for count in counts):
        raise SenetError(
            f"fractions {list(fractions)} of {pixels} pixels must replace some pixels, not all"
        )
    sigma = np.broadcast_to(np.asarray(noise, np.float64), (images.shape[1],))
    probabilities = np.empty((2, len(images), len(counts)))
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        order = _order(maps[part], rng)
        for way, ranked in enumerate((order, order[:, ::-1])):
            for place, count in enumerate(counts):
                batch = _imputed(images[part], ranked[:, :count], sigma, rng)
                probabilities[way, part, place] = _probability(model, batch, classes[part])
    return probabilities


def road(most: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Mean over the fractions of (LeRF - MoRF) / 2, (N,); higher is better, 0 is chance."""
    return ((least - most) / 2).mean(axis=1)


def _fitting(
    images: Tensor, maps: np.ndarray, targets: Tensor
) -> tuple[Tensor, np.ndarray, Tensor]:
    """Images, maps and targets on the CPU, after a check that they fit together."""
    maps = np.asarray(maps)
    if images.ndim != 4 or maps.shape != (len(images), *images.shape[-2:]) or not len(maps):
        raise DataError(
            f"images {tuple(images.shape)} and maps {maps.shape} do not fit: they must be "
            "(N, C, H, W) and (N, H, W), N at least 1"
        )
    if not np.isfinite(maps).all():
        raise DataError("a map has a value that is not a finite number")
    if tuple(targets.shape) != (len(images),):
        raise DataError(f"targets {tuple(targets.shape)} for {len(images)} images")
    return images.cpu(), maps, targets.cpu().long()


@torch.inference_mode()
def _probability(model: nn.Module, images: Tensor, classes: Tensor) -> np.ndarray:
    """Softmax probability of one class an image, (B,) float64, in eval mode."""
    device = next((p.device for p in model.parameters()), images.device)
    with evaluating(model):
        logits = model(images.to(device)).double().cpu()
    return logits.softmax(1).gather(1, classes[:, None])[:, 0].numpy()


def _order(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B, P) int64: pixels from the highest to the lowest value, equal ones in random order."""
    flat = maps.reshape(len(maps), -1)
    return np.lexsort((rng.random(flat.shape), -flat), axis=1)


def _substrate(images: Tensor, name: str) -> Tensor:
    """What pixels turn into, (B, C, H, W)."""
    if name == "zero":
        return torch.zeros_like(images)
    from torchvision.transforms.functional import gaussian_blur

    if min(images.shape[-2:]) <= _BLUR_SIZE // 2:
        raise DataError(f"images of {tuple(images.shape[-2:])} pixels are too small to blur")
    return gaussian_blur(images, [_BLUR_SIZE, _BLUR_SIZE], [_BLUR_SIGMA, _BLUR_SIGMA])


def _imputed(
    images: Tensor, removed: np.ndarray, sigma: np.ndarray, rng: np.random.Generator
) -> Tensor:
    """Images whose removed pixels (B, count) are imputed from the others, plus noise."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer, neighbors_weights

    result = images.clone(memory_format=torch.contiguous_format)
    for image, pixels in zip(result, removed, strict=True):
        pixels = np.sort(pixels)
        known = np.ones(image.shape[-2:])
        known.flat[pixels] = 0
        # One equation for each removed pixel in ascending order, one right side for each channel.
        system, sides = NoisyLinearImputer.setup_sparse_system(
            known, image.numpy(), neighbors_weights
        )
        filled = spsolve(system.tocsc(), sides).reshape(sides.shape)
        filled += rng.standard_normal(filled.shape) * sigma
        image.view(len(image), -1)[:, pixels] = torch.from_numpy(filled.T).to(image.dtype)
    return result
