"""A map taken apart into streams of its channels and put together again, and its 2x2 mean."""

# Legend: N images, C channels in s streams of w, H height, W width.

import torch
from torch import Tensor

from senet_lib.kernels.native import as_rows, call, empty_map


class _Split(torch.autograd.Function):
    """The streams of a map, each a map of its own; stream 1 has stream 0 added if asked."""

    @staticmethod
    def forward(ctx, x, count, add):
        x, ldx = as_rows(x, x.dtype)
        ctx.add = add
        return _split(x, ldx, count, add)

    @staticmethod
    def backward(ctx, *streams):
        return _join(streams, ctx.add), None, None


class _Join(torch.autograd.Function):
    """The streams side by side in one map."""

    @staticmethod
    def forward(ctx, *streams):
        ctx.count = len(streams)
        return _join(streams, False)

    @staticmethod
    def backward(ctx, dy):
        return _split(*as_rows(dy, dy.dtype), ctx.count, False)


def _split(x: Tensor, ldx: int, count: int, add: bool) -> tuple[Tensor, ...]:
    n, c, h, w = x.shape
    width = c // count
    rows, threads = n * h * w, torch.get_num_threads()
    streams = tuple(empty_map(x, n, width, h, w) for _ in range(count))
    call("senet_split", x.dtype, (x, ldx, rows, width, count, int(add), threads, streams))
    return streams


def _join(streams: tuple[Tensor, ...], add: bool) -> Tensor:
    rows = [stream.to(streams[0].dtype).permute(0, 2, 3, 1).contiguous() for stream in streams]
    streams = tuple(stream.permute(0, 3, 1, 2) for stream in rows)
    n, width, h, w = streams[0].shape
    count, rows = len(streams), n * h * w
    x = empty_map(streams[0], n, count * width, h, w)
    call("senet_join", x.dtype, (streams, rows, width, count, int(add), torch.get_num_threads(), x))
    return x


class _Pool(torch.autograd.Function):
    """The mean of 2x2 pixels."""

    @staticmethod
    def forward(ctx, x):
        x, ldx = as_rows(x, x.dtype)
        n, c, h, w = x.shape
        y = empty_map(x, n, c, h // 2, w // 2)
        call("senet_pool", x.dtype, (x, ldx, n, h, w, c, torch.get_num_threads(), y))
        return y

    @staticmethod
    def backward(ctx, dy):
        dy, ldy = as_rows(dy, dy.dtype)
        n, c, h, w = dy.shape
        dx = empty_map(dy, n, c, 2 * h, 2 * w)
        call(
            "senet_pool_back", dy.dtype, (dy, ldy, n, 2 * h, 2 * w, c, torch.get_num_threads(), dx)
        )
        return dx


def split(x: Tensor, count: int, *, add: bool = False) -> tuple[Tensor, ...]:
    """Streams of a map (N, C, H, W), float32 or bfloat16: `count` maps (N, C / count, H, W).

    With `add`, stream 1 is the sum of streams 0 and 1.
    """
    return _Split.apply(x, count, add)


def join(streams: list[Tensor]) -> Tensor:
    """s maps (N, w, H, W), float32 or bfloat16, one behind the other: (N, s w, H, W)."""
    return _Join.apply(*streams)


def avg_pool2(x: Tensor) -> Tensor:
    """Mean of 2x2 pixels, (N, C, H, W) to (N, C, H / 2, W / 2); H and W even."""
    return _Pool.apply(x)
