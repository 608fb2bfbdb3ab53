"""What machine, versions and source a result came from.

PyTorch is imported where a device is asked, since a notebook's commit is wanted without it.
"""

import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    import torch

    from senet_lib import __version__

    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("torchvision", "numpy", *{"timm"} & sys.modules.keys()):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {**found, "senet-lib": __version__}


def hardware(device: "torch.device") -> dict[str, Any]:
    """Processor, its widest instructions, cores, operating system, and the GPU if one is used."""
    import torch

    from senet_lib.kernels.native import has_amx

    found = {"cpu": _cpu_name(), "cores": cores()}
    found["instructions"] = torch.backends.cpu.get_cpu_capability() + " and AMX" * has_amx()
    found["system"] = f"{platform.system()} {platform.machine()}"
    if device.type == "cuda":
        found |= {"cuda": torch.version.cuda, "rocm": torch.version.hip}
        found["cudnn"] = torch.backends.cudnn.version()
    if device.type in ("cuda", "xpu"):
        found["gpu"] = getattr(torch, device.type).get_device_name(device)
    return found


def git_state() -> tuple[str | None, bool | None]:
    """(commit, whether tracked files other than outputs differ from it), or (None, None) outside a
    checkout."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        if not _git(here, "ls-files", "--", __file__):
            return None, None
        but = ("--", ":(top)", ":(top,exclude)outputs")  # a page being published changes nothing
        dirty = bool(_git(here, "status", "--porcelain", "--untracked-files=no", *but))
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, dirty


def peak_memory_mib(device: "torch.device") -> float | None:
    """Peak in MiB: what the allocator held on a GPU, the process's resident set on a CPU; None
    where nothing keeps it, as on Apple's GPUs."""
    import torch

    from senet_lib.device import KEEP_PEAKS

    if device.type in KEEP_PEAKS:
        return torch.accelerator.max_memory_allocated(device) / 2**20
    if device.type != "cpu":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _git(folder: Path, *arguments: str) -> str:
    words = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
