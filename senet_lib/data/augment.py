"""Batched augmentation: crop, flip and normalise whole batches of uint8 images on any device.

The functions take random integers and never draw any: `draw_epoch` makes all of an epoch's from the
seed and the epoch's number, so a run that is resumed sees the same batches as one never stopped.

Shapes: N images in a split, B in a batch, H W height and width, p padding.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.data.sources import LEAST_STD
from senet_lib.device import memory_format


class EpochPlan(NamedTuple):
    """What happens to the images of one epoch; position k of a tensor is the k-th image shown."""

    order: Tensor  # (N,) int64 on the CPU, a permutation: `order[k]` is the image shown k-th
    offset_y: Tensor  # (N,) int64, top row of its crop within the padded image, 0 to 2p
    offset_x: Tensor  # (N,) int64, left column of its crop, 0 to 2p
    flipped: Tensor  # (N,) bool, whether its crop is mirrored left to right
    hole_y: Tensor  # (N,) float32 in [0, 1), height of a hole's middle, as a share of the image's
    hole_x: Tensor  # (N,) float32 in [0, 1), its place from left to right


def draw_epoch(num_images: int, seed: int, epoch: int, padding: int, flip: float) -> EpochPlan:
    """Draw the order, crops and flips of one epoch, on the CPU: a pure function of its arguments.

    Args:
        num_images: size of the training split.
        seed, epoch: the run's seed and the epoch's number, 0 or more.
        padding: black pixels added on each side; 0 means no crop.
        flip: chance of a left-right flip, 0 to 1.
    """
    # Children of one SeedSequence, so that changing the padding leaves the order as it was.
    streams = np.random.SeedSequence([seed, epoch]).spawn(4)
    generators = (np.random.Generator(np.random.PCG64(stream)) for stream in streams)
    order_rng, crop_rng, flip_rng, hole_rng = generators
    order = order_rng.permutation(num_images).astype(np.int64)
    offsets = crop_rng.integers(0, 2 * padding, size=(2, num_images), endpoint=True)
    holes = hole_rng.random((2, num_images), dtype=np.float32)
    flipped = flip_rng.random(num_images) < flip
    return EpochPlan(*map(torch.from_numpy, (order, *offsets, flipped, *holes)))


def pad_images(images: Tensor, padding: int) -> Tensor:
    """Images (N, H, W, 3) uint8 with a black border of so many pixels, contiguous, as torchvision's
    RandomCrop pads an image before normalisation."""
    return F.pad(images, (0, 0, *[padding] * 4)).contiguous()


def crop_flip(
    padded: Tensor, index: Tensor, dy: Tensor, dx: Tensor, flipped: Tensor, size: int = 32
) -> Tensor:
    """Cut one crop from each chosen image and mirror some of them, in a single gather.

    Args:
        padded: (N, H + 2p, W + 2p, 3) uint8, contiguous, from `pad_images`.
        index: (B,) int64, which images; on the same device, like the next three.
        dy, dx: (B,) int64, top row and left column of each crop.
        flipped: (B,) bool, which crops are mirrored left to right.
        size: height and width of a crop.
    Returns:
        (B, size, size, 3) uint8; permuted to NCHW it is in channels_last format.
    """
    _, height, width, channels = padded.shape
    steps = torch.arange(size, device=padded.device)
    rows = (index * height + dy)[:, None] + steps  # (B, size), row numbers in the whole tensor
    columns = torch.where(flipped[:, None], size - 1 - steps, steps) + dx[:, None]  # (B, size)
    pixels = (rows * width)[:, :, None] + columns[:, None, :]  # (B, size, size)
    crops = padded.view(-1, channels).index_select(0, pixels.view(-1))
    return crops.view(-1, size, size, channels)


def cut_out(images: Tensor, y: Tensor, x: Tensor, side: int, fill: Tensor) -> Tensor:
    """Cover a square of each image; where it reaches over an edge, only the rest of it.

    Args:
        images: (B, H, W, 3) uint8.
        y, x: (B,) in [0, 1), the middle of the square as shares of height and width.
        side: of the square, in pixels.
        fill: its colour, (3,) uint8.
    Source: DeVries and Taylor 2017 (arXiv:1708.04552), section 3.2.
    """
    _, height, width, _ = images.shape
    covered = []
    for size, middle in ((height, y), (width, x)):
        first = (middle * size).long() - side // 2
        steps = torch.arange(size, device=images.device) - first[:, None]
        covered.append(steps // side == 0)  # (B, size)
    square = (covered[0][:, :, None] & covered[1][:, None, :])[..., None]  # (B, H, W, 1)
    return torch.where(square, fill, images)


def normalise(
    images: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Scale to [0, 1], subtract the mean and divide by the standard deviation, channel by channel.

    Args:
        images: (B, H, W, 3) uint8.
        mean: of each channel, in [0, 1].
        std: of each channel, of which `LEAST_STD` is the least.
        dtype: of the result; the arithmetic is float32 in any case.
    Returns:
        (B, 3, H, W) in the `memory_format` of the device.
    """
    batch, height, width, channels = images.shape
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), width, images.device)
    # Whole rows at once: an inner loop over 3 channels would be several times slower on a CPU.
    rows = images.reshape(batch * height, width * channels).to(torch.float32)
    rows = rows.mul_(scale).add_(shift)
    maps = rows.to(dtype).view(batch, height, width, channels).permute(0, 3, 1, 2)  # (B, 3, H, W)
    return maps.contiguous(memory_format=memory_format(images.device.type))


@lru_cache(maxsize=32)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Factors of `pixel * scale + shift` for one row of pixels, kept to spare a copy each batch."""
    spread = np.maximum(np.asarray(std, np.float64), LEAST_STD)
    scale = 1 / (255 * spread)
    shift = -np.asarray(mean, np.float64) / spread
    with torch.inference_mode(False):
        return tuple(
            torch.tensor(np.tile(row, width), dtype=torch.float32, device=device)
            for row in (scale, shift)
        )


def fit_to_images(
    network: nn.Module, images: Tensor, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Give the modules that take their weights from images, as a stem that whitens does, the first
    of these, (N, H, W, 3) uint8; mean and std of each channel, in [0, 1]."""
    for module in network.modules():
        if hasattr(module, "fit_to_images"):
            some = images[: module.num_images]
            module.fit_to_images(normalise(some, mean, std, torch.float32))
