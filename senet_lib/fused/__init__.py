"""Kernels for training on a CPU in bf16: convolution, normalisation and attention.

Half of a small network's step goes into reading and writing maps for operations that compute almost
nothing; the kernels here do in one pass over memory what PyTorch does in several, and a 3x3
convolution with fewer multiplications. They are compiled at first use (a few seconds) and kept in
the cache folder.

The arithmetic is PyTorch's: bf16 maps, float32 statistics, biased variance for the map and unbiased
for the running average. Intermediate roundings to bf16 are others.
"""

import torch
from torch import Tensor, nn

from senet_lib.fused.convolution import conv3x3
from senet_lib.fused.gates import scale, squeeze
from senet_lib.fused.native import library
from senet_lib.fused.norm import norm_act
from senet_lib.fused.streams import avg_pool2, join, split

__all__ = [
    "applies",
    "avg_pool2",
    "conv3x3",
    "enable",
    "join",
    "library",
    "norm_act",
    "scale",
    "split",
    "squeeze",
]


LEAST_CHANNELS = 8  # below it the transforms cost more than the products they save


def enable(model: nn.Module, wanted: bool = True) -> None:
    """Let the modules of a model use the kernels while it trains, or not."""
    for module in model.modules():
        module.uses_fused_kernels = wanted and _is_usual(module)


def _is_usual(module: nn.Module) -> bool:
    if isinstance(module, nn.BatchNorm2d):
        complete = module.affine and module.track_running_stats and module.momentum is not None
        return complete and module.weight.dtype == torch.float32
    if isinstance(module, nn.Conv2d):
        plain = module.stride == (1, 1) and module.groups == 1
        return plain and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS
    return True


def applies(module: nn.Module, x: Tensor) -> bool:
    """Whether the kernels are to do this module's work on this map."""
    if not (module.training and getattr(module, "uses_fused_kernels", False)):
        return False
    if isinstance(module, (nn.Conv2d, nn.AvgPool2d)) and (x.shape[-2] % 2 or x.shape[-1] % 2):
        return False
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.dim() == 4
