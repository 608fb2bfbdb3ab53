"""Builds the C++ kernels and calls them."""

import ctypes
import functools
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from senet_lib.files import sha256_of

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
CACHE = Path(os.path.expanduser("~/.cache/senet"))
INCLUDE = Path(torch.__file__).parent / "include"
FLAGS = (
    *("-std=c++20", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", f"-I{INCLUDE}"),
    *(("-fopenmp",) if sys.platform == "linux" else ()),
)
# What chooses the width of PyTorch's Vectorized; DEFAULT is NEON on ARM and no vectors elsewhere.
INSTRUCTION_SETS = {
    "DEFAULT": ("-DCPU_CAPABILITY=DEFAULT",),
    "AVX2": ("-mavx2", "-mfma", "-mf16c", "-DCPU_CAPABILITY_AVX2", "-DCPU_CAPABILITY=AVX2"),
    "AVX512": (
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"),
        *("-DCPU_CAPABILITY_AVX512", "-DCPU_CAPABILITY=AVX512"),
    ),
}
ELEMENTS = {torch.float32: "float", torch.bfloat16: "c10::BFloat16"}


class KernelsMissingError(Exception):
    """Why there are no kernels; one line."""


def instruction_set() -> str:
    """The widest set of instructions here that the kernels are written for."""
    found = torch.backends.cpu.get_cpu_capability()
    return found if found in INSTRUCTION_SETS else "DEFAULT"


def flags(instructions: str, dtype: torch.dtype) -> tuple[str, ...]:
    """The compiler's, for one set of instructions and one type of a map's elements."""
    bf16 = instructions == "AVX512" and bf16_is_fast()
    more = ("-mavx512bf16",) if bf16 else ()
    return (*FLAGS, *INSTRUCTION_SETS[instructions], *more, f"-DELEMENT={ELEMENTS[dtype]}")


def bf16_is_fast() -> bool:
    """Whether the processor computes in bfloat16."""
    return getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()  # no, if torch cannot say


def has_amx() -> bool:
    """Whether the processor multiplies tiles of matrices in bfloat16."""
    return getattr(torch.cpu, "_is_amx_tile_supported", bool)()


def is_intel() -> bool:
    """Whether Intel made the processor; its products in bfloat16 are faster by AMX alone."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "Intel" in capabilities.get("cpu_name", "")


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL:
    """The kernels for maps of this type, compiled unless they are in the cache folder;
    KernelsMissingError where this machine cannot have them."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise KernelsMissingError("no C++ compiler (g++ or clang++) was found")
    if not CACHE.is_absolute():
        raise KernelsMissingError("there is no home folder to keep them in")
    if dtype not in ELEMENTS:
        raise KernelsMissingError(f"there are none for {dtype}")
    chosen = flags(instruction_set(), dtype)
    text = b"".join(file.read_bytes() for file in (*SOURCES, *HEADERS))
    text += repr((compiler, chosen, torch.__version__)).encode()
    stem = CACHE / f"kernels-{hashlib.sha256(text).hexdigest()[:16]}"
    try:
        # To load a damaged file may kill the process.
        found = [path for path in CACHE.glob(f"{stem.name}-*.so") if path == _named(stem, path)]
        return ctypes.CDLL(str(found[0] if found else build(compiler, chosen, stem)))
    except subprocess.CalledProcessError as error:
        line = next((line for line in error.stderr.decode().splitlines() if "error" in line), "")
        raise KernelsMissingError(f"{Path(compiler).name} failed: {line[:200]}") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise KernelsMissingError(f"{where}{error.strerror or error}") from error


@functools.cache
def missing(dtype: torch.dtype) -> str:
    """Why there are no kernels for maps of this type, or nothing if there are."""
    try:
        library(dtype)
    except KernelsMissingError as error:
        return str(error)
    return ""


def build(compiler: str, chosen: Sequence[str], stem: Path) -> Path:
    """Compile the sources side by side and link them; returns the file, whose name is the stem and
    the SHA-256 of what it holds when it is whole."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=stem.parent) as folder:
        objects = [str(Path(folder) / f"{source.stem}.o") for source in SOURCES]
        commands = [
            [compiler, *chosen, "-c", str(source), "-o", made]
            for source, made in zip(SOURCES, objects, strict=True)
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(_run, commands))
        linked = Path(folder) / "kernels.so"
        _run([compiler, *chosen, "-shared", *objects, "-o", str(linked)])
        return linked.replace(_named(stem, linked))


def _named(stem: Path, file: Path) -> Path:
    return stem.with_name(f"{stem.name}-{sha256_of(file)[:16]}.so")


def _run(command: Sequence[str]) -> None:
    # In a session of its own, so that a Ctrl-C, which stops a run at a checkpoint, lets it finish.
    subprocess.run(command, check=True, capture_output=True, start_new_session=True)


def as_rows(x: Tensor | None, dtype: torch.dtype | None = None) -> tuple[Tensor | None, int]:
    """A map, perhaps in another type, whose rows are evenly spaced, and their distance in
    elements."""
    if x is None:
        return None, 0
    x = x.to(dtype or x.dtype)
    c, h, w = x.shape[1:]
    rows, step = x.permute(0, 2, 3, 1), x.stride(3)
    if rows.is_contiguous():
        return x, c
    if step >= c and x.stride() == (h * w * step, 1, w * step, step):
        return x, step
    return rows.contiguous().permute(0, 3, 1, 2), c


def numbers(*shape: int) -> Tensor:
    """Uninitialised numbers, float32 on the CPU whatever the defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def empty_map(like: Tensor, n: int, c: int, h: int, w: int) -> Tensor:
    """An uninitialised map (N, C, H, W), channels last, of the type of another."""
    return torch.empty(n, h, w, c, dtype=like.dtype).permute(0, 3, 1, 2)


Argument = Tensor | list[Tensor] | int | float | None


def call(name: str, dtype: torch.dtype, *arguments: Argument | tuple[Argument, ...]) -> int:
    """Call a kernel for maps of this type; tensors go as their address, a list as an array of
    addresses, numbers as 64-bit integers or floating-point numbers, a tuple as what is in it."""
    function = getattr(library(dtype), name)
    function.restype = ctypes.c_int64
    groups = (each if isinstance(each, tuple) else (each,) for each in arguments)
    return function(*map(_passed, itertools.chain.from_iterable(groups)))


def _passed(argument: Argument) -> object:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, list):
        return (ctypes.c_void_p * len(argument))(*(each.data_ptr() for each in argument))
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    return ctypes.c_void_p(None) if argument is None else ctypes.c_int64(argument)
