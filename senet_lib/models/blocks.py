"""Stem, residual blocks, shortcuts and head: the parts that every network is assembled from.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.errors import SenetError, unknown
from senet_lib.models.attention import AttentionSpec, build_attention

SHORTCUTS = ("A", "B")


def conv3x3(in_channels: int, channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """3x3 convolution that keeps H and W at stride 1; no bias, a normalisation follows."""
    return nn.Conv2d(in_channels, channels, 3, stride, 1, groups=groups, bias=False)


def conv1x1(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution without bias."""
    return nn.Conv2d(in_channels, channels, 1, stride, bias=False)


class Stem(nn.Module):
    """conv - BN - ReLU: 3x3 at stride 1, or 7x7 at stride 2 followed by 3x3 max pooling."""

    def __init__(self, in_channels: int, channels: int, *, large: bool = False) -> None:
        super().__init__()
        size, stride = (7, 2) if large else (3, 1)
        self.conv = nn.Conv2d(in_channels, channels, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.relu(self.norm(self.conv(x))))  # (N, C, H, W) or (N, C, H/4, W/4)


class Head(nn.Module):
    """[BN - ReLU -] mean over H and W - linear; the norm where the blocks end without one."""

    def __init__(self, channels: int, num_classes: int, *, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) if norm else nn.Identity()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x).mean((2, 3)))  # (N, K)


class Projection(nn.Module):
    """1x1 conv (stride) - [BN]: shortcut B, for a block that changes the shape."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = conv1x1(in_channels, channels, stride)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class PaddedShortcut(nn.Module):
    """subsample (stride) - append zero channels: shortcut A, without parameters."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))


def make_shortcut(
    in_channels: int, channels: int, stride: int, kind: str, *, norm: bool = True
) -> nn.Module:
    """Identity where the shape stays; else shortcut A (no parameters) or B (projection) of He et
    al. 2016. SenetError where the kind is neither, or A would have to drop channels."""
    if kind not in SHORTCUTS:
        raise unknown("shortcut", str(kind), SHORTCUTS)
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    if kind == "B":
        return Projection(in_channels, channels, stride, norm=norm)
    if channels < in_channels:
        raise SenetError(f"shortcut A cannot go from {in_channels} to {channels} channels; use B")
    return PaddedShortcut(in_channels, channels, stride)


class Block(nn.Module):
    """A block with its attention at one of four positions, those of Hu et al. 2018, section 6.5.

    A subclass defines `branch`, (N, C_in, H, W) to (N, C, H', W').
    """

    preact = False  # whether a normalisation comes first

    def __init__(
        self, in_channels: int, channels: int, stride: int, shortcut: str, spec: AttentionSpec
    ) -> None:
        super().__init__()
        if self.preact:
            self.norm1 = nn.BatchNorm2d(in_channels)
        self.shortcut = make_shortcut(in_channels, channels, stride, shortcut, norm=not self.preact)
        self.position = spec.position
        self.attention = build_attention(in_channels if spec.position == "pre" else channels, spec)

    def _attend(self, position: str, x: Tensor) -> Tensor:
        """x after the attention, if that is its position."""
        return self.attention(x) if position == self.position else x


class ResidualBlock(Block):
    """branch - BN + shortcut - ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        residual = self._attend("standard", self.branch(self._attend("pre", x)))
        shortcut = self._attend("identity", self.shortcut(x))
        return self._attend("post", F.relu(residual + shortcut))


class BasicBlock(ResidualBlock):
    """3x3 conv - BN - ReLU - 3x3 conv - BN - [attention] - add - ReLU.

    Source: He et al. 2016 (arXiv:1512.03385), section 3; attention as Hu et al. 2018, figure 3.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, shortcut: str, attention: AttentionSpec
    ) -> None:
        super().__init__(in_channels, channels, stride, shortcut, attention)
        self.conv1, self.norm1 = conv3x3(in_channels, channels, stride), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = conv3x3(channels, channels), nn.BatchNorm2d(channels)

    def branch(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))  # (N, C, H/stride, W/stride)
        return self.norm2(self.conv2(x))


