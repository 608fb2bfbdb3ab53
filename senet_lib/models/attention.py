"""Attention: modules that rescale a feature map by gates computed from the map itself.

Squeeze-and-excitation, and how an attention is asked for and registered; the others stand in
`alternatives`. Every one but CBAM is `x * gate(x)` with the gates computed by the submodule `gate`,
so a forward hook on `gate` reads them. Shapes: N images, C channels, H x W pixels.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib import plugins
from senet_lib.errors import SenetError, failing, unknown

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

# Builds the module for a map of so many channels.
Builder = Callable[[int, "AttentionSpec"], nn.Module]
_ATTENTIONS: dict[str, tuple[Builder, frozenset[str]]] = {}  # and the options it uses
OF_ONES_OWN = f"; one of your own needs its file: {plugins.HOW}"
_OPTIONS = ("reduction", "squeeze", "gate", "gate_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """Which attention a network has, and where.

    An option that the attention does not use must keep its default; anything else is refused, so
    that no setting is silently without effect."""

    attention: str = "none"  # its name, of `list_attentions()`
    reduction: int = 16  # r: the hidden layer has max(C // r, 1) units; at least 1
    squeeze: str = "avg"  # spatial statistic the gates are computed from: avg, max or std
    gate: str = "sigmoid"  # last non-linearity: sigmoid, tanh, relu or hard_sigmoid
    gate_bias: bool = False  # whether the gate's linear layers have biases
    # in a residual block: standard (branch, before the addition), pre (before the branch), post
    # (after addition and ReLU) or identity (on the shortcut)
    position: str = "standard"
    stages: tuple[int, ...] | None = None  # that carry it, counted from 1; None: all of them

    def __post_init__(self) -> None:
        known = {"attention": list_attentions(), "squeeze": SQUEEZES, "gate": GATES}
        for kind, names in (known | {"position": POSITIONS}).items():
            if getattr(self, kind) not in names:
                more = OF_ONES_OWN if kind == "attention" else ""
                raise unknown(kind, str(getattr(self, kind)), names, more)
        if type(self.reduction) is not int or self.reduction < 1:
            raise SenetError(f"reduction must be a whole number from 1, not {self.reduction!r}")
        if not isinstance(self.gate_bias, bool):
            raise SenetError(f"gate_bias must be true or false, not {self.gate_bias!r}")
        if self.stages is not None:
            object.__setattr__(self, "stages", _stage_tuple(self.stages))
        used, checked = (), (*_OPTIONS, "position", "stages")
        if self.attention != "none":
            used, checked = _ATTENTIONS[self.attention][1], _OPTIONS
        for spec in fields(self):
            value = getattr(self, spec.name)
            if spec.name in checked and spec.name not in used and value != spec.default:
                raise SenetError(
                    f"attention {self.attention!r} does not use {spec.name}; leave it at "
                    f"{spec.default!r} (it was {value!r})"
                )

    def at(self, stage: int) -> "AttentionSpec":
        """The spec for the blocks of one stage: this one, or none where the stage has no part."""
        return self if self.stages is None or stage in self.stages else NO_ATTENTION

    def check_stages(self, num_stages: int) -> None:
        """Raise SenetError if `stages` names a stage that a network of num_stages has not."""
        for stage in self.stages or ():
            if stage > num_stages:
                raise SenetError(f"stages must lie in 1 to {num_stages}, not {stage}")

    def check_no_shortcut(self, network: str) -> None:
        """Raise SenetError if the position is one beside a shortcut, which the network has not."""
        if self.position != "standard":
            raise SenetError(
                f"a {network} has no shortcut for position {self.position!r}; use 'standard'"
            )


def _stage_tuple(stages: object) -> tuple[int, ...]:
    """Stage numbers sorted and without repeats; SenetError unless whole numbers from 1."""
    numbers = list(stages) if isinstance(stages, Iterable) and not isinstance(stages, str) else []
    if not numbers or not all(type(n) is int and n >= 1 for n in numbers):
        raise SenetError(f"stages must be a list of stage numbers from 1, not {stages!r}")
    return tuple(sorted(set(numbers)))


def check_new(kind: str, name: str, known: Mapping[str, Callable]) -> None:
    """SenetError where nothing can be registered by that name, beside known builders. One of a
    notebook's cell, which may be run again, or of a script is in nobody's way."""
    if not re.fullmatch("[a-z0-9_]+", name):
        raise SenetError(f"{name!r} cannot name {kind}s; take small letters, digits and _")
    if name in known and known[name].__module__ != "__main__":
        raise SenetError(f"{kind} {name!r} is registered already; choose another name")


def register_attention(
    name: str, *, options: Iterable[str] = _OPTIONS
) -> Callable[[Builder], Builder]:
    """Make an attention available by name to every block, model, notebook and command.

    Args:
        name: the name for `attention=`, of small letters, digits and _; SenetError if it is taken,
            but for one from a notebook's cell or a script, which is replaced.
        options: fields of AttentionSpec it uses, among reduction, squeeze, gate and gate_bias.
    Returns:
        A decorator for a class or function called as (channels, spec) and giving a module that
        maps (N, C, H, W) to the same shape; SenetError where it cannot be called so.
    """
    known = {"none": build_attention} | {name: build for name, (build, _) in _ATTENTIONS.items()}
    check_new("attention", name, known)
    chosen = frozenset(options)
    for option in chosen.difference(_OPTIONS):
        raise unknown("attention option", option, _OPTIONS)

    def register(build: Builder) -> Builder:
        try:
            inspect.signature(build).bind(1, None)
        except TypeError:
            raise SenetError(f"the builder of {name!r} must take channels and spec") from None
        _ATTENTIONS[name] = build, chosen
        return build

    return register


def list_attentions() -> list[str]:
    """Names that `attention=` takes, "none" first."""
    return ["none", *sorted(_ATTENTIONS)]


def build_attention(channels: int, spec: AttentionSpec) -> nn.Module:
    """The attention module for a map of so many channels; an identity for "none"."""
    if spec.attention == "none":
        return nn.Identity()
    how = f"attention {spec.attention!r}, called as (channels, spec) for {channels} channels"
    with failing(f"{how}, cannot be built"):
        return _ATTENTIONS[spec.attention][0](channels, spec)


class ExciteGate(nn.Module):
    """squeeze - linear (C to C/r) - ReLU - linear (C/r to C) - gate: the gates of one map, of all
    of its channels or of so many."""

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


class Rescaled(nn.Module):
    """x * gate(x), with any gate."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


@register_attention("se")
class SqueezeExcite(Rescaled):
    """squeeze - excite - scale: multiply each channel by a gate computed from all channels.

    Source: Hu et al. 2018 (arXiv:1709.01507), eq. 2 squeeze, eq. 3 excite, eq. 4 scale; without
    biases, as in its section 6, unless gate_bias is set, as in the public weights.
    Differs from the paper: squeeze and gate can be exchanged.
    """

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__(ExciteGate(channels, spec))


def register_gate(name: str, options: Iterable[str] = _OPTIONS) -> Callable[[Builder], Builder]:
    """Make x * gate(x) available as an attention: a decorator as `register_attention` is, for a
    gate that maps (N, C, H, W) to what is multiplied with that."""

    def register(gate: Builder) -> Builder:
        build = wraps(gate, updated=())(lambda *about: Rescaled(gate(*about)))
        register_attention(name, options=options)(build)
        return gate

    return register


NO_ATTENTION = AttentionSpec()


def attention_paths(model: nn.Module) -> list[str]:
    """Paths of the attention modules inside a model, in order; none for a plain network."""
    return [
        name
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == "attention" and not isinstance(module, nn.Identity)
    ]
