"""How long a network takes and how much memory, and the part of its attention in both.

Times are of the forward pass in eval mode, in fp32, channels last, on the machine at hand; they say
nothing of another.
"""

# Legend: N images of a batch.

import contextlib
import copy
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from senet_lib.errors import SenetError
from senet_lib.models import create_model, input_size
from senet_lib.models.attention import attention_paths
from senet_lib.profiling import profile_model
from senet_lib.runs.provenance import hardware

if TYPE_CHECKING:
    import pandas as pd

_Mark = float | torch.cuda.Event
QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Time and memory of the forward pass of a batch."""

    batch_size: int
    """Images of a batch."""
    device: str
    """cpu or cuda."""
    threads: int
    """CPU threads."""
    num_timed: int
    """Passes that were timed, warm-up apart."""
    latency_ms: float
    """Median time of a pass."""
    latency_ms_low: float
    """First quartile."""
    latency_ms_high: float
    """Third quartile; the interquartile range reaches from the first to it."""
    images_per_second: float
    """Images of a batch over the median time."""
    peak_memory_mib: float
    """Most memory of tensors at one moment, with weights and batch. On a GPU, the allocator's
    peak; on a CPU, the sum over the tensors that operators return while they are alive, without
    what an operator needs inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShare:
    """Part of a network that is its attention modules; fractions in [0, 1]."""

    num_modules: int
    """Attention modules: those whose path ends in `attention`, squeeze to scaled map."""
    params: float
    """Of all parameters."""
    macs: float
    """Of the closed-form multiply-accumulates."""
    time: float
    """Of the forward pass: median over the passes."""
    time_low: float
    """First quartile."""
    time_high: float
    """Third quartile."""


def measure_speed(
    model: nn.Module,
    input_size: Sequence[int],
    batch_size: int,
    *,
    device: str = "auto",
    threads: int = 0,
    repeats: int = 20,
    min_seconds: float = 0.5,
    warm_up: int = 3,
) -> Speed:
    """Time the forward pass of a copy of the model; the model itself is left as it was.

    Each pass is timed by itself, on a GPU between two device events. Passes go on until there are
    `repeats` of them and `min_seconds` are over.

    Args:
        model: maps (N, *input_size) to something.
        input_size: (channels, height, width) in pixels.
        batch_size: N, at least 1.
        device: auto, cpu or cuda.
        threads: CPU threads, 0 for as many as torch takes by itself.
        repeats: least number of timed passes, at least 1.
        min_seconds: least time to spend on them.
        warm_up: passes before them.
    Raises:
        SenetError: a number out of range, or there is no such device.
    """
    timing = {"repeats": repeats, "min_seconds": min_seconds, "warm_up": warm_up}
    with _prepared(model, input_size, batch_size, device, threads) as (network, batch):
        times = _timed_passes(network, batch, [], **timing)[:, 0]
        if batch.is_cuda:
            peak = torch.cuda.max_memory_allocated(batch.device)
        else:
            peak = _peak_bytes(network, batch)
        low, median, high = np.quantile(times, QUARTILES)
        return Speed(
            batch_size=batch_size,
            device=batch.device.type,
            threads=torch.get_num_threads(),
            num_timed=len(times),
            latency_ms=float(median),
            latency_ms_low=float(low),
            latency_ms_high=float(high),
            images_per_second=1000 * batch_size / float(median),
            peak_memory_mib=peak / 2**20,
        )


def se_share(
    model: nn.Module,
    input_size: Sequence[int],
    batch_size: int,
    *,
    device: str = "auto",
    threads: int = 0,
    repeats: int = 20,
    min_seconds: float = 0.5,
    warm_up: int = 3,
) -> AttentionShare:
    """What part of parameters, multiply-accumulates and time the attention modules have.

    Parameters and multiply-accumulates are exact, by the modules' paths. The time is that between
    hooks before and after each module's call (device events on a GPU), over that of the whole pass;
    addition and rectifier after the module are not in it. Arguments and errors as `measure_speed`.
    """
    timing = {"repeats": repeats, "min_seconds": min_seconds, "warm_up": warm_up}
    paths = attention_paths(model)
    profile = profile_model(model, input_size)
    params = sum(p.numel() for path in paths for p in model.get_submodule(path).parameters())
    inside = tuple(f"{path}." for path in paths)
    macs = sum(layer.macs for layer in profile.layers if layer.name.startswith(inside))
    times = np.array([(1.0, 0.0)])  # a network without attention has nothing to time
    if paths:
        with _prepared(model, input_size, batch_size, device, threads) as (network, batch):
            watched = [network.get_submodule(path) for path in paths]
            times = _timed_passes(network, batch, watched, **timing)
    low, median, high = (float(x) for x in np.quantile(times[:, 1] / times[:, 0], QUARTILES))
    return AttentionShare(
        num_modules=len(paths),
        params=params / profile.num_params,
        macs=macs / profile.macs,
        time=median,
        time_low=low,
        time_high=high,
    )


