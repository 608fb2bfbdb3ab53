"""A map taken apart into streams of its channels, and its 2x2 mean."""

# Legend: N images, C channels in s streams of w, H height, W width.

import torch
from torch import Tensor

from senet_lib.kernels.native import as_rows, call, empty_map


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
    def backward(ctx, *streams):
        like, count, threads = streams[0], len(streams), torch.get_num_threads()
        rows = [dy.to(like.dtype).permute(0, 2, 3, 1).contiguous() for dy in streams]
        n, width, h, w = like.shape
        dx = empty_map(like, n, count * width, h, w)
        call("senet_join", like.dtype, rows, n * h * w, width, count, threads, dx)
        return dx, None


class _Pool(torch.autograd.Function):
    """The mean of 2x2 pixels."""

    @staticmethod
    def forward(ctx, x):
        n, c, h, w = x.shape
        y = empty_map(x, n, c, h // 2, w // 2)
        call("senet_pool", x.dtype, as_rows(x), n, h, w, c, torch.get_num_threads(), y)
        return y

    @staticmethod
    def backward(ctx, dy):
        n, c, h, w = dy.shape
        dx, threads = empty_map(dy, n, c, 2 * h, 2 * w), torch.get_num_threads()
        call("senet_pool_back", dy.dtype, as_rows(dy), n, 2 * h, 2 * w, c, threads, dx)
        return dx


def split(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Streams of a map (N, C, H, W), float32 or bfloat16: `count` maps (N, C / count, H, W), the
    second of which is the sum of the first two."""
    return _Split.apply(x, count)


def avg_pool2(x: Tensor) -> Tensor:
    """Mean of 2x2 pixels, (N, C, H, W) to (N, C, H / 2, W / 2); H and W even."""
    return _Pool.apply(x)
