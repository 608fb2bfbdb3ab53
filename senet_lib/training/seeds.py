"""Train several seeds of one network, some of them side by side, each in a process of its own.

A small network cannot fill a large GPU, and two processes of one thread each get more out of two
cores than one process of two. Processes share nothing, so each run is the one it would be alone.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from senet_lib.device import accelerator
from senet_lib.errors import RecipeError
from senet_lib.runs.lock import handling, stopping
from senet_lib.runs.provenance import cores

AT_ONCE_ON_GPU = 3  # processes, each of which holds the images and a batch's maps


def train_seeds(
    words: Sequence[str],
    seeds: Sequence[int],
    at_once: int = 0,
    device: str = "auto",
    threads: int | None = None,
    max_minutes: float | None = None,
) -> int:
    """Run `senet train` once for each seed, as in `side_by_side`; a signal stops at checkpoints.

    Args:
        words: what follows `senet train`, without the seed.
        seeds: each 0 or above, each once.
        at_once: how many run side by side; 0 for three of them on a GPU, and on a CPU as many as
            there are cores for.
        device: what the runs will use: auto, cpu, cuda, mps or xpu.
        threads: CPU threads that `words` or a config in them asks for, 0 for all, which is kept
            because a run rounds by it; None if nothing is said, and the cores are shared out.
        max_minutes: for all of them together, above 0.
    """
    if len(set(seeds)) != len(seeds):
        raise RecipeError(f"seeds are {' '.join(map(str, seeds))}; each must be there once")
    if max_minutes is not None and not max_minutes > 0:
        raise RecipeError(f"max_minutes is {max_minutes}; it must be above 0")
    if at_once < 0:
        raise RecipeError(f"at_once is {at_once}; it must be 0 (as many as fit) or above")
    on_gpu = device != "cpu" and bool(accelerator())
    here = cores()
    room = here // (threads or here) if threads is not None else here
    room = AT_ONCE_ON_GPU if on_gpu else room
    at_once = min(at_once or max(1, room), len(seeds))
    words = list(words)
    if threads is None and at_once > 1:
        words += ["--threads", str(max(1, here // at_once))]
    ours = ["train", "--progress", "log", *words, "--seed"]
    commands = {f"seed {seed}": [*ours, str(seed)] for seed in seeds}
    return side_by_side(commands, at_once, max_minutes)


def side_by_side(
    commands: Mapping[str, Sequence[str]], at_once: int, max_minutes: float | None = None
) -> int:
    """Run commands of `senet` and pass on what they print, the name of each before its lines.

    Args:
        commands: the words after `senet`, by name.
        at_once: how many run side by side.
        max_minutes: for all together: each is told what is left, and none begins after that.
    Returns:
        The highest exit code, 128 and its number for a signal. A signal to stop is passed on.
    """
    running: set[subprocess.Popen[str]] = set()
    stopped: list[int] = []
    printing, passing = threading.Lock(), threading.RLock()
    began = time.monotonic()

    def run(name: str) -> int:
        if stopped:
            return 128 + stopped[0]
        limit = []
        if max_minutes is not None:
            left = max_minutes - (time.monotonic() - began) / 60
            limit = ["--max-minutes", f"{left:.4f}"]
            if left < 1e-3:
                with printing:
                    print(f"{name}: not begun within {max_minutes:g} minutes", flush=True)
                return 0
        with subprocess.Popen(
            [sys.executable, "-u", "-m", "senet_lib", *commands[name], *limit],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            start_new_session=True,  # a Ctrl-C reaches it through us alone, once
        ) as process:
            with passing:
                running.add(process)
                for number in stopped[:1]:  # it came while the process was being started
                    process.send_signal(number)
            for line in process.stdout:
                with printing:
                    print(f"{name}: {line}", end="", flush=True)
        running.discard(process)
        if process.returncode >= 0:
            return process.returncode
        killer = signal.Signals(-process.returncode)
        with printing:
            print(f"{name}: ended by {killer.name}", flush=True)
        return 128 + killer

    def stop(number: int, _: object) -> None:
        with passing:
            stopped.append(number)
            for process in list(running):
                process.send_signal(number)

    with handling(stopping(), stop), ThreadPoolExecutor(at_once) as pool:
        return max(pool.map(run, commands))
