"""The same network counted by other conventions: fvcore, torch's FlopCounterMode and thop's rule.

`senet_lib.profiling` counts one multiply-accumulate of a convolution or linear layer as 1 and
nothing else. Other counters add normalisation and pooling, or count a multiply-accumulate as 2, so
that one network goes by several totals. Every count here is for one image, in eval mode.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from senet_lib.errors import SenetError
from senet_lib.models import create_model, input_size
from senet_lib.profiling import ModelProfile, black_image, looking, profile_model

# fvcore's names for the operators of a convolution or a linear layer.
_FVCORE_CONV, _FVCORE_LINEAR = ("conv",), ("linear", "addmm")
# fvcore passes over these without a warning, with those that only move values; they do compute.
_FVCORE_SILENT = ("relu", "relu_", "clamp", "clamp_", "max")
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
# thop has a rule for these too; no network here has them, and they are refused, not miscounted.
_OTHER_RULES = (
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.LayerNorm, nn.PReLU),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LeakyReLU, nn.Softmax),
    *(nn.Upsample, nn.RNNBase, nn.RNNCellBase),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FvcoreCount:
    """What fvcore counts; one multiply-accumulate is 1."""

    macs: int
    """Multiply-accumulates of convolutions and linear layers."""
    total: int
    """These and all else that it counts: 2 a value for batch normalisation, and some pooling."""
    by_operator: dict[str, int]
    """Operator to its part of the total."""
    left_out: dict[str, int]
    """Operator to its number of calls, for those that compute and that fvcore does not count, most
    frequent first. It warns of all but the rectifier, clamping and max, which it takes as free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThopCount:
    """What thop's rule gives. Multiply-accumulates count 1, other operations as the rule has it."""

    total: int
    """All operations it counts."""
    by_kind: dict[str, int]
    """convolution, linear, normalisation and pooling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedNetwork:
    """One network by every convention."""

    name: str
    """Registry name."""
    input_size: tuple[int, int, int]
    """(channels, height, width) in pixels."""
    profile: ModelProfile
    """The closed form."""
    fvcore: FvcoreCount
    """Count of fvcore."""
    torch_flops: int
    """Count of torch.utils.flop_counter: a multiply-accumulate is 2."""
    thop: ThopCount
    """Count by thop's rule."""

    @property
    def difference(self) -> str:
        """By which operator fvcore's convolutions and linear layers differ from the closed form;
        empty if they agree."""
        ours: Counter[str] = Counter()
        for layer in self.profile.layers:
            ours["linear" if layer.kind == "Linear" else "conv"] += layer.macs
        theirs = {
            "conv": sum(self.fvcore.by_operator.get(name, 0) for name in _FVCORE_CONV),
            "linear": sum(self.fvcore.by_operator.get(name, 0) for name in _FVCORE_LINEAR),
        }
        return "; ".join(
            f"{kind}: {ours[kind]:,} in closed form, {macs:,} by fvcore"
            for kind, macs in theirs.items()
            if macs != ours[kind]
        )


def count_network(name: str) -> CountedNetwork:
    """Build a registered network and count it by every convention, for an image of its own size.

    Args:
        name: registry name, with or without settings.
    Raises:
        UnknownNameError: there is no such network.
        SenetError: thop has a rule for one of its layers that is not stated here.
    """
    size = input_size(name)
    model = create_model(name)
    return CountedNetwork(
        name=name,
        input_size=size,
        profile=profile_model(model, size),
        fvcore=count_fvcore(model, size),
        torch_flops=count_flop_counter(model, size),
        thop=count_thop_rule(model, size),
    )


