"""What a network costs: parameters and multiply-adds, with a list of what was not counted.

One MAC is one multiplication with its addition. Convolutions and linear layers are counted in
closed form, for a single image; `ModelProfile.uncounted` lists everything else by operator, such as
SE's product. Bias additions are kept apart: some counters add them to the MACs, ours does not.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from senet_lib.errors import SenetError, failing
from senet_lib.evaluation import evaluating

# Operators that compute nothing with the values: they rearrange, allocate or copy.
_FREE = frozenset(
    {"view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "alias", "detach"}
    | {"slice", "select", "split", "split_with_sizes", "chunk", "unsqueeze", "squeeze", "unbind"}
    | {"clone", "copy_", "_to_copy", "contiguous", "as_strided", "cat", "constant_pad_nd"}
    | {"empty", "empty_like", "zeros", "ones", "lift_fresh"}
)
_COUNTED = dict.fromkeys(("addmm", "mm", "linear", "mkldnn_linear"), "linear") | dict.fromkeys(
    ("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution"), "conv"
)
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
COUNTED_LAYERS = (*CONVS, *_TRANSPOSED, nn.Linear)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One call of one convolution or linear layer."""

    name: str  # path of the module inside the model
    kind: str  # class of the module, such as Conv2d
    macs: int  # multiply-adds for one image
    bias_adds: int  # additions of biases for one image, not part of `macs`


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """Cost of a model for one image."""

    num_params: int  # all parameters, each once
    macs: int  # multiply-adds of convolutions and linear layers
    bias_adds: int  # bias additions of the same layers
    uncounted: dict[str, int]  # calls of each operator that computes and is not in `macs`
    layers: list[LayerCost]  # the counted calls, in the order in which they ran


class Watching(TorchDispatchMode):
    """Calls `note(name, result)` for every operator that runs, its name without overload."""

    def __init__(self, note: Callable[[str, Any], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._note(func.overloadpacket.__name__, result)
        return result


@contextmanager
def black_image(model: nn.Module, input_size: Sequence[int]) -> Iterator[Tensor]:
    """One image of zeros, (1, C, H, W), on the device and in the type of the model's weights;
    within, eval mode, no gradients, and one thread, as it is too little work to share. SenetError
    where input_size is not three positive whole numbers."""
    if len(input_size) != 3 or any(not isinstance(n, int) or n < 1 for n in input_size):
        raise SenetError(f"input size must be channels, height, width, not {tuple(input_size)}")
    like = next(filter(torch.is_floating_point, model.parameters()), torch.empty(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluating(model), torch.no_grad():
            yield torch.zeros(1, *input_size, device=like.device, dtype=like.dtype)
    finally:
        torch.set_num_threads(threads)


def profile_model(model: nn.Module, input_size: Sequence[int] = (3, 32, 32)) -> ModelProfile:
    """Count parameters and multiply-adds by running the model, any that maps `(1, *input_size)` to
    something, on one black image. It is left as it was: its modes, hooks and buffers, and the
    random state. SenetError where it does not run on that input."""
    layers: list[LayerCost] = []

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        macs = multiply_adds(module, inputs[0], output)
        bias_adds = 0 if module.bias is None else output.numel()
        kind = type(module).__name__
        layers.append(LayerCost(name=name, kind=kind, macs=macs, bias_adds=bias_adds))

    calls: Counter[str] = Counter()
    watch, counted = Watching(lambda name, _: calls.update([name])), of_kind(model, COUNTED_LAYERS)
    told = failing(f"the model does not run on an input of {tuple(input_size)}")
    with black_image(model, input_size) as image, calls_of(counted, note), watch, told:
        model(image)
    return ModelProfile(
        num_params=sum(p.numel() for p in model.parameters()),
        macs=sum(layer.macs for layer in layers),
        bias_adds=sum(layer.bias_adds for layer in layers),
        uncounted=_uncounted(calls, layers),
        layers=layers,
    )


@contextmanager
def calls_of(modules: Mapping[str, nn.Module], note: Callable[..., Any]) -> Iterator[None]:
    """Call `note(name, module, inputs, output)` whenever one of the modules has run; what it
    returns, if anything, replaces the output."""
    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(partial(note, name)).remove)
        yield


def of_kind(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
    """The modules of some kinds by their paths."""
    return {name: m for name, m in model.named_modules() if isinstance(m, kinds)}


def multiply_adds(module: nn.Module, given: Tensor, output: Tensor) -> int:
    """Multiply-adds of one call of a convolution or linear layer, in closed form."""
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    # A convolution's weight is (out, in / groups, *kernel): each output element costs one row, and
    # of a transposed one each input element.
    each = given if isinstance(module, _TRANSPOSED) else output
    return each.numel() * math.prod(module.weight.shape[1:])


def _uncounted(calls: Counter[str], layers: list[LayerCost]) -> dict[str, int]:
    """Calls of operators that compute, less those of the counted layers, most frequent first."""
    left: Counter[str] = Counter()
    spare = Counter("linear" if layer.kind == "Linear" else "conv" for layer in layers)
    for operator, number in calls.items():
        kind = _COUNTED.get(operator, "")
        covered = min(number, spare[kind])
        spare[kind] -= covered
        if number > covered and operator not in _FREE:
            left[operator] = number - covered
    return dict(left.most_common())
