"""DenseNet-BC for 32x32 images.

Shapes: N images, C channels, H x W pixels, K classes; growth k.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.models.attention import NO_ATTENTION, AttentionSpec, build_attention
from senet_lib.models.blocks import Head, Network, conv1x1, conv3x3


class DenseLayer(nn.Module):
    """BN - ReLU - 1x1 conv (4k) - BN - ReLU - 3x3 conv (k) - [attention] - append to the input."""

    def __init__(self, in_channels: int, growth: int, attention: AttentionSpec) -> None:
        super().__init__()
        width = 4 * growth
        self.norm1, self.conv1 = nn.BatchNorm2d(in_channels), conv1x1(in_channels, width)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), conv3x3(width, growth)
        self.attention = build_attention(growth, attention)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.norm1(x)))  # (N, 4k, H, W)
        new = self.attention(self.conv2(F.relu(self.norm2(new))))  # (N, k, H, W)
        return torch.cat([x, new], 1)  # (N, C + k, H, W)


class Transition(nn.Module):
    """BN - ReLU - 1x1 conv - 2x2 average pooling."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(in_channels), conv1x1(in_channels, channels)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(F.relu(self.norm(x))))  # (N, C', H/2, W/2)


class DenseNet(Network):
    """3x3 conv (2k) - three stages of dense layers - BN - ReLU - mean - linear.

    A transition that halves channels, H and W opens the second and third stage.

    Args:
        num_classes, in_channels: K, and channels of an image.
        num_layers: dense layers of each stage.
        growth: k, channels that a layer adds.
        attention: which attention, where; it rescales a layer's k new channels.
    Source: Huang et al. 2017 (arXiv:1608.06993), DenseNet-BC.
    Differs from the paper: no dropout.
    """

    def __init__(
        self, num_classes: int, in_channels: int, *, num_layers: int, growth: int,
        attention: AttentionSpec = NO_ATTENTION,
    ) -> None:  # fmt: skip
        attention.check_stages(3)
        attention.check_no_shortcut("DenseNet")
        channels = 2 * growth
        stem, stages = conv3x3(in_channels, channels), []
        for i in range(3):
            blocks: list[nn.Module] = []
            if i > 0:
                blocks.append(Transition(channels, channels // 2))
                channels //= 2
            for _ in range(num_layers):
                blocks.append(DenseLayer(channels, growth, attention.at(i + 1)))
                channels += growth
            stages.append(nn.Sequential(*blocks))
        super().__init__(stem, stages, Head(channels, num_classes, norm=True))
