"""3x3 convolution: by Winograd's minimal filtering, or by PyTorch with a faster gradient."""

# Legend: N images, C and D channels in and out, H height, W width.

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from senet_lib.kernels.native import as_rows, call, empty_map, has_amx, is_intel, numbers

Moments = tuple[Tensor, Tensor]
MOST_CHANNELS = 256  # above it PyTorch's convolution is no slower
TAPS_CHANNELS = 128  # with AMX, from here on the weight's gradient on small maps is made tap by tap


class _Conv3x3(torch.autograd.Function):
    """y = x * weight, at stride 1 with zero padding 1, and the mean and biased variance of each
    channel of y; x (N, C, H, W), H and W multiples of 4, and weight (D, C, 3, 3), float32.

    Source: Lavin and Gray 2016 (arXiv:1509.09308), F(4x4, 3x3).
    """

    @staticmethod
    def forward(ctx, x, weight):
        n, c, h, w = x.shape
        d = len(weight)
        kernels = _transformed(weight.permute(2, 3, 1, 0), x.dtype)
        y, mean, variance = empty_map(x, n, d, h, w), numbers(d), numbers(d)
        sizes = n, h, w, c, d, torch.get_num_threads()
        call("senet_winograd", x.dtype, as_rows(x), kernels, sizes, y, d, mean, variance)
        ctx.save_for_backward(x, weight)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, *_):
        x, weight = ctx.saved_tensors
        n, c, h, w = x.shape
        rows = as_rows(dy, x.dtype)
        d, threads = len(weight), torch.get_num_threads()
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            # The taps in reverse, and C channels made from D.
            kernels = _transformed(weight.flip(2, 3).permute(2, 3, 0, 1), x.dtype)
            dx, sizes = empty_map(x, n, c, h, w), (n, h, w, d, c, threads)
            call("senet_winograd", x.dtype, rows, kernels, sizes, dx, c, None, None)
        if ctx.needs_input_grad[1]:
            taps, sizes = numbers(3, 3, c, d), (n, h, w, c, d, threads)
            call("senet_winograd_weight", x.dtype, as_rows(x), rows, sizes, taps)
            dweight = torch.empty_like(weight).copy_(taps.permute(3, 2, 0, 1))
        return dx, dweight


def _transformed(taps: Tensor, dtype: torch.dtype) -> Tensor:
    """The transformed weight, from one that makes its last dimension from the one before."""
    summed, made = taps.shape[2:]
    kernels = numbers(call("senet_winograd_kernel_size", dtype, summed, made))
    taps = taps.float().contiguous()
    call("senet_winograd_kernel", dtype, taps, summed, made, torch.get_num_threads(), kernels)
    return kernels


class _SmallConv3x3(torch.autograd.Function):
    """PyTorch's convolution with zero padding 1, whose weight's gradient is made tap by tap, each a
    product of matrices: on wide maps of few pixels oneDNN's with AMX takes three times as long."""

    @staticmethod
    def forward(ctx, x, weight, stride):
        weight = weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, stride=stride, padding=1)

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        d, c = weight.shape[:2]
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = conv2d_input(x.shape, weight, dy, ctx.stride, padding=1)
        if ctx.needs_input_grad[1]:
            rows = dy.permute(0, 2, 3, 1).reshape(-1, d).T
            padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
            # Of a side of m pixels each tap sees every stride-th of the padded ones, m in all.
            seen = [[slice(i, i + s * (m - 1) + 1, s) for i in range(3)]
                    for s, m in zip(ctx.stride, dy.shape[2:], strict=True)]  # fmt: skip
            taps = [rows @ padded[:, i, j].reshape(-1, c) for i in seen[0] for j in seen[1]]
            dweight = torch.stack(taps, 2).view_as(weight)
        return dx, dweight, None


@functools.cache
def least_channels(dtype: torch.dtype) -> int:
    """Below so many the transforms cost more than the products they save. Ours are no faster in
    bfloat16; PyTorch's are on AMD's processors, and with AMX so much that no transform pays."""
    if dtype == torch.bfloat16 and has_amx():
        return MOST_CHANNELS + 1
    return 17 if dtype == torch.bfloat16 and not is_intel() else 8


def convolve(conv: nn.Module, x: Tensor) -> tuple[Tensor, Moments | None]:
    """conv(x), and the mean and biased variance of its channels where the kernel does it."""
    ours = (
        type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.padding, conv.padding_mode) == ((3, 3), (1, 1), "zeros")
        and (conv.dilation, conv.groups, conv.bias) == ((1, 1), 1, None)
    )
    if not ours:
        return conv(x), None
    least, most = sorted((conv.in_channels, conv.out_channels))
    height, width = x.shape[2:]
    fits = conv.stride == (1, 1) and height % 4 == width % 4 == 0
    if fits and least_channels(x.dtype) <= least and most <= MOST_CHANNELS:
        y, mean, variance = _Conv3x3.apply(x, conv.weight)
        return y, (mean, variance)
    small = height * width <= 16 * math.prod(conv.stride)
    if small and most >= TAPS_CHANNELS and x.dtype == torch.bfloat16 and has_amx():
        return _SmallConv3x3.apply(x, conv.weight, conv.stride), None
    return conv(x), None
