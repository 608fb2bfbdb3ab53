"""Attention: modules that rescale a feature map by gates computed from the map itself.

Every attention but CBAM is `x * gate(x)` with the gates computed by the submodule `gate`, so a
forward hook on `gate` reads them. Shapes: N images, C channels, H x W pixels.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.errors import SenetError, unknown

POSITIONS = ("standard", "pre", "post", "identity")
STD_EPSILON = 1e-5


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))  # (N, C)


def _max(x: Tensor) -> Tensor:
    return x.amax((2, 3))  # (N, C)


def _std(x: Tensor) -> Tensor:
    # At least float32, and an epsilon under the root: at a constant map d sqrt(v)/dv is infinite.
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide.var((2, 3), correction=0) + STD_EPSILON).sqrt().to(x.dtype)  # (N, C)


SQUEEZES: dict[str, Callable[[Tensor], Tensor]] = {"avg": _mean, "max": _max, "std": _std}
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "hard_sigmoid": F.hardsigmoid,
}


Builder = Callable[[int, "AttentionSpec"], nn.Module]


@dataclass(frozen=True, slots=True)
class _Registered:
    build: Builder
    options: frozenset[str]


_ATTENTIONS: dict[str, _Registered] = {}
_OPTIONS = ("reduction", "squeeze", "gate", "gate_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """Which attention a network has, and where.

    An option that the attention does not use must keep its default; anything else is refused, so
    that no setting is silently without effect.
    """

    attention: str = "none"
    """Name of the attention; `list_attentions()` gives the known ones."""
    reduction: int = field(default=16)
    """r: the hidden layer has max(C // r, 1) units; at least 1."""
    squeeze: str = field(default="avg")
    """Spatial statistic the gates are computed from: avg, max or std."""
    gate: str = field(default="sigmoid")
    """Last non-linearity: sigmoid, tanh, relu or hard_sigmoid."""
    gate_bias: bool = field(default=False)
    """Whether the gate's linear layers have biases."""
    position: str = field(default="standard")
    """In a residual block: standard (branch, before the addition), pre (before the branch),
    post (after addition and ReLU) or identity (on the shortcut)."""
    stages: tuple[int, ...] | None = field(default=None)
    """Stages that carry the attention, counted from 1; None means all of them."""

    def __post_init__(self) -> None:
        if self.attention not in _ATTENTIONS and self.attention != "none":
            raise unknown("attention", str(self.attention), list_attentions())
        for kind, known in (("squeeze", SQUEEZES), ("gate", GATES), ("position", POSITIONS)):
            if getattr(self, kind) not in known:
                raise unknown(kind, str(getattr(self, kind)), known)
        if isinstance(self.reduction, bool) or not isinstance(self.reduction, int):
            raise SenetError(f"reduction must be a whole number, not {self.reduction!r}")
        if self.reduction < 1:
            raise SenetError(f"reduction must be at least 1, not {self.reduction}")
        if not isinstance(self.gate_bias, bool):
            raise SenetError(f"gate_bias must be true or false, not {self.gate_bias!r}")
        if self.stages is not None:
            object.__setattr__(self, "stages", _stage_tuple(self.stages))
        self._refuse_unused()

    def _refuse_unused(self) -> None:
        """Raise if an option is set that this attention does not use."""
        if self.attention == "none":
            used: frozenset[str] = frozenset()
            checked: tuple[str, ...] = (*_OPTIONS, "position", "stages")
        else:
            used, checked = _ATTENTIONS[self.attention].options, _OPTIONS
        defaults = {f.name: f.default for f in fields(self)}
        for option in checked:
            value = getattr(self, option)
            if option not in used and value != defaults[option]:
                raise SenetError(
                    f"attention {self.attention!r} does not use {option}; leave it at "
                    f"{defaults[option]!r} (it was {value!r})"
                )

    def at(self, stage: int) -> "AttentionSpec":
        """The spec for the blocks of one stage: this one, or none where the stage has no part."""
        return self if self.stages is None or stage in self.stages else NO_ATTENTION

    def check_stages(self, num_stages: int) -> None:
        """Raise SenetError if `stages` names a stage that a network of num_stages has not."""
        for stage in self.stages or ():
            if stage > num_stages:
                raise SenetError(f"stages must lie in 1 to {num_stages}, not {stage}")


def _stage_tuple(stages: object) -> tuple[int, ...]:
    """Stage numbers sorted and without repeats; SenetError unless whole numbers from 1."""
    numbers = list(stages) if isinstance(stages, Iterable) and not isinstance(stages, str) else []
    valid = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in numbers)
    if not numbers or not valid:
        raise SenetError(f"stages must be a list of stage numbers from 1, not {stages!r}")
    return tuple(sorted(set(numbers)))


