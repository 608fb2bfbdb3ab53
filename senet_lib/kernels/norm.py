"""Batch normalisation in training, with the rectifier and the additions around it."""

# Legend: N images, C channels, H height, W width; rows are the N * H * W pixels.

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from senet_lib.kernels.convolution import Moments
from senet_lib.kernels.native import as_rows, call, empty_map, numbers


class _NormAct(torch.autograd.Function):
    """y = act(norm(x) [+ residual]) and, with `plus`, y + plus."""

    @staticmethod
    def forward(ctx, x, weight, bias, residual, plus, norm, relu, moments):
        n, c, h, w = x.shape
        y, state = empty_map(x, n, c, h, w), numbers(4, c)
        total = None if plus is None else empty_map(x, n, c, h, w)
        maps = as_rows(x), as_rows(residual, x.dtype), as_rows(plus, x.dtype)
        stats = norm.running_mean, norm.running_var, float(norm.eps), float(norm.momentum)
        sizes = n * h * w, c, int(relu), torch.get_num_threads()
        call("senet_norm", x.dtype, *maps, moments, weight, bias, stats, sizes, state, y, c, total)
        # Where the rectifier let pass what came is told by y, or without a residual by x itself.
        ctx.save_for_backward(x, y if relu and residual is not None else None, state)
        ctx.relu, ctx.has_residual = int(relu), residual is not None
        ctx.set_materialize_grads(False)
        return y, total

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dtotal):
        x, y, state = ctx.saved_tensors
        dplus = dtotal
        if dy is None:
            dy, dtotal = dtotal, None
        n, c, h, w = x.shape
        dx, dweight, dbias = empty_map(x, n, c, h, w), numbers(c), numbers(c)
        dresidual = empty_map(x, n, c, h, w) if ctx.has_residual else None
        maps = as_rows(dy, x.dtype), as_rows(dtotal, x.dtype), as_rows(x)
        sizes = n * h * w, c, ctx.relu, torch.get_num_threads()
        call("senet_norm_back", x.dtype, *maps, y, state, sizes, dresidual, dx, dweight, dbias)
        return dx, dweight, dbias, dresidual, dplus, None, None, None


def normalise(
    norm: nn.Module,
    x: Tensor,
    moments: Moments | None = None,
    *,
    relu: bool = True,
    residual: Tensor | None = None,
    plus: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Normalise a batch, and update the running statistics as BatchNorm2d in training does.

    Args:
        norm: whose weights and running statistics are used; other than a training BatchNorm2d
            with its usual settings, or of one pixel, it is called itself.
        x: (N, C, H, W), float32 or bfloat16, on the CPU.
        moments: mean and biased variance of each channel of x, where they are known.
        relu: whether the result is rectified.
        residual: (N, C, H, W), added before the rectifier.
        plus: (N, C, H, W), added to the result, for the second value returned.
    Returns:
        y = act(norm(x) + residual), and y + plus or None.
    """
    if (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and x.numel() > x.shape[1]  # of one value there is no variance
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.weight.dtype == torch.float32
    ):
        norm.num_batches_tracked.add_(1)
        known = moments or (None, None)
        return _NormAct.apply(x, norm.weight, norm.bias, residual, plus, norm, relu, known)
    y = norm(x)
    y = y if residual is None else y + residual
    y = F.relu(y) if relu else y
    return y, None if plus is None else plus + y
