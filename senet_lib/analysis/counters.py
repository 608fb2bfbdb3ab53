"""The same network counted by other conventions: fvcore, torch's FlopCounterMode and thop's rule.

`senet_lib.profiling` counts one multiply-accumulate of a convolution or linear layer as 1 and
nothing else; other counters add normalisation and pooling, or count a multiply-accumulate as 2.
Every count here is for one image, in eval mode, and leaves the model as it was.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from senet_lib import profiling
from senet_lib.errors import SenetError
from senet_lib.models import create_model, input_size

# fvcore's names for the operators of a convolution or a linear layer.
_FVCORE = {"conv": ("conv",), "linear": ("linear", "addmm")}
# fvcore passes over these without a warning, with those that only move values; they do compute.
_FVCORE_SILENT = ("relu", "relu_", "clamp", "clamp_", "max")
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

    by_operator: Counter[str]  # parts of the total, with 2 a value for normalisation, some pooling
    left_out: dict[str, int]  # calls of operators that compute uncounted, most frequent first

    def macs(self, *kinds: str) -> int:
        """Multiply-accumulates of "conv" and "linear" layers, or of one kind of them."""
        return sum(self.by_operator[name] for kind in kinds or _FVCORE for name in _FVCORE[kind])


class CountedNetwork(NamedTuple):
    """One network by every convention."""

    profile: profiling.ModelProfile  # the closed form
    fvcore: FvcoreCount
    torch_flops: int  # a multiply-accumulate is 2
    thop: Counter[str] | None  # of `count_thop_rule`; None where a layer's rule is not stated there


def count_network(name: str, num_classes: int = 10) -> CountedNetwork:
    """A registered network by every convention, for an image of its own size."""
    model, size = create_model(name, num_classes), input_size(name)
    counters = (profiling.profile_model, count_fvcore, count_flop_counter)
    thop = count_thop_rule(model, size) if not profiling.of_kind(model, _OTHER_RULES) else None
    return CountedNetwork(*(count(model, size) for count in counters), thop)


def count_fvcore(model: nn.Module, input_size: Sequence[int] = (3, 32, 32)) -> FvcoreCount:
    """Count with fvcore, which traces the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # importing it calls torch.jit.script
        from fvcore.nn import FlopCountAnalysis

    passed: Counter[str] = Counter()

    def note(operator: str, inputs: object, outputs: object) -> Counter[str]:
        passed[operator] += 1
        return Counter()

    with profiling.black_image(model, input_size) as image:
        analysis = FlopCountAnalysis(model, image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        for operator in _FVCORE_SILENT:
            analysis.set_op_handle(f"aten::{operator}", partial(note, operator))
        by_operator = Counter({name: int(n) for name, n in analysis.by_operator().items()})
    for operator, calls in analysis.unsupported_ops().items():
        passed[operator.removeprefix("aten::")] += calls
    return FvcoreCount(by_operator=by_operator, left_out=dict(passed.most_common()))


def count_flop_counter(model: nn.Module, input_size: Sequence[int] = (3, 32, 32)) -> int:
    """Floating-point operations by torch's FlopCounterMode: convolutions and matrix products, a
    multiplication and its addition counted apart."""
    counter = FlopCounterMode(display=False)
    with profiling.black_image(model, input_size) as image, counter:
        model(image)
    return counter.get_total_flops()


def count_thop_rule(model: nn.Module, input_size: Sequence[int] = (3, 32, 32)) -> Counter[str]:
    """Operations by kind, as the rule of thop has them, whose total it calls FLOPs.

    Convolution and linear: multiply-accumulates without the bias. Batch normalisation: 2 for each
    value, 4 with weights. Average pooling: 1 for each output; adaptive average pooling:
    (window + 1) for each output. Rectifiers and max pooling: 0. What is no module but a function
    or an operator (the mean, the addition, SE's product) is not seen.

    Returns:
        convolution, linear, normalisation and pooling.
    Raises:
        SenetError: the model has a layer that thop counts by a rule that is not stated here.
    Source: thop (Lyken17/pytorch-OpCounter) at 43c064a, written anew from its rule.
    """
    counts: Counter[str] = Counter()

    def add(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        given = inputs[0]
        if isinstance(module, (nn.Linear, *profiling.CONVS)):
            kind = "linear" if isinstance(module, nn.Linear) else "convolution"
            counts[kind] += profiling.multiply_adds(module, given, output)
        elif isinstance(module, _NORMS):
            counts["normalisation"] += given.numel() * (4 if module.affine else 2)
        elif isinstance(module, _POOLS):
            counts["pooling"] += output.numel()
        else:
            window = given.shape[2:].numel() / output.shape[2:].numel()
            counts["pooling"] += int((window + 1) * output.numel())

    for name, module in profiling.of_kind(model, _OTHER_RULES).items():
        kind = type(module).__name__
        raise SenetError(f"{name} is a {kind}, whose rule in thop is not stated here")
    known = (*profiling.CONVS, nn.Linear, *_NORMS, *_POOLS, *_ADAPTIVE_POOLS)
    layers = profiling.of_kind(model, known)
    with profiling.black_image(model, input_size) as image, profiling.calls_of(layers, add):
        model(image)
    return counts
