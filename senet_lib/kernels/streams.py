"""A map taken apart into streams of its channels."""

# Legend: N images, C channels in s streams of w, H height, W width.

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    @once_differentiable
    def backward(ctx, *streams):
        like, count, threads = streams[0], len(streams), torch.get_num_threads()
        rows = [dy.to(like.dtype).permute(0, 2, 3, 1).contiguous() for dy in streams]
        n, width, h, w = like.shape
        dx = empty_map(like, n, count * width, h, w)
        call("senet_join", like.dtype, rows, n * h * w, width, count, threads, dx)
        return dx, None


def split(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Streams of a map (N, C, H, W), float32 or bfloat16: `count` maps (N, C / count, H, W), the
    second of which is the sum of the first two."""
    return _Split.apply(x, count)
