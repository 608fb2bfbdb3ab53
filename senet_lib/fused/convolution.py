"""3x3 convolution by Winograd's minimal filtering."""

# Legend: N images, C and D channels in and out, H height, W width.

import torch
from torch import Tensor

from senet_lib.fused.native import as_rows, call, empty_map


class _Conv3x3(torch.autograd.Function):
    """y = x * weight; also the mean and biased variance of each channel of y."""

    @staticmethod
    def forward(ctx, x, weight):
        x, ldx = as_rows(x)
        weight = weight.float().contiguous(memory_format=torch.channels_last)
        n, c, h, w = x.shape
        d, threads = len(weight), torch.get_num_threads()
        kernels = _kernels("senet_winograd_kernel", weight, summed=c, made=d)
        y, mean, variance = empty_map(n, d, h, w), torch.empty(d), torch.empty(d)
        call("senet_winograd", (x, ldx, kernels, n, h, w, c, d, threads, y, d, mean, variance))
        ctx.save_for_backward(x, weight)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    def backward(ctx, dy, *_):
        x, weight = ctx.saved_tensors
        x, ldx = as_rows(x)
        dy, ldy = as_rows(dy)
        n, c, h, w = x.shape
        d, threads = len(weight), torch.get_num_threads()
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            kernels = _kernels("senet_winograd_kernel_back", weight, summed=d, made=c)
            dx = empty_map(n, c, h, w)
            call("senet_winograd", (dy, ldy, kernels, n, h, w, d, c, threads, dx, c, None, None))
        if ctx.needs_input_grad[1]:
            dweight = torch.empty_like(weight)
            call("senet_winograd_weight", (x, ldx, dy, ldy, n, h, w, c, d, threads, dweight))
        return dx, dweight


def _kernels(name: str, weight: Tensor, *, summed: int, made: int) -> Tensor:
    """The transformed weight."""
    size = call("senet_winograd_kernel_size", (summed, made))
    kernels = torch.empty(size, dtype=torch.bfloat16)
    d, c = weight.shape[:2]
    call(name, (weight, c, d, torch.get_num_threads(), kernels))
    return kernels


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve at stride 1 with zero padding 1.

    Args:
        x: (N, C, H, W), bfloat16, on the CPU; H and W even.
        weight: (D, C, 3, 3), float32.
    Returns:
        (N, D, H, W), bfloat16. Its `moments`, the mean and biased variance of each channel, are
        for the normalisation that follows.
    Source: Lavin and Gray 2016 (arXiv:1509.09308), F(2x2, 3x3).
    """
    y, mean, variance = _Conv3x3.apply(x, weight)
    y.moments = (y._version, mean, variance)
    return y
