"""3x3 convolution by Winograd's minimal filtering."""

# Legend: N images, C and D channels in and out, H height, W width.

import torch
from torch import Tensor

from senet_lib.kernels.native import as_rows, call, empty_map

Moments = tuple[Tensor, Tensor]


class _Conv3x3(torch.autograd.Function):
    """y = x * weight; also the mean and biased variance of each channel of y."""

    @staticmethod
    def forward(ctx, x, weight):
        x, ldx = as_rows(x, x.dtype)
        n, c, h, w = x.shape
        d, threads = len(weight), torch.get_num_threads()
        kernels = _transformed(weight.permute(2, 3, 1, 0), x.dtype)
        y, mean, variance = empty_map(x, n, d, h, w), torch.empty(d), torch.empty(d)
        arguments = (x, ldx, kernels, n, h, w, c, d, threads, y, d, mean, variance)
        call("senet_winograd", x.dtype, arguments)
        ctx.save_for_backward(x, weight)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    def backward(ctx, dy, *_):
        x, weight = ctx.saved_tensors
        x, ldx = as_rows(x, x.dtype)
        dy, ldy = as_rows(dy, x.dtype)
        n, c, h, w = x.shape
        d, threads = len(weight), torch.get_num_threads()
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            # The taps in reverse, and C channels made from D.
            kernels = _transformed(weight.flip(2, 3).permute(2, 3, 0, 1), x.dtype)
            dx = empty_map(x, n, c, h, w)
            arguments = (dy, ldy, kernels, n, h, w, d, c, threads, dx, c, None, None)
            call("senet_winograd", x.dtype, arguments)
        if ctx.needs_input_grad[1]:
            taps = torch.empty(3, 3, c, d)
            arguments = (x, ldx, dy, ldy, n, h, w, c, d, threads, taps)
            call("senet_winograd_weight", x.dtype, arguments)
            dweight = torch.empty_like(weight).copy_(taps.permute(3, 2, 0, 1))
        return dx, dweight


def _transformed(taps: Tensor, dtype: torch.dtype) -> Tensor:
    """The transformed weight, from one that makes its last dimension from the one before."""
    summed, made = taps.shape[2:]
    kernels = torch.empty(call("senet_winograd_kernel_size", dtype, (summed, made)))
    arguments = (taps.float().contiguous(), summed, made, torch.get_num_threads(), kernels)
    call("senet_winograd_kernel", dtype, arguments)
    return kernels


def conv3x3(x: Tensor, weight: Tensor) -> tuple[Tensor, Moments]:
    """Convolve at stride 1 with zero padding 1.

    Args:
        x: (N, C, H, W), float32 or bfloat16, on the CPU; H and W multiples of 4.
        weight: (D, C, 3, 3), float32.
    Returns:
        (N, D, H, W), and for the normalisation that follows the mean and biased variance of each
        of its channels.
    Source: Lavin and Gray 2016 (arXiv:1509.09308), F(4x4, 3x3).
    """
    y, mean, variance = _Conv3x3.apply(x, weight)
    return y, (mean, variance)
