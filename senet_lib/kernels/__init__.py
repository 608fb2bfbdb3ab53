"""Kernels for training on a CPU: convolution, normalisation, attention, streams.

They do in one pass over memory what PyTorch does in several, and a 3x3 convolution with fewer
multiplications. Maps are float32 or bfloat16; the rest is float32, weights too, which PyTorch and
oneDNN (with AMX) round to bfloat16; so bfloat16 rounds less here than there, and float32, by
Winograd's transforms, more. One C++ source for every set of instructions is compiled at first use
(some seconds) and kept in the cache folder. Left to PyTorch, which is as fast, are convolutions of
1x1, of stride 2, in groups, of few channels or of more than 256 (with AMX all but the gradient of
wide ones on the smallest maps), linear layers, other attentions.
"""

from torch import nn

from senet_lib.kernels.blocks import FASTER
from senet_lib.kernels.native import bf16_is_fast, missing

__all__ = ["bf16_is_fast", "enable", "missing"]


def enable(model: nn.Module) -> None:
    """Let a network use the kernels while it trains on a CPU; elsewhere it stays as it was. The
    classes of its blocks are exchanged; its parameters, names and hooks stay."""
    for module in model.modules():
        module.__class__ = FASTER.get(type(module), type(module))
