"""3x3 convolution by Winograd's minimal filtering."""

# Legend: N images, C and D channels in and out, H height, W width.

import torch
from torch import Tensor, nn

from senet_lib.kernels.native import as_rows, call, empty_map, has_amx

Moments = tuple[Tensor, Tensor]
MOST_CHANNELS = 256  # above it PyTorch's convolution is no slower
# Below it the transforms cost more than the products they save; PyTorch's products are faster in
# bfloat16 than in float32, ours are not, and with AMX no transform pays.
LEAST_CHANNELS = {torch.float32: 8, torch.bfloat16: MOST_CHANNELS + 1 if has_amx() else 17}


class Conv3x3(torch.autograd.Function):
    """y = x * weight, at stride 1 with zero padding 1, and the mean and biased variance of each
    channel of y; x (N, C, H, W), H and W multiples of 4, and weight (D, C, 3, 3), float32.

    Source: Lavin and Gray 2016 (arXiv:1509.09308), F(4x4, 3x3).
    """

    @staticmethod
    def forward(ctx, x, weight):
        n, c, h, w = x.shape
        d = len(weight)
        kernels = _transformed(weight.permute(2, 3, 1, 0), x.dtype)
        y, mean, variance = empty_map(x, n, d, h, w), torch.empty(d), torch.empty(d)
        sizes = n, h, w, c, d, torch.get_num_threads()
        call("senet_winograd", x.dtype, as_rows(x), kernels, sizes, y, d, mean, variance)
        ctx.save_for_backward(x, weight)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
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
            taps, sizes = torch.empty(3, 3, c, d), (n, h, w, c, d, threads)
            call("senet_winograd_weight", x.dtype, as_rows(x), rows, sizes, taps)
            dweight = torch.empty_like(weight).copy_(taps.permute(3, 2, 0, 1))
        return dx, dweight


def _transformed(taps: Tensor, dtype: torch.dtype) -> Tensor:
    """The transformed weight, from one that makes its last dimension from the one before."""
    summed, made = taps.shape[2:]
    kernels = torch.empty(call("senet_winograd_kernel_size", dtype, summed, made))
    taps = taps.float().contiguous()
    call("senet_winograd_kernel", dtype, taps, summed, made, torch.get_num_threads(), kernels)
    return kernels


def convolve(conv: nn.Module, x: Tensor) -> tuple[Tensor, Moments | None]:
    """conv(x), and the mean and biased variance of its channels where the kernel does it."""
    channels = (conv.in_channels, conv.out_channels) if type(conv) is nn.Conv2d else (0, 0)
    if (
        min(channels) < LEAST_CHANNELS[x.dtype]
        or max(channels) > MOST_CHANNELS
        or (conv.kernel_size, conv.stride, conv.padding) != ((3, 3), (1, 1), (1, 1))
        or (conv.dilation, conv.groups, conv.padding_mode) != ((1, 1), 1, "zeros")
        or conv.bias is not None
        or x.shape[2] % 4
        or x.shape[3] % 4
    ):
        return conv(x), None
    y, mean, variance = Conv3x3.apply(x, conv.weight)
    return y, (mean, variance)
