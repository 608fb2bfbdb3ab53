"""Batch normalisation in training, with the rectifier and the additions around it."""

# Legend: N images, C channels, H height, W width; rows are the N * H * W pixels.

import torch
from torch import Tensor, nn

from senet_lib.fused.native import as_rows, call, empty_map


class _NormAct(torch.autograd.Function):
    """y = act(norm(x) [+ residual]) and, with `plus`, y + plus; also the batch's mean, variance."""

    @staticmethod
    def forward(ctx, x, moments, weight, bias, residual, plus, relu, eps):
        x, ldx = as_rows(x)
        residual, ldr = as_rows(residual)
        plus, ldp = as_rows(plus)
        n, c, h, w = x.shape
        rows, threads = n * h * w, torch.get_num_threads()
        if moments is None:
            moments = torch.empty(c), torch.empty(c)
            call("senet_moments", (x, ldx, rows, c, threads, *moments))
        mean, variance = moments
        invstd = (variance + eps).rsqrt()
        scale = weight * invstd
        shift = bias - mean * scale
        y = empty_map(n, c, h, w)
        total = None if plus is None else torch.empty_like(y)
        call(
            "senet_apply",
            [
                *(x, ldx, residual, ldr, plus, ldp, scale, shift),
                *(rows, c, int(relu), threads, y, total),
            ],
        )
        # Where the rectifier let pass what came is told by y, or without a residual by x itself.
        mask = (None, None, None)
        if relu:
            mask = (None, scale, shift) if residual is None else (y, None, None)
        ctx.save_for_backward(x, *mask, mean, invstd, weight)
        ctx.has_residual = residual is not None
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, total, mean, variance

    @staticmethod
    def backward(ctx, dy, dtotal, *_):
        x, *mask, mean, invstd, weight = ctx.saved_tensors
        dplus = dtotal
        x, ldx = as_rows(x)
        dy, ldy = as_rows(dy)
        dtotal, ldt = as_rows(dtotal)
        if dy is None:
            dy, ldy, dtotal, ldt = dtotal, ldt, None, 0
        n, c, h, w = x.shape
        rows, threads = n * h * w, torch.get_num_threads()
        gradient = None
        if ctx.has_residual:
            gradient = empty_map(n, c, h, w)
        dbias, moment = torch.empty(c), torch.empty(c)
        call(
            "senet_reduce",
            [
                *(dy, ldy, dtotal, ldt, x, ldx, *mask, mean),
                *(rows, c, threads, gradient, dbias, moment),
            ],
        )
        if gradient is not None:  # rectified already
            dy, ldy, dtotal, ldt, mask = gradient, c, None, 0, (None, None, None)
        slope = weight * invstd
        tilt = -slope * invstd**2 * moment / rows
        level = -slope * dbias / rows
        dx = empty_map(n, c, h, w)
        call(
            "senet_gradient",
            [
                *(dy, ldy, dtotal, ldt, x, ldx, *mask),
                *(mean, slope, tilt, level, rows, c, threads, dx),
            ],
        )
        return dx, None, moment * invstd, dbias, gradient, dplus, None, None


def norm_act(
    x: Tensor,
    norm: nn.BatchNorm2d,
    *,
    relu: bool,
    residual: Tensor | None = None,
    plus: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Normalise a batch, and update the running statistics as BatchNorm2d in training does.

    Args:
        x: (N, C, H, W), bfloat16, on the CPU.
        norm: whose weights and running statistics are used.
        relu: whether the result is rectified.
        residual: (N, C, H, W), added before the rectifier.
        plus: (N, C, H, W), added to the result, for the second value returned.
    Returns:
        y = act(norm(x) + residual), and y + plus or None.
    """
    version, *moments = getattr(x, "moments", (None, None, None))
    known = moments if version == x._version else None
    y, total, mean, variance = _NormAct.apply(
        x, known, norm.weight, norm.bias, residual, plus, relu, norm.eps
    )
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        rows = x.numel() // x.shape[1]
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (rows / max(rows - 1, 1)), norm.momentum)
    return y, total
