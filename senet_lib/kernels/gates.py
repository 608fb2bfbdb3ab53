"""Squeeze, rescaling by the gates of the channels, and a map taken apart into streams of them."""

# Legend: N images, C channels (in s streams of w), H height, W width.

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from senet_lib.kernels.native import as_rows, call, empty_map, numbers


class _Squeeze(torch.autograd.Function):
    """x itself, and its mean over H and W; one pass backward for the gradients of both."""

    @staticmethod
    def forward(ctx, x):
        n, c, h, w = x.shape
        mean, threads = numbers(n, c), torch.get_num_threads()
        call("senet_squeeze", x.dtype, as_rows(x), n, h * w, c, threads, mean)
        return x.view_as(x), mean

    @staticmethod
    @once_differentiable
    def backward(ctx, dx, dmean):
        n, c, h, w = dx.shape
        extra, threads = (dmean / (h * w)).contiguous(), torch.get_num_threads()
        total = empty_map(dx, n, c, h, w)
        call("senet_spread", dx.dtype, as_rows(dx), extra, n, h * w, c, threads, total)
        return total


class _Scale(torch.autograd.Function):
    """x * gates, or relu(x * gates + residual)."""

    @staticmethod
    def forward(ctx, x, gates, residual):
        n, c, h, w = x.shape
        sizes, gates = (n, h * w, c, torch.get_num_threads()), gates.contiguous()
        y = empty_map(x, n, c, h, w)
        call("senet_scale", x.dtype, as_rows(x), as_rows(residual, x.dtype), gates, sizes, y)
        ctx.save_for_backward(x, gates, None if residual is None else y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, gates, y = ctx.saved_tensors
        n, c, h, w = x.shape
        dx, dgates = empty_map(x, n, c, h, w), numbers(n, c)
        dresidual = None if y is None else empty_map(x, n, c, h, w)
        given = as_rows(dy, x.dtype), as_rows(x), y, gates, n, h * w, c, torch.get_num_threads()
        call("senet_scale_back", x.dtype, *given, dx, dresidual, dgates)
        return dx, dgates, dresidual


class _Split(torch.autograd.Function):
    """The streams of a map, each a map of its own; stream 1 has stream 0 added."""

    @staticmethod
    def forward(ctx, x, count):
        n, c, h, w = x.shape
        width, threads = c // count, torch.get_num_threads()
        streams = [empty_map(x, n, width, h, w) for _ in range(count)]
        call("senet_split", x.dtype, as_rows(x), n * h * w, width, count, threads, streams)
        return tuple(streams)

    @staticmethod
    @once_differentiable
    def backward(ctx, *streams):
        like, count, threads = streams[0], len(streams), torch.get_num_threads()
        rows = [dy.to(like.dtype).permute(0, 2, 3, 1).contiguous() for dy in streams]
        n, width, h, w = like.shape
        dx = empty_map(like, n, count * width, h, w)
        call("senet_join", like.dtype, rows, n * h * w, width, count, threads, dx)
        return dx, None


def squeeze(x: Tensor) -> tuple[Tensor, Tensor]:
    """A map (N, C, H, W), float32 or bfloat16, and its spatial mean (N, C), float32.

    What follows must use the map that is returned, so that both gradients are added in one pass.
    """
    return _Squeeze.apply(x)


def scale(x: Tensor, gates: Tensor, residual: Tensor | None = None) -> Tensor:
    """x * gates, or relu(x * gates + residual); x (N, C, H, W), gates (N, C) float32."""
    return _Scale.apply(x, gates, residual)


def split(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Streams of a map (N, C, H, W), float32 or bfloat16: `count` maps (N, C / count, H, W), the
    second of which is the sum of the first two."""
    return _Split.apply(x, count)