def register_attention(
    name: str, *, options: Iterable[str] = _OPTIONS
) -> Callable[
    [Callable[[int, AttentionSpec], nn.Module]], Callable[[int, AttentionSpec], nn.Module]
]:
    """Make an attention available by name to every block, model, notebook and command.

    Args:
        name: the name for `attention=`.
        options: fields of AttentionSpec it uses, among reduction, squeeze, gate and gate_bias.
    Returns:
        A decorator for a class or function called as (channels, spec) and giving a module that
        maps (N, C, H, W) to the same shape.
    Raises:
        SenetError: the name is taken or an option does not exist.
    """
    if name in _ATTENTIONS or name == "none":
        raise SenetError(f"attention {name!r} is registered already; choose another name")
    chosen = frozenset(options)
    for option in chosen.difference(_OPTIONS):
        raise unknown("attention option", option, _OPTIONS)

    def register(build: Builder) -> Builder:
        _ATTENTIONS[name] = _Registered(build, chosen)
        return build

    return register


def list_attentions() -> list[str]:
    """Names that `attention=` takes, "none" first."""
    return ["none", *sorted(_ATTENTIONS)]


def build_attention(channels: int, spec: AttentionSpec) -> nn.Module:
    """The attention module for a map of `channels` channels; an identity for "none"."""
    if spec.attention == "none":
        return nn.Identity()
    return _ATTENTIONS[spec.attention].build(channels, spec)


