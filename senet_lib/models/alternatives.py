"""Other attentions than SE: ECA, CBAM, scSE, gather-excite, and two controls without any in them.

All but CBAM are x * gate(x). Shapes: N images, C channels, H x W pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.models.attention import (
    GATES,
    SQUEEZES,
    AttentionSpec,
    ExciteGate,
    register_attention,
    register_gate,
)


@register_gate("eca", options=("squeeze", "gate", "gate_bias"))
class NeighbourGate(nn.Module):
    """squeeze - 1-d convolution along the channels - gate: a gate depends on neighbours only.

    Source: Wang et al. 2020 (arXiv:1910.03151), eq. 7, and eq. 12 with gamma 2 and b 1.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        size = int(abs((math.log2(channels) + 1) / 2))
        size += 1 - size % 2  # the next odd number
        self.squeeze, self.activation = SQUEEZES[spec.squeeze], GATES[spec.gate]
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=spec.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.conv(self.squeeze(x)[:, None])  # (N, 1, C)
        return self.activation(mixed[:, 0, :, None, None])  # (N, C, 1, 1)


class TwoSqueezeGate(ExciteGate):
    """(mean, max) - shared two-layer network - sum - gate."""

    def forward(self, x: Tensor) -> Tensor:
        squeezed = (SQUEEZES[kind](x) for kind in ("avg", "max"))
        mean, peak = (self.expand(F.relu(self.reduce(s))) for s in squeezed)
        return self.activation(mean + peak)[:, :, None, None]  # (N, C, 1, 1)


class SpatialGate(nn.Module):
    """(mean, max) over the channels - 7x7 convolution - gate."""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.activation = GATES[spec.gate]
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=spec.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # (N, 2, H, W)
        return self.activation(self.conv(maps))  # (N, 1, H, W)


@register_attention("cbam", options=("reduction", "gate", "gate_bias"))
class ConvBlockAttention(nn.Module):
    """channel gates - scale - spatial gates - scale; `gate` holds the channel gates.

    Source: Woo et al. 2018 (arXiv:1807.06521), eq. 1 to 3.
    As in its equations, there is no normalisation after the 7x7 convolution, and no bias unless
    gate_bias is set.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.gate = TwoSqueezeGate(channels, spec)
        self.spatial_gate = SpatialGate(spec)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.gate(x)
        return x * self.spatial_gate(x)


@register_gate("scse")
class ConcurrentGate(nn.Module):
    """Sum of SE's channel gates and the gates of a 1x1 convolution over the channels.

    Source: Roy et al. 2018 (arXiv:1803.02579), scSE.
    Differs from the paper: hidden width C/r with r = 16 where the paper has r = 2. Its sum of two
    products is written as one, x * (channel + spatial).
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.channel = ExciteGate(channels, spec)
        self.spatial = nn.Conv2d(channels, 1, 1, bias=spec.gate_bias)
        self.activation = GATES[spec.gate]

    def forward(self, x: Tensor) -> Tensor:
        return self.channel(x) + self.activation(self.spatial(x))  # (N, C, H, W)


@register_gate("ge", options=("squeeze", "gate"))
class GatherGate(nn.Module):
    """squeeze of the whole map - gate, without parameters.

    Source: Hu et al. 2018 (arXiv:1810.12348), the parameter-free pair with global extent.
    Differs from the paper: only that member of its family is here.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.squeeze, self.activation = SQUEEZES[spec.squeeze], GATES[spec.gate]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.squeeze(x))[:, :, None, None]  # (N, C, 1, 1)


@register_gate("scale", options=())
class LearntScale(nn.Module):
    """A learnt number a channel, which no image changes; it starts at 1.

    A control without attention. Behind a normalisation, which has such a factor of its own, it is
    the plain network written otherwise; SE also starts at one half, see `Half`.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale.to(x.dtype)[None, :, None, None].expand(x.shape[0], -1, 1, 1)


@register_gate("half", options=())
class Half(LearntScale):
    """One half for every channel, without parameters.

    A control without attention: one half is where SE's gates stand before training, so this has
    the smaller branch of an untrained SE and nothing else of it.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        nn.Module.__init__(self)
        self.register_buffer("scale", torch.full((channels,), 0.5), persistent=False)
