"""A plain convolutional network that learns CIFAR-10 in minutes.

Shapes: N images, C channels, H x W pixels, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.models.attention import NO_ATTENTION, AttentionSpec, build_attention
from senet_lib.models.blocks import Network, conv3x3

EPSILON = 5e-4  # added to the variances that are divided by


class WhiteningStem(nn.Module):
    """2x2 conv - ReLU; the weights come from the images' statistics and stay.

    The 4C filters are the principal axes of the images' 2x2 patches, each divided by the standard
    deviation along it, so that their responses are uncorrelated; each stands there with both signs.
    """

    num_images = 5000  # that `fit_to_images` is to be given

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8 * in_channels, 2, bias=False)
        self.conv.weight.requires_grad_(False)

    @torch.no_grad()
    def fit_to_images(self, images: Tensor) -> None:
        """Take the weights from normalised training images, (N, C, H, W)."""
        patches = F.unfold(images, 2).movedim(1, -1).flatten(0, -2)
        variances, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (axes / (variances + EPSILON).sqrt()).T.view(-1, *self.conv.weight.shape[1:])
        self.conv.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.pad(x, (0, 1, 0, 1))))  # (N, 8C, H, W)


class PoolBlock(nn.Module):
    """conv - 2x2 max pooling - BN - ReLU - conv - BN - [attention] - ReLU; the weights of the
    normalisations stay one."""

    def __init__(self, in_channels: int, channels: int, attention: AttentionSpec) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(in_channels, channels), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = conv3x3(channels, channels), nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(2)
        self.attention = build_attention(channels, attention)
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.pool(self.conv1(x))))  # (N, C, H/2, W/2)
        return F.relu(self.attention(self.norm2(self.conv2(x))))


class MaxHead(nn.Module):
    """max over H and W - linear, its logits divided by 9."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.amax((2, 3))) / 9  # (N, K)


class CNN7(Network):
    """Whitening stem - three pooling blocks - max - linear.

    Args:
        num_classes, in_channels: K, and channels of an image.
        channels: of each block.
        attention: which attention, where.
    Raises:
        SenetError: a position other than standard, which needs a shortcut.
    Source: Jordan 2024 (arXiv:2404.00498), the network of airbench94.
    Differs from the paper: ReLU for GELU, maps of even size, no bias of the whitening and one of
    the last layer, PyTorch's momentum and epsilon of normalisations, He-normal filters beside the
    identity.
    """

    def __init__(
        self, num_classes: int, in_channels: int, *, channels: tuple[int, ...],
        attention: AttentionSpec = NO_ATTENTION,
    ) -> None:  # fmt: skip
        attention.check_stages(len(channels))
        attention.check_no_shortcut("CNN7")
        stages, before = [], 8 * in_channels
        for i, width in enumerate(channels, start=1):
            stages.append(nn.Sequential(PoolBlock(before, width, attention.at(i))))
            before = width
        super().__init__(WhiteningStem(in_channels), stages, MaxHead(channels[-1], num_classes))
        for block in (stage[0] for stage in stages):
            for conv in (block.conv1, block.conv2):  # a new block hands its input on
                nn.init.dirac_(conv.weight.data[: conv.in_channels])