class ExciteGate(nn.Module):
    """squeeze - linear (C to C/r) - ReLU - linear (C/r to C) - gate: the gates of one map.

    Args:
        channels: C, the channels that are squeezed.
        spec: reduction, squeeze, gate and gate_bias are used.
        gates: how many channels get a gate; None means all C.
    """

    def __init__(self, channels: int, spec: AttentionSpec, *, gates: int | None = None) -> None:
        super().__init__()
        hidden = max(channels // spec.reduction, 1)
        self.squeeze, self.activation = SQUEEZES[spec.squeeze], GATES[spec.gate]
        self.reduce = nn.Linear(channels, hidden, bias=spec.gate_bias)
        self.expand = nn.Linear(hidden, gates or channels, bias=spec.gate_bias)

    def excite(self, squeezed: Tensor) -> Tensor:
        """The gates, one a gated channel, from the squeezed map, (N, C)."""
        return self.activation(self.expand(F.relu(self.reduce(squeezed))))

    def forward(self, x: Tensor) -> Tensor:
        return self.excite(self.squeeze(x))[:, :, None, None]  # (N, C, 1, 1)


@register_attention("se")
class SqueezeExcite(nn.Module):
    """squeeze - excite - scale: multiply each channel by a gate computed from all channels.

    Args:
        channels: C, the channels of the map.
        spec: reduction, squeeze, gate and gate_bias are used.
    Source: Hu et al. 2018 (arXiv:1709.01507), eq. 2 squeeze, eq. 3 excite, eq. 4 scale.
    Differs from the paper: no biases unless gate_bias is set; squeeze and gate can be exchanged.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.gate = ExciteGate(channels, spec)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class NeighbourGate(nn.Module):
    """squeeze - 1-d convolution along the channels - gate."""

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        size = int(abs((math.log2(channels) + 1) / 2))
        size += 1 - size % 2  # the next odd number
        self.squeeze, self.activation = SQUEEZES[spec.squeeze], GATES[spec.gate]
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=spec.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.conv(self.squeeze(x)[:, None])  # (N, 1, C)
        return self.activation(mixed[:, 0, :, None, None])  # (N, C, 1, 1)


@register_attention("eca", options=("squeeze", "gate", "gate_bias"))
class EfficientChannelAttention(nn.Module):
    """squeeze - 1-d convolution - scale: a channel's gate depends on its neighbours only.

    Source: Wang et al. 2020 (arXiv:1910.03151), eq. 7, and eq. 12 with gamma 2 and b 1.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.gate = NeighbourGate(channels, spec)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class TwoSqueezeGate(nn.Module):
    """(mean, max) - shared two-layer network - sum - gate."""

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        hidden = max(channels // spec.reduction, 1)
        self.activation = GATES[spec.gate]
        self.reduce = nn.Linear(channels, hidden, bias=spec.gate_bias)
        self.expand = nn.Linear(hidden, channels, bias=spec.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        mean, peak = (self.expand(F.relu(self.reduce(s))) for s in (_mean(x), _max(x)))
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
    Differs from the paper: no biases unless gate_bias is set; as in its equations, no
    normalisation after the 7x7 convolution.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.gate = TwoSqueezeGate(channels, spec)
        self.spatial_gate = SpatialGate(spec)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.gate(x)
        return x * self.spatial_gate(x)


class ConcurrentGate(nn.Module):
    """Sum of SE's channel gates and the gates of a 1x1 convolution over the channels."""

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.channel = ExciteGate(channels, spec)
        self.spatial = nn.Conv2d(channels, 1, 1, bias=spec.gate_bias)
        self.activation = GATES[spec.gate]

    def forward(self, x: Tensor) -> Tensor:
        return self.channel(x) + self.activation(self.spatial(x))  # (N, C, H, W)


@register_attention("scse")
class SpatialChannelExcite(nn.Module):
    """channel gates and spatial gates side by side: the sum of the two rescaled maps.

    Source: Roy et al. 2018 (arXiv:1803.02579), scSE.
    Differs from the paper: hidden width C/r with r = 16 where the paper has r = 2; no biases
    unless gate_bias is set. The two products are written as one, x * (channel + spatial).
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.gate = ConcurrentGate(channels, spec)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class GatherGate(nn.Module):
    """squeeze - gate, without parameters."""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.squeeze, self.activation = SQUEEZES[spec.squeeze], GATES[spec.gate]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.squeeze(x))[:, :, None, None]  # (N, C, 1, 1)


@register_attention("ge", options=("squeeze", "gate"))
class GatherExcite(nn.Module):
    """gather over the whole map - gate - scale, without parameters.

    Source: Hu et al. 2018 (arXiv:1810.12348), the parameter-free pair with global extent.
    Differs from the paper: only that member of its family is here.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.gate = GatherGate(spec)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class ConstantGate(nn.Module):
    """One number a channel, the same for every image: (N, C, 1, 1)."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        if isinstance(scale, nn.Parameter):
            self.scale = scale
        else:
            self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale.to(x.dtype)[None, :, None, None].expand(len(x), -1, 1, 1)


@register_attention("scale", options=())
class ConstantScale(nn.Module):
    """scale: multiply each channel by a learnt number, which no image changes; it starts at 1.

    A control without attention: what SE gains over it, it gains by looking at the image.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.gate = ConstantGate(nn.Parameter(torch.ones(channels)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


@register_attention("half", options=())
class Half(nn.Module):
    """scale: multiply every channel by one half, without parameters.

    A control without attention: one half is where SE's gates stand before training, so this has
    the smaller branch of an untrained SE and nothing else of it.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.gate = ConstantGate(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


NO_ATTENTION = AttentionSpec()


def attention_paths(model: nn.Module) -> list[str]:
    """Paths of the attention modules inside a model, in order; none for a plain network."""
    return [
        name
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == "attention" and not isinstance(module, nn.Identity)
    ]