@contextlib.contextmanager
def _prepared(
    model: nn.Module, input_size: Sequence[int], batch_size: int, device: str, threads: int
) -> Iterator[tuple[nn.Module, Tensor]]:
    """A copy of the model and a batch (N, *input_size) on the device; fp32 means fp32 inside."""
    from senet_lib.device import Setup

    if batch_size < 1:
        raise SenetError(f"batch size is {batch_size}; it must be at least 1")
    before = torch.get_num_threads()
    try:
        setup = Setup.choose(device=device, precision="fp32", compile="off", threads=threads)
        network = copy.deepcopy(model).float().eval()
        network = network.to(setup.device, memory_format=torch.channels_last)
        noise = torch.randn(batch_size, *input_size, generator=torch.Generator().manual_seed(0))
        batch = noise.to(setup.device, memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield network, batch
    finally:
        torch.set_num_threads(before)


def _timed_passes(
    network: nn.Module,
    batch: Tensor,
    watched: Sequence[nn.Module],
    *,
    repeats: int,
    min_seconds: float,
    warm_up: int,
) -> np.ndarray:
    """(passes, 2): milliseconds of each pass, and of the calls of watched modules within it."""
    if repeats < 1 or warm_up < 0:
        raise SenetError(f"{repeats} repeats and {warm_up} to warm up; give at least 1 and 0")
    marks: list[_Mark] = []
    mark = partial(_mark, marks, batch.is_cuda)
    for module in watched:
        module.register_forward_pre_hook(mark)
        module.register_forward_hook(mark)
    times: list[tuple[float, float]] = []
    with torch.inference_mode():
        for _ in range(warm_up):
            network(batch)
        if batch.is_cuda:
            torch.cuda.reset_peak_memory_stats(batch.device)
        begun = time.perf_counter()
        while len(times) < repeats or time.perf_counter() - begun < min_seconds:
            marks.clear()
            mark()
            network(batch)
            mark()
            if batch.is_cuda:
                torch.cuda.synchronize(batch.device)
            first, *within, last = marks
            inside = sum(map(_milliseconds, within[::2], within[1::2]))
            times.append((_milliseconds(first, last), inside))
    return np.array(times)


def _mark(marks: list[_Mark], cuda: bool, *_: object) -> None:
    """Note this moment: on a GPU in its own stream of work. Also a hook, which gets arguments."""
    if cuda:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        marks.append(event)
    else:
        marks.append(time.perf_counter())


def _milliseconds(start: _Mark, end: _Mark) -> float:
    return 1000 * (end - start) if isinstance(start, float) else start.elapsed_time(end)


def _peak_bytes(network: nn.Module, batch: Tensor) -> int:
    """Most bytes of tensors at one moment of a pass, weights, buffers and batch included."""
    live = _LiveTensors([*network.parameters(), *network.buffers(), batch])
    with torch.no_grad(), live:
        network(batch)
    return live.peak


class _LiveTensors(TorchDispatchMode):
    """Adds up the memory of the tensors that operators return, while they are alive."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0
        self.kept = [self._add(tensor) for tensor in tensors]

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value)
        return result

    def _add(self, tensor: Tensor) -> torch.UntypedStorage:
        """Count the tensor's memory, if it is not that of another, until it is freed."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key)
        return storage

    def _free(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def measure_networks(
    names: Sequence[str],
    batch_sizes: Sequence[int],
    *,
    device: str = "auto",
    threads: int = 0,
    repeats: int = 20,
    min_seconds: float = 0.5,
    warm_up: int = 3,
) -> "pd.DataFrame":
    """Speed and attention's share of registered networks, one row a network and batch size.

    Returns:
        model, machine, the fields of `Speed`, and those of `AttentionShare` after `attention_`.
    """
    import pandas as pd

    rows = []
    for name in names:
        model, size = create_model(name), input_size(name)
        for batch_size in batch_sizes:
            options = {"device": device, "threads": threads, "repeats": repeats,
                       "min_seconds": min_seconds, "warm_up": warm_up}  # fmt: skip
            speed = asdict(measure_speed(model, size, batch_size, **options))
            share = asdict(se_share(model, size, batch_size, **options))
            share = {f"attention_{key}": value for key, value in share.items()}
            rows.append({"model": name, "machine": _machine(speed["device"]), **speed, **share})
    return pd.DataFrame(rows)


def _machine(device: str) -> str:
    """Name of the processor that computes, and the version of torch."""
    known = hardware(torch.device(device))
    return f"{known.get('gpu') or known.get('cpu')}, torch {torch.__version__}"
