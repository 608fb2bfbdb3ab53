"""Builds the C++ kernels and calls them."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
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
    text = b"".join(file.read_bytes() for file in (*SOURCES, *HEADERS))
    text += repr((compiler, FLAGS)).encode()
    path = CACHE / f"fused-{hashlib.sha256(text).hexdigest()[:16]}.so"
    try:
        if not path.is_file():
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def _compile(compiler: str, path: Path) -> None:
    """Compile the sources side by side and link them; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        objects = [str(Path(folder) / f"{source.stem}.o") for source in SOURCES]
        commands = [
            [compiler, *FLAGS, "-c", str(source), "-o", made]
            for source, made in zip(SOURCES, objects, strict=True)
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(_run, commands))
        linked = Path(folder) / path.name
        _run([compiler, *FLAGS, *objects, "-o", str(linked)])
        os.replace(linked, path)


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def as_rows(x: Tensor | None) -> tuple[Tensor | None, int]:
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


def empty_map(n: int, c: int, h: int, w: int) -> Tensor:
    """An uninitialised map (N, C, H, W), bfloat16, channels last."""
    return torch.empty((n, c, h, w), dtype=torch.bfloat16, memory_format=torch.channels_last)


Argument = Tensor | Sequence[Tensor] | int | float | None


def call(name: str, arguments: Sequence[Argument]) -> int:
    """Call a kernel; tensors go as their address, several as an array of addresses, numbers as
    64-bit integers or floating-point numbers."""
    function = getattr(library(), name)
    function.restype = ctypes.c_int64
    return function(*map(_passed, arguments))


def _passed(argument: Argument) -> object:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, Sequence):
        return (ctypes.c_void_p * len(argument))(*(each.data_ptr() for each in argument))
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    return ctypes.c_void_p(None) if argument is None else ctypes.c_int64(argument)
