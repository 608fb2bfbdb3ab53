"""Batch normalisation in training, fused with the rectifier and the additions around it.

On a CPU in bf16 half of a small network's step goes into reading and writing maps for operations
that compute almost nothing. The kernels of `fused.cpp` do in one pass over memory what PyTorch does
in several. They are compiled at first use (a few seconds) and kept in the cache folder.

The arithmetic is PyTorch's: bf16 maps, float32 statistics, biased variance for the map and unbiased
for the running average. Only intermediate roundings to bf16 are left out.
"""

# Legend: N images, C channels, H height, W width; rows are the N * H * W pixels.

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

SOURCE = Path(__file__).with_name("fused.cpp")
CACHE = Path("~/.cache/senet").expanduser()
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mfma"),
)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where this machine cannot have them."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if compiler is None or supported is None or not supported():
        return None
    text = SOURCE.read_bytes() + repr((compiler, FLAGS)).encode()
    path = CACHE / f"fused-{hashlib.sha256(text).hexdigest()[:16]}.so"
    try:
        if not path.is_file():
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        subprocess.run(
            [compiler, *FLAGS, str(SOURCE), "-o", str(made)], check=True, capture_output=True
        )
        os.replace(made, path)


def enable(model: nn.Module, wanted: bool = True) -> None:
    """Let the modules of a model use the kernels while it trains, or not."""
    for module in model.modules():
        usual = not isinstance(module, nn.BatchNorm2d) or (
            module.affine and module.track_running_stats and module.momentum is not None
        )
        module.uses_fused_kernels = wanted and usual


def applies(module: nn.Module, x: Tensor) -> bool:
    """Whether the kernels are to do this module's work on this map."""
    allowed = module.training and getattr(module, "uses_fused_kernels", False)
    return allowed and x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.dim() == 4


def _map(x: Tensor | None) -> tuple[Tensor | None, int]:
    """A bfloat16 tensor whose rows are evenly spaced, and their distance in elements."""
    if x is None:
        return None, 0
    x = x.to(torch.bfloat16)
    c, h, w = x.shape[1:]
    step = x.stride(3)
    if x.stride() != (h * w * step, 1, w * step, step) or step < c:
        x = x.contiguous(memory_format=torch.channels_last)
        step = c
    return x, step


def _call(name: str, arguments: Sequence[Tensor | int | None]) -> None:
    """Call a kernel; tensors go as their address, numbers as 64-bit integers."""
    function = getattr(library(), name)
    function.restype = None
    function(
        *(
            ctypes.c_void_p(a.data_ptr())
            if isinstance(a, Tensor)
            else ctypes.c_void_p(None)
            if a is None
            else ctypes.c_int64(a)
            for a in arguments
        )
    )


class _NormAct(torch.autograd.Function):
    """y = act(norm(x) [+ residual]) and, with `plus`, y + plus; also the batch's mean, variance."""

    @staticmethod
    def forward(ctx, x, weight, bias, residual, plus, relu, eps):
        x, ldx = _map(x)
        residual, ldr = _map(residual)
        plus, ldp = _map(plus)
        n, c, h, w = x.shape
        rows, threads = n * h * w, torch.get_num_threads()
        mean, variance = torch.empty(c), torch.empty(c)
        _call("senet_moments", (x, ldx, rows, c, threads, mean, variance))
        invstd = (variance + eps).rsqrt()
        scale = weight * invstd
        shift = bias - mean * scale
        y = torch.empty((n, c, h, w), dtype=x.dtype, memory_format=torch.channels_last)
        total = None if plus is None else torch.empty_like(y)
        _call(
            "senet_apply",
            [
                *(x, ldx, residual, ldr, plus, ldp, scale, shift),
                *(rows, c, int(relu), threads, y, total),
            ],
        )
        ctx.save_for_backward(x, y if relu else None, mean, invstd, weight)
        ctx.relu, ctx.has_residual = relu, residual is not None
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, total, mean, variance

    @staticmethod
    def backward(ctx, dy, dtotal, *_):
        x, y, mean, invstd, weight = ctx.saved_tensors
        dplus = dtotal
        x, ldx = _map(x)
        dy, ldy = _map(dy)
        dtotal, ldt = _map(dtotal)
        if dy is None:
            dy, ldy, dtotal, ldt = dtotal, ldt, None, 0
        n, c, h, w = x.shape
        rows, threads, relu = n * h * w, torch.get_num_threads(), int(ctx.relu)
        gradient = None
        if ctx.has_residual:
            gradient = torch.empty((n, c, h, w), dtype=x.dtype, memory_format=torch.channels_last)
        dbias, moment = torch.empty(c), torch.empty(c)
        _call(
            "senet_reduce",
            [
                *(dy, ldy, dtotal, ldt, x, ldx, y, mean),
                *(rows, c, relu, threads, gradient, dbias, moment),
            ],
        )
        if gradient is not None:  # rectified already
            dy, ldy, dtotal, ldt, relu = gradient, c, None, 0, 0
        slope = weight * invstd
        tilt = -slope * invstd**2 * moment / rows
        level = -slope * dbias / rows
        dx = torch.empty((n, c, h, w), dtype=x.dtype, memory_format=torch.channels_last)
        _call(
            "senet_gradient",
            [
                *(dy, ldy, dtotal, ldt, x, ldx, y, mean, slope, tilt, level),
                *(rows, c, relu, threads, dx),
            ],
        )
        return dx, moment * invstd, dbias, gradient, dplus, None, None


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
    y, total, mean, variance = _NormAct.apply(
        x, norm.weight, norm.bias, residual, plus, relu, norm.eps
    )
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        rows = x.numel() // x.shape[1]
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (rows / max(rows - 1, 1)), norm.momentum)
    return y, total


