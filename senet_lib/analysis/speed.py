"""How long a network takes and how much memory, and the part of its attention in both: of the
forward pass in eval mode, in fp32, channels last, on the machine at hand."""

# Legend: N images of a batch.

import copy
import logging
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from senet_lib.device import KEEP_PEAKS, Setup, rounding, synchronise
from senet_lib.errors import SenetError
from senet_lib.models.attention import attention_paths
from senet_lib.profiling import Watching, profile_model
from senet_lib.runs.provenance import hardware

QUARTILES = (0.25, 0.5, 0.75)
WARM_UP = 3  # passes before those that are timed


def measure(
    model: nn.Module,
    input_size: Sequence[int],
    batch_size: int,
    *,
    device: str = "auto",
    threads: int = 0,
    repeats: int = 20,
    min_seconds: float = 0.5,
) -> dict[str, Any]:
    """Time and memory of a pass of a copy of the model, and what part its attention has in both.

    Args:
        model: maps `(N, *input_size)` to something; left as it was.
        input_size: (channels, height, width) in pixels.
        batch_size: N, at least 1.
        device: auto, cpu, cuda, mps or xpu.
        threads: CPU threads, 0 for as many as torch takes by itself.
        repeats: about how many passes to time at least, 1 or more.
        min_seconds: least time to spend on them.
    Returns:
        - batch_size, device, machine, threads, num_timed (passes, warm-up apart);
        - latency_ms (median time of a pass by `torch.utils.benchmark`, very short ones in blocks),
          latency_ms_low and latency_ms_high (its quartiles), images_per_second;
        - peak_memory_mib: most memory of tensors at one moment, with weights and batch; on a CPU,
          without what an operator needs inside;
        - attention_num_modules (squeeze to scaled map, without the addition and rectifier after
          it), and fractions of the whole that they are: attention_params and attention_macs, exact;
          attention_time, attention_time_low and attention_time_high (median and quartiles of the
          time between hooks before and after each module, over that of the pass).
    """
    for name, number in (("repeats", repeats), ("batch size", batch_size)):
        if number < 1:
            raise SenetError(f"{name} is {number}; it must be at least 1")
    every, profile = attention_paths(model), profile_model(model, input_size)
    inside = tuple(f"{path}." for path in every)
    paths = [path for path in every if not path.startswith(inside)]  # none within another
    params = sum(p.numel() for path in paths for p in model.get_submodule(path).parameters())
    macs = sum(layer.macs for layer in profile.layers if layer.name.startswith(inside))
    noise = torch.randn(batch_size, *input_size, generator=torch.Generator().manual_seed(0))
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        setup = Setup.choose(device=device, precision="fp32", compile="off", threads=threads)
        stack.enter_context(rounding(tf32=False))  # fp32 means fp32 inside
        network, batch = setup.place(copy.deepcopy(model).float().eval()), setup.place(noise)
        threads = setup.threads
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that CUDA lacks
        from torch.utils.benchmark import Timer

        scope = {"network": network, "batch": batch}
        timer = Timer("network(batch)", globals=scope, num_threads=threads)
        with torch.inference_mode():
            each = timer.timeit(WARM_UP).median
            timed = timer.blocked_autorange(min_run_time=max(min_seconds, each * repeats))
        peak = _peak_bytes(network, batch)
        # A network without attention has nothing to time.
        shares = _time_shares(network, batch, paths, repeats, min_seconds) if paths else [0.0]
    low, median, high = (1000 * float(x) for x in np.quantile(timed.times, QUARTILES))
    share_low, share, share_high = map(float, np.quantile(shares, QUARTILES))
    known = hardware(batch.device)
    return {
        "batch_size": batch_size, "device": batch.device.type, "threads": threads,
        "machine": f"{known.get('gpu') or known.get('cpu')}, torch {torch.__version__}",
        "num_timed": len(timed.times) * timed.number_per_run,
        "latency_ms": median, "latency_ms_low": low, "latency_ms_high": high,
        "images_per_second": 1000 * batch_size / median, "peak_memory_mib": peak / 2**20,
        "attention_num_modules": len(paths),
        "attention_params": params / max(profile.num_params, 1),
        "attention_macs": macs / max(profile.macs, 1), "attention_time": share,
        "attention_time_low": share_low, "attention_time_high": share_high,
    }  # fmt: skip


def _time_shares(
    network: nn.Module, batch: Tensor, paths: Sequence[str], repeats: int, min_seconds: float
) -> list[float]:
    """Of each timed pass, the share that the calls of some modules have."""
    marks: list[Any] = []

    def mark(*_: object) -> None:  # also a hook, which gets arguments
        if batch.is_cuda:
            marks.append(torch.cuda.Event(enable_timing=True))
            marks[-1].record()
        else:
            synchronise(batch.device)
            marks.append(time.perf_counter())

    def between(start: Any, end: Any) -> float:
        return start.elapsed_time(end) if batch.is_cuda else end - start

    for module in map(network.get_submodule, paths):
        module.register_forward_pre_hook(mark)
        module.register_forward_hook(mark)
    shares: list[float] = []
    begun = time.perf_counter()
    with torch.inference_mode():
        for _ in range(WARM_UP):
            network(batch)
        while len(shares) < repeats or time.perf_counter() - begun < min_seconds:
            marks.clear()
            mark()
            network(batch)
            mark()
            synchronise(batch.device)
            first, *within, last = marks
            inside = sum(map(between, within[::2], within[1::2]))
            shares.append(inside / between(first, last))
    return shares


def _peak_bytes(network: nn.Module, batch: Tensor) -> int:
    """Most bytes of tensors at one moment of a pass, weights, buffers and batch included."""
    own = [*network.parameters(), *network.buffers(), batch]
    if batch.device.type in KEEP_PEAKS:
        device, held = batch.device, sum(tensor.nbytes for tensor in own)
        others = torch.accelerator.memory_allocated(device) - held  # of whatever else is there
        torch.accelerator.reset_peak_memory_stats(device)
        with torch.no_grad():
            network(batch)
        return torch.accelerator.max_memory_allocated(device) - others
    alive: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()  # each storage once
    peak = 0

    def count(_: str, found: object) -> None:
        nonlocal peak
        alive.update(t.untyped_storage() for t in tree_leaves(found) if isinstance(t, Tensor))
        peak = max(peak, sum(storage.nbytes() for storage in alive))

    with torch.no_grad(), Watching(count):
        count("", own)
        network(batch)
    return peak