class Bottleneck(ResidualBlock):
    """(1x1 conv - BN - ReLU) - (3x3 conv - BN - ReLU) - 1x1 conv - BN - [attention] - add - ReLU.

    Source: He et al. 2016 (arXiv:1512.03385), figure 5; groups as Xie et al. 2017
    (arXiv:1611.05431), figure 3c.
    Differs from the paper: the stride is on the 3x3 convolution, as in later public code.
    """

    def __init__(
        self, in_channels: int, channels: int, width: int, stride: int, groups: int,
        shortcut: str, attention: AttentionSpec,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, channels, stride, shortcut, attention)
        self.conv1, self.norm1 = conv1x1(in_channels, width), nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, groups)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3, self.norm3 = conv1x1(width, channels), nn.BatchNorm2d(channels)

    def branch(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))  # (N, width, H, W)
        x = F.relu(self.norm2(self.conv2(x)))  # (N, width, H/stride, W/stride)
        return self.norm3(self.conv3(x))  # (N, C, H/stride, W/stride)


class PreactBlock(Block):
    """BN - ReLU - branch - [attention] - add: the addition's result is not rectified.

    Where the shape changes the shortcut starts after the first BN - ReLU, which it shares with
    the branch, and so does a gate before these (position "pre"); elsewhere it is the untouched
    input.

    Source: He et al. 2016 (arXiv:1603.05027), figure 4e.
    """

    preact = True

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(self._attend("pre", x)))
        residual = self._attend("standard", self.branch(active))
        keep = isinstance(self.shortcut, nn.Identity)
        shortcut = self._attend("identity", x if keep else self.shortcut(active))
        return self._attend("post", residual + shortcut)


class PreactBasic(PreactBlock):
    """BN - ReLU - 3x3 conv - BN - ReLU - 3x3 conv - [attention] - add."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, shortcut: str, attention: AttentionSpec
    ) -> None:
        super().__init__(in_channels, channels, stride, shortcut, attention)
        self.conv1, self.norm2 = conv3x3(in_channels, channels, stride), nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)

    def branch(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (N, C, H/stride, W/stride)
        return self.conv2(F.relu(self.norm2(x)))


class PreactBottleneck(PreactBlock):
    """BN - ReLU - 1x1 conv - BN - ReLU - 3x3 conv - BN - ReLU - 1x1 conv - [attention] - add.

    Differs from the paper: the stride is on the 3x3 convolution.
    """

    def __init__(
        self, in_channels: int, channels: int, width: int, stride: int,
        shortcut: str, attention: AttentionSpec,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, channels, stride, shortcut, attention)
        self.conv1, self.norm2 = conv1x1(in_channels, width), nn.BatchNorm2d(width)
        self.conv2, self.norm3 = conv3x3(width, width, stride), nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, channels)

    def branch(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (N, width, H, W)
        x = self.conv2(F.relu(self.norm2(x)))  # (N, width, H/stride, W/stride)
        return self.conv3(F.relu(self.norm3(x)))  # (N, C, H/stride, W/stride)


def make_stages(
    in_channels: int,
    num_blocks: Sequence[int],
    channels: Sequence[int],
    make: Callable[[int, int, int, int], nn.Module],
) -> list[nn.Sequential]:
    """Stages of blocks; the first block of each but the first has stride 2.

    Args:
        in_channels: channels of the first stage's input.
        num_blocks: blocks of each stage.
        channels: output channels of each stage.
        make: a block from its stage, counted from 0, its channels in and out, and its stride.
    """
    stages = []
    for stage, (count, out) in enumerate(zip(num_blocks, channels, strict=True)):
        blocks = []
        for j in range(count):
            blocks.append(make(stage, in_channels, out, 2 if stage > 0 and j == 0 else 1))
            in_channels = out
        stages.append(nn.Sequential(*blocks))
    return stages


class Network(nn.Module):
    """stem - stage1 ... stageN - head: what all networks have in common."""

    def __init__(self, stem: nn.Module, stages: list[nn.Sequential], head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.stage_names = tuple(f"stage{i}" for i in range(1, len(stages) + 1))
        for name, stage in zip(self.stage_names, stages, strict=True):
            self.add_module(name, stage)
        self.head = head
        # He's normal initialisation (fan out) of the convolutions; linear layers and attention keep
        # PyTorch's defaults, and normalisations start at weight 1 and bias 0.
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and "attention" not in name.split("."):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def stages(self) -> list[nn.Module]:
        """The stages in order."""
        return [getattr(self, name) for name in self.stage_names]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)  # (N, K)