class _Squeeze(torch.autograd.Function):
    """x itself, and its mean over H and W; one pass backward for the gradients of both."""

    @staticmethod
    def forward(ctx, x):
        x, ldx = _map(x)
        n, c, h, w = x.shape
        mean = torch.empty(n, c)
        _call("senet_squeeze", (x, ldx, n, h * w, c, torch.get_num_threads(), mean))
        return x.view_as(x), mean

    @staticmethod
    def backward(ctx, dx, dmean):
        dx, ldx = _map(dx)
        n, c, h, w = dx.shape
        extra = (dmean / (h * w)).contiguous()
        total = torch.empty((n, c, h, w), dtype=dx.dtype, memory_format=torch.channels_last)
        _call("senet_spread", (dx, ldx, extra, n, h * w, c, torch.get_num_threads(), total))
        return total


class _Scale(torch.autograd.Function):
    """x * gates, or relu(x * gates + residual)."""

    @staticmethod
    def forward(ctx, x, gates, residual):
        x, ldx = _map(x)
        residual, ldr = _map(residual)
        n, c, h, w = x.shape
        wide = gates.float().contiguous()
        y = torch.empty((n, c, h, w), dtype=x.dtype, memory_format=torch.channels_last)
        threads = torch.get_num_threads()
        _call("senet_scale", (x, ldx, residual, ldr, wide, n, h * w, c, threads, y))
        ctx.save_for_backward(x, wide, None if residual is None else y)
        ctx.gates = gates.shape, gates.dtype
        return y

    @staticmethod
    def backward(ctx, dy):
        x, gates, y = ctx.saved_tensors
        x, ldx = _map(x)
        dy, ldy = _map(dy)
        n, c, h, w = x.shape
        dx = torch.empty((n, c, h, w), dtype=x.dtype, memory_format=torch.channels_last)
        gradient, dgates = None if y is None else torch.empty_like(dx), torch.empty(n, c)
        threads = torch.get_num_threads()
        _call(
            "senet_scale_back",
            (dy, ldy, x, ldx, y, gates, n, h * w, c, threads, dx, gradient, dgates),
        )
        shape, dtype = ctx.gates
        return dx, dgates.view(shape).to(dtype), gradient


def squeeze(x: Tensor) -> tuple[Tensor, Tensor]:
    """A map (N, C, H, W), bfloat16, and its spatial mean (N, C), float32.

    What follows must use the map that is returned, so that both gradients are added in one pass.
    """
    return _Squeeze.apply(x)


def scale(x: Tensor, gates: Tensor, residual: Tensor | None = None) -> Tensor:
    """x * gates, or relu(x * gates + residual); x (N, C, H, W), bfloat16, gates (N, C, 1, 1)."""
    return _Scale.apply(x, gates, residual)
