"""Where and how the arithmetic is done."""

import contextlib
import ctypes
import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet_lib import kernels
from senet_lib.errors import RecipeError
from senet_lib.recipe import DEVICES, check_study

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KEEP_PEAKS = ("cuda", "xpu")  # devices whose allocator knows the most memory it has given out
_OWN_THREADS: list[int] = []  # the number before `choose` first set another
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Where and how the arithmetic is done; every choice made."""

    device: str  # "cpu", or an accelerator: "cuda", "mps" (Apple), "xpu" (Intel)
    precision: str  # "fp32", or "bf16" for bf16 autocast with fp32 weights
    compile: bool  # whether the forward and backward pass go through torch.compile
    threads: int  # CPU threads
    fused: bool = False  # whether `senet_lib.kernels` does convolutions, normalisations and gates
    kernels_missing: str = ""  # why neither they nor torch.compile, where wanted; one line

    @classmethod
    def choose(cls, *, device: str, precision: str, compile: str, threads: int) -> "Setup":
        """Replace each "auto" by what suits this machine.

        Args:
            device: cpu, cuda, mps or xpu; auto takes the accelerator that is there.
            precision: fp32 or bf16; auto takes bf16 where it is known to be fast.
            compile: on for torch.compile, off for plain PyTorch; auto takes torch.compile on CUDA,
                and on a CPU our own kernels, which are built in seconds where torch.compile takes
                a minute or more.
            threads: CPU threads, 0 for as many as torch takes by itself.
        """
        asked = {"device": device, "precision": precision, "compile": compile, "threads": threads}
        for name, value in asked.items():
            check_study(value, name)
        here = accelerator()
        if device not in ("auto", "cpu", here):
            raise RecipeError(f"no {device} device was found; use --device {here or 'cpu'}")
        if device == "auto":
            device = here or "cpu"
        auto = compile == "auto"
        compiled = compile == "on" or (auto and device == "cuda")
        why_not = f"torch.compile needs {lack}" if compiled and (lack := _lacking(device)) else ""
        if compile == "on" and why_not:
            raise RecipeError(f"{why_not}; use --compile off")
        if threads:
            _OWN_THREADS[:] = _OWN_THREADS or [torch.get_num_threads()]
            torch.set_num_threads(threads)
        elif _OWN_THREADS:
            torch.set_num_threads(_OWN_THREADS.pop())
        if precision == "auto":
            precision = "bf16" if _bf16_is_fast(device) else "fp32"
        wanted = auto and device == "cpu"
        why_not = kernels.missing(DTYPES[precision]) if wanted else why_not
        return cls(
            device=device,
            precision=precision,
            compile=compiled and not why_not,
            fused=wanted and not why_not,
            kernels_missing=why_not,
            threads=torch.get_num_threads(),
        )

    def place(self, thing: Any) -> Any:
        """A network or a batch (N, C, H, W), on the device and as maps lie there."""
        if not isinstance(thing, nn.Module):
            return thing.to(self.device, memory_format=memory_format(self.device))
        # `Module.to` refuses a format where there are weights of five dimensions.
        layout = {"memory_format": memory_format(self.device)}
        return thing.to(self.device)._apply(lambda t: t.to(**layout) if t.dim() == 4 else t)


def accelerator() -> str:
    """The accelerator at hand, one of `DEVICES`; "" where there is none."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found and found.type in DEVICES else ""


def memory_format(device: str) -> torch.memory_format:
    """How maps lie in memory: channels last, but not on Apple's GPUs, where the gradient of a batch
    normalisation is then wrong (github.com/pytorch/pytorch/issues/175189)."""
    return torch.contiguous_format if device == "mps" else torch.channels_last


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _bf16_is_fast(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and kernels.bf16_is_fast()


def _lacking(device: str) -> str:
    """What torch.compile needs beside torch and lacks here; empty if nothing."""
    if device not in ("cpu", "cuda"):
        return "a CPU or CUDA"
    if not any(shutil.which(name) for name in ("g++", "clang++")):
        return "a C++ compiler (g++ or clang++)"
    if device == "cpu":
        return ""
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "Python's header files"
    if importlib.util.find_spec("triton") is None:
        return "Triton"
    return "" if torch.cuda.get_device_capability() >= (7, 0) else "compute capability 7.0"


@contextlib.contextmanager
def rounding(*, tf32: bool) -> Iterator[None]:
    """Context in which no input of an fp32 convolution or matrix product is rounded, or with tf32
    as PyTorch is set: by default, a GPU rounds those of convolutions to 10 bits."""
    if tf32:
        yield
        return
    # PyTorch has newer switches and older ones, and refuses to read an older one while the newer
    # say otherwise. While these say "ieee", the first older one can be read, the second if False.
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    newer = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul, mkldnn.conv, mkldnn.matmul)
    kept = [switch.fp32_precision for switch in newer]
    for switch in newer:
        switch.fp32_precision = "ieee"
    products, convolutions = torch.get_float32_matmul_precision(), True
    with contextlib.suppress(RuntimeError):
        convolutions = cudnn.allow_tf32

    def put(products: str, convolutions: bool, precisions: list[str]) -> None:
        torch.set_float32_matmul_precision(products)
        cudnn.allow_tf32 = convolutions
        for switch, precision in zip(newer, precisions, strict=True):
            switch.fp32_precision = "none"  # which takes over what is set for all
            if switch.fp32_precision != precision:
                switch.fp32_precision = precision

    put("highest", False, ["ieee"] * len(newer))
    try:
        yield
    finally:
        put(products, convolutions, kept)


def keep_freed_memory() -> None:
    """Let the process keep the memory it frees; does nothing but with glibc.

    By its defaults each large tensor of a step is mapped, cleared page by page and unmapped anew.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL("libc.so.6").mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, -1)


def computed_on(how: Any) -> str:
    """What a `Setup` or a record was computed on and with, such as "cpu, fp32, kernels"."""
    faster = ", compiled" if how.compile else ", kernels" if how.fused else ""
    return f"{how.device}, {how.precision}{faster}"