def count_fvcore(model: nn.Module, input_size: Sequence[int] = (3, 32, 32)) -> FvcoreCount:
    """Count with fvcore, which traces the model; the model is left as it was.

    Args:
        model: maps (1, *input_size) to something.
        input_size: (channels, height, width) in pixels.
    Raises:
        SenetError: input_size is not three positive whole numbers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # importing it calls torch.jit.script
        from fvcore.nn import FlopCountAnalysis

    passed: Counter[str] = Counter()
    image = black_image(model, input_size)
    with looking(model), torch.no_grad():
        analysis = FlopCountAnalysis(model, image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        for operator in _FVCORE_SILENT:
            analysis.set_op_handle(f"aten::{operator}", _noting(operator, passed))
        by_operator = {name: int(number) for name, number in analysis.by_operator().items()}
    for operator, calls in analysis.unsupported_ops().items():
        passed[operator.removeprefix("aten::")] += calls
    return FvcoreCount(
        macs=sum(by_operator.get(name, 0) for name in (*_FVCORE_CONV, *_FVCORE_LINEAR)),
        total=sum(by_operator.values()),
        by_operator=by_operator,
        left_out=dict(passed.most_common()),
    )


def _noting(operator: str, passed: Counter[str]) -> Callable[..., Counter[str]]:
    """A handle for fvcore that counts the calls of an operator, and nothing for each."""

    def handle(inputs: object, outputs: object) -> Counter[str]:
        passed[operator] += 1
        return Counter()

    return handle


def count_flop_counter(model: nn.Module, input_size: Sequence[int] = (3, 32, 32)) -> int:
    """Floating-point operations by torch's FlopCounterMode: convolutions and matrix products, a
    multiplication and its addition counted apart; the model is left as it was.

    Args:
        model: maps (1, *input_size) to something.
        input_size: (channels, height, width) in pixels.
    Raises:
        SenetError: input_size is not three positive whole numbers.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = black_image(model, input_size)
    with looking(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops()


def count_thop_rule(model: nn.Module, input_size: Sequence[int] = (3, 32, 32)) -> ThopCount:
    """Count by the rule of thop, whose result it calls FLOPs; the model is left as it was.

    Convolution and linear: multiply-accumulates without the bias. Batch normalisation: 2 for each
    value, 4 with weights. Average pooling: 1 for each output; adaptive average pooling:
    (window + 1) for each output. Rectifiers and max pooling: 0. What is no module but a function
    or an operator (the mean, the addition, SE's product) is not seen.

    Args:
        model: maps (1, *input_size) to something.
        input_size: (channels, height, width) in pixels.
    Raises:
        SenetError: input_size is not three positive whole numbers, or the model has a layer that
            thop counts by a rule that is not stated here.
    Source: thop (Lyken17/pytorch-OpCounter) at 43c064a, written anew from its rule.
    """
    image = black_image(model, input_size)
    counts: Counter[str] = Counter()
    handles = []
    try:
        for name, module in model.named_modules():
            if isinstance(module, _OTHER_RULES):
                raise SenetError(
                    f"{name} is a {type(module).__name__}, whose rule in thop is not stated here"
                )
            if isinstance(module, (*_CONVS, nn.Linear, *_NORMS, *_POOLS, *_ADAPTIVE_POOLS)):
                hook = partial(_add_thop, counts=counts)
                handles.append(module.register_forward_hook(hook))
        with looking(model), torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return ThopCount(total=sum(counts.values()), by_kind=dict(counts))


def _add_thop(
    module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, *, counts: Counter[str]
) -> None:
    """Forward hook: add what thop's rule gives for this call."""
    if isinstance(module, nn.Linear):
        counts["linear"] += output.numel() * module.in_features
    elif isinstance(module, _CONVS):
        counts["convolution"] += output.numel() * module.weight[0].numel()
    elif isinstance(module, _NORMS):
        counts["normalisation"] += inputs[0].numel() * (4 if module.affine else 2)
    elif isinstance(module, _POOLS):
        counts["pooling"] += output.numel()
    else:
        window = inputs[0].shape[2:].numel() / output.shape[2:].numel()
        counts["pooling"] += int((window + 1) * output.numel())
