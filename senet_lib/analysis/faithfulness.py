"""Whether a network's output depends on the pixels that a map ranks high.

Pixels are removed or put back in the order of the map and the network is asked again. Pixels with
equal values come in an order drawn anew for each image, so that a uniform map removes pixels at
random, which is the score to compare with.
"""

# Legend: N images, C channels, P = H W pixels, K classes, R removals along a curve.

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from scipy.sparse.linalg import spsolve
from torch import Tensor, nn

from senet_lib.analysis.statistics import check_rng
from senet_lib.errors import DataError, SenetError
from senet_lib.evaluation import evaluating

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BATCH = 32  # images at a time; bounds the memory, not the result


def removal_curve(
    model: nn.Module,
    before: Tensor,
    after: Tensor,
    maps: np.ndarray,
    targets: Tensor,
    *,
    rng: np.random.Generator,
    steps: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of a class while images turn into others, their highest pixels first.

    Deletion leads from images to zeros, the mean colour of a normalised image, and lower areas are
    better; insertion leads from `blurred` images to the sharp ones, and higher areas are.

    Args:
        model: any classifier; run in eval mode, its modes are put back.
        before, after: (N, C, H, W), normalised floats.
        maps: (N, H, W), any float, finite.
        targets: (N,) int64, the classes explained.
        rng: orders pixels with equal values.
        steps: equal removals until none is left, 1 to H W; the curve has one point more.
    Returns:
        Shares of the pixels changed, (steps + 1,), and probabilities, (N, steps + 1), float64; see
        `area`.
    Source: Petsiuk et al. 2018 (RISE).
    """
    before, maps, classes = _fitting(before, maps, targets)
    pixels, after = maps[0].size, after.cpu()
    if not 1 <= steps <= pixels:
        raise SenetError(f"steps is {steps}; it must be from 1 to {pixels}, the number of pixels")
    counts = [round(step * pixels / steps) for step in range(steps + 1)]
    rank = torch.from_numpy(np.argsort(_order(maps, rng), axis=1))
    rank = rank.reshape(-1, 1, *maps.shape[1:])  # (N, 1, H, W)
    mixed = (torch.where(rank < count, after, before) for count in counts)
    return np.array(counts) / pixels, _probabilities(model, mixed, classes)


def blurred(images: Tensor) -> Tensor:
    """Images (N, C, H, W) blurred as RISE does images of 224: a Gaussian of 11 pixels, deviation 5.

    Differs from the paper: it mirrors the image at its border, where theirs pads with zeros.
    """
    from torchvision.transforms.functional import gaussian_blur

    if min(images.shape[-2:]) <= 11 // 2:
        raise DataError(f"images of {tuple(images.shape[-2:])} pixels are too small to blur")
    return gaussian_blur(images, [11, 11], [5.0, 5.0])


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
    noise: float = 0.01,
) -> np.ndarray:
    """Remove and debias: replace pixels by noisy linear imputation and look at the class again.

    A replaced pixel is the weighted mean of its eight neighbours, 1/6 each beside it and 1/12 each
    across a corner, solved for all replaced pixels at once, plus normal noise. pytorch-grad-cam
    sets up the equations. Order and noise are drawn here: the package removes all pixels that tie
    with its threshold, which can be the whole image, and does not seed.

    Args:
        model, images, maps, targets: as in `removal_curve`.
        rng: orders pixels with equal values and draws the noise.
        fractions: F parts of the pixels to replace, some of them and not all.
        noise: standard deviation in the unit of the images; the published one is of images in
            [0, 1].
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
    order = _order(maps, rng)
    ways = ((ranked, count) for ranked in (order, order[:, ::-1]) for count in counts)
    worse = (_imputed(images, ranked[:, :count], noise, rng) for ranked, count in ways)
    found = _probabilities(model, worse, classes)  # (N, 2 F)
    return found.reshape(len(found), 2, -1).swapaxes(0, 1)


def road(most: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Mean over the fractions of (LeRF - MoRF) / 2, (N,); higher is better, 0 is chance."""
    return ((least - most) / 2).mean(axis=1)


def _fitting(
    images: Tensor, maps: np.ndarray, targets: Tensor
) -> tuple[Tensor, np.ndarray, Tensor]:
    """Images, maps and targets on the CPU, after a check that they fit together."""
    if maps.shape != (len(images), *images.shape[-2:]):
        raise DataError(f"maps {maps.shape} do not fit images {tuple(images.shape)}")
    if not np.isfinite(maps).all():
        raise DataError("a map has a value that is not a finite number")
    if tuple(targets.shape) != (len(images),):
        raise DataError(f"targets {tuple(targets.shape)} for {len(images)} images")
    return images.cpu(), maps, targets.cpu()


@torch.no_grad()
def _probabilities(model: nn.Module, versions: Iterable[Tensor], classes: Tensor) -> np.ndarray:
    """Softmax probability of one class an image, (N, V) float64, in eval mode, in each of V
    versions (N, C, H, W) of the images; as many as a batch holds go through the network at once."""
    device = next((p.device for p in model.parameters()), classes.device)
    versions, found = iter(versions), []
    with evaluating(model):
        while some := list(islice(versions, max(BATCH // max(len(classes), 1), 1))):
            parts = torch.cat(some).split(BATCH)
            logits = torch.cat([model(part.to(device)).cpu().double() for part in parts])
            asked = classes.repeat(len(some))[:, None]
            found += logits.softmax(1).gather(1, asked).view(len(some), -1)
    return torch.stack(found, 1).numpy()


def _order(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, P) int64: pixels from the highest to the lowest value, equal ones in random order."""
    check_rng(rng)
    flat = maps.reshape(len(maps), -1)
    return np.lexsort((rng.random(flat.shape), -flat), axis=1)


def _imputed(images: Tensor, removed: np.ndarray, noise: float, rng: np.random.Generator) -> Tensor:
    """Images whose removed pixels (N, count) are imputed from the others, plus noise."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer, neighbors_weights

    result = images.clone(memory_format=torch.contiguous_format)
    for image, pixels in zip(result, removed, strict=True):
        pixels = np.sort(pixels)
        known = np.ones(image.shape[-2:])
        known.flat[pixels] = 0
        # An equation for each removed pixel, in ascending order, and a right side for each channel.
        asked = known, image.numpy(), neighbors_weights
        system, sides = NoisyLinearImputer.setup_sparse_system(*asked)
        filled = spsolve(system.tocsc(), sides).reshape(sides.shape)
        filled += rng.standard_normal(filled.shape) * noise
        image.view(len(image), -1)[:, pixels] = torch.from_numpy(filled.T).to(image.dtype)
    return result
