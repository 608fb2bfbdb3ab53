"""Res2Net-29 for 32x32 images, reconstructed from its equations and its totals.

Shapes: N images, C channels, H x W pixels, K classes; s streams of w = C / s channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.errors import SenetError, unknown
from senet_lib.models import blocks
from senet_lib.models.attention import (
    NO_ATTENTION,
    AttentionSpec,
    ExciteGate,
    Rescaled,
    build_attention,
)

SE_PLACES = ("streams", "last_from_z", "first2_from_z")  # made of SE's own gate
GATE_PLACES = ("fused", "output", "last", "first2", *SE_PLACES, "literal")


class StreamGates(nn.Module):
    """One SE gate a stream, each from its own stream alone: the gates of Z, (N, C, 1, 1)."""

    def __init__(self, base_width: int, scale: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.streams = nn.ModuleList(ExciteGate(base_width, spec) for _ in range(scale))

    def forward(self, z: Tensor) -> Tensor:
        streams = z.chunk(len(self.streams), 1)
        return torch.cat([g(y) for g, y in zip(self.streams, streams, strict=True)], 1)


class PartialExcite(nn.Module):
    """squeeze all of Z - excite - scale the channels `start` to `stop` alone.

    W1 is in R^{C/r x C}, with C the channels of Z, and W2 in R^{(stop - start) x C/r}.
    """

    def __init__(self, channels: int, start: int, stop: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.start, self.stop = start, stop
        self.gate = ExciteGate(channels, spec, gates=stop - start)

    def forward(self, z: Tensor) -> Tensor:
        before, chosen, after = z.tensor_split((self.start, self.stop), 1)
        return torch.cat([before, chosen * self.gate(z), after], 1)


class Res2NetBlock(blocks.ResidualBlock):
    """1x1 conv - [2x2 mean] - split - cascade - concat - [attention] - 1x1 conv - add - ReLU.

    BN follows every convolution, and ReLU follows it but for the last, where it comes after the
    addition.

    The cascade is Y_1 = X_1 and Y_i = ReLU(BN(K_i(X_i + Y_{i-1}))) for i = 2..s, K_i a 3x3
    convolution of w channels. The concatenation of all Y_i is Z.

    Args:
        in_channels: channels of the block's input.
        base_width: w, channels of a stream.
        scale: s, the number of streams.
        stride: 1, or 2 for 2x2 average pooling before the split.
        gate_at: what the attention rescales: "fused" is Z, "output" the branch after the last
            1x1 convolution (there, `position` chooses among the usual four), "last" the stream s
            of Z, "first2" the streams 1 and 2 of Z, and "streams" each stream by an SE of its own.
            "last_from_z" and "first2_from_z" rescale what "last" and "first2" do, by gates that
            squeeze the whole of Z. "literal" is "fused" in a block without its last 1x1
            convolution, Y = ReLU(X + g Z). The cascade itself always runs ungated.
        attention: which attention.
    Source: the second source document's equations; Gao et al. 2019 (arXiv:1904.01169) for the
        splitting.
    Differs from the paper: Gao et al. put Y_2 = K_2(X_2) and add from i = 3 on; here, as in the
        document's equations, Y_1 = X_1 is added before K_2 also, and the first block of a stage
        has the cascade like every other. The first and the last 1x1 convolution are ours: the
        document names one in F(X) = Conv1x1(Z), which its Y = ReLU(X + g Z) then leaves out, and
        none before the split. Here the gated Z passes through the last one before the addition,
        unless gate_at is "literal". At r = 16 and our widths, the gate of "last" has one hidden
        unit in stages 1 and 2 (13 and 26 channels) and three in stage 3.
    """

    def __init__(
        self, in_channels: int, *, base_width: int, scale: int, stride: int, gate_at: str,
        attention: AttentionSpec,
    ) -> None:  # fmt: skip
        channels = base_width * scale
        whole_branch = gate_at == "output"
        super().__init__(
            in_channels, channels, stride, "B", attention if whole_branch else NO_ATTENTION
        )
        if not whole_branch:
            self.attention = _stream_attention(base_width, scale, gate_at, attention)
            self.position = "streams"  # within the branch, at none of a block's four positions
        self.gate_at, self.scale = gate_at, scale
        self.conv1, self.norm1 = blocks.conv1x1(in_channels, channels), nn.BatchNorm2d(channels)
        # As many pixels as a convolution of stride 2 makes of an odd number.
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.convs = nn.ModuleList(blocks.conv3x3(base_width, base_width) for _ in range(scale - 1))
        self.norms = nn.ModuleList(nn.BatchNorm2d(base_width) for _ in range(scale - 1))
        if gate_at != "literal":
            self.conv3, self.norm3 = blocks.conv1x1(channels, channels), nn.BatchNorm2d(channels)

    def cascade(self, x: Tensor) -> list[Tensor]:
        """X, (N, C, H, W), to Y_1 ... Y_s, (N, w, H, W) each."""
        first, *others = x.chunk(self.scale, 1)
        outputs = [first]
        for stream, conv, norm in zip(others, self.convs, self.norms, strict=True):
            outputs.append(F.relu(norm(conv(stream + outputs[-1]))))
        return outputs

    def gated(self, outputs: list[Tensor]) -> Tensor:
        """Z, the concatenation of all Y_i, with the attention on what it rescales."""
        if self.gate_at == "last":
            outputs = [*outputs[:-1], self.attention(outputs[-1])]
        elif self.gate_at == "first2":
            first, second = self.attention(torch.cat(outputs[:2], 1)).chunk(2, 1)
            outputs = [first, second, *outputs[2:]]
        fused = torch.cat(outputs, 1)  # (N, C, H, W)
        return fused if self.gate_at in ("last", "first2", "output") else self.attention(fused)

    def branch(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.norm1(self.conv1(x))))  # (N, C, H/stride, W/stride)
        x = self.gated(self.cascade(x))
        return x if self.gate_at == "literal" else self.norm3(self.conv3(x))


def _stream_attention(base_width: int, scale: int, gate_at: str, spec: AttentionSpec) -> nn.Module:
    """The attention on Z, or on the streams of it that gate_at names."""
    channels = base_width * scale
    if spec.attention == "none":
        return nn.Identity()
    if gate_at == "streams":
        return Rescaled(StreamGates(base_width, scale, spec))
    if gate_at == "last_from_z":
        return PartialExcite(channels, channels - base_width, channels, spec)
    if gate_at == "first2_from_z":
        return PartialExcite(channels, 0, 2 * base_width, spec)
    return build_attention(base_width * {"last": 1, "first2": 2}.get(gate_at, scale), spec)


class Res2Net(blocks.Network):
    """stem - three stages of Res2Net blocks - mean - linear.

    Args:
        num_classes, in_channels: K, and channels of an image.
        num_blocks: blocks of each stage; three give 3 * 3 * 3 + 2 = 29 weighted layers.
        base_width: w of the first stage; it doubles with each stage.
        scale: s, the number of streams.
        gate_at: what the attention rescales, see Res2NetBlock.
        attention: which attention, where.
    Raises:
        SenetError: gate_at is unknown, or means nothing with this position or attention.
    """

    def __init__(
        self, num_classes: int, in_channels: int, *, num_blocks: int = 3, base_width: int = 13,
        scale: int = 4, gate_at: str = "fused", attention: AttentionSpec = NO_ATTENTION,
    ) -> None:  # fmt: skip
        attention.check_stages(3)
        limits = (("num_blocks", num_blocks, 1), ("base_width", base_width, 1), ("scale", scale, 2))
        for name, value, least in limits:
            if type(value) is not int or value < least:
                raise SenetError(f"{name} must be a whole number from {least}, not {value!r}")
        position, kind = attention.position, attention.attention
        if gate_at not in GATE_PLACES:
            raise unknown("gate_at", str(gate_at), GATE_PLACES)
        if position != "standard" and gate_at != "output":
            raise SenetError(f"position {position!r} needs gate_at='output', not {gate_at!r}")
        if gate_at in SE_PLACES and kind not in ("se", "none"):
            raise SenetError(f"gate_at={gate_at!r} is SE's; attention {kind!r} has none")

        def make(stage: int, previous: int, out: int, stride: int) -> nn.Module:
            return Res2NetBlock(
                previous, base_width=out // scale, scale=scale, stride=stride, gate_at=gate_at,
                attention=attention.at(stage + 1),
            )  # fmt: skip

        channels = [scale * base_width * 2**stage for stage in range(3)]
        stages = blocks.make_stages(16, [num_blocks] * 3, channels, make)
        stem = blocks.Stem(in_channels, 16)
        super().__init__(stem, stages, blocks.Head(channels[-1], num_classes))
