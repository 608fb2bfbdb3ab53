"""Kernels for training on a CPU: convolution, normalisation, attention, streams.

Half of a small network's step goes into reading and writing maps for operations that compute almost
nothing; the kernels here do in one pass over memory what PyTorch does in several, and a 3x3
convolution with fewer multiplications. One C++ source for every set of instructions, over PyTorch's
own vectors, is compiled at first use (some seconds) and kept in the cache folder.

`enable` exchanges the classes of a network's blocks; its parameters, names and hooks stay. The
arithmetic is PyTorch's, summed in another order: float32, or maps of bfloat16 with the rest in
float32, statistics of the batch, biased variance for the map and unbiased for the running average.

Left to PyTorch, which is as fast: convolutions of 1x1, of stride 2, in groups, of few channels or
of more than 256; linear layers, other attentions than SE.
"""

from torch import nn

from senet_lib.kernels.blocks import FASTER
from senet_lib.kernels.native import bf16_is_fast, library, missing

__all__ = ["bf16_is_fast", "disable", "enable", "library", "missing"]


def enable(model: nn.Module) -> None:
    """Let a network use the kernels while it trains on a CPU; elsewhere it stays as it was."""
    _exchange(model, FASTER)


def disable(model: nn.Module) -> None:
    """Undo `enable`."""
    _exchange(model, {faster: plain for plain, faster in FASTER.items()})


def _exchange(model: nn.Module, classes: dict[type, type]) -> None:
    for module in model.modules():
        module.__class__ = classes.get(type(module), type(module))
