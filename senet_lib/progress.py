"""How a run tells what it is doing: a bar where someone watches, plain lines where no one does.

In a notebook run by hand the bar has the curves of loss and error below it (`senet_lib.live`).
"""

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence

from senet_lib.errors import unknown

MODES = ("auto", "live", "bar", "log", "none")
SECONDS_BETWEEN_LINES = 60.0


def choose_mode(mode: str) -> str:
    """Resolve "auto": $SENET_PROGRESS, else live in a notebook, a bar on a terminal, else lines."""
    if mode not in MODES:
        raise unknown("progress mode", mode, MODES)
    wanted = os.environ.get("SENET_PROGRESS")
    if mode == "auto" and wanted in MODES:
        mode = wanted
    if mode == "auto":
        mode = "live" if _in_notebook() else "bar" if sys.stderr.isatty() else "log"
    return "bar" if mode == "live" and not _in_notebook() else mode


def watch(mode: str, *, epochs: int, steps: int, batch_size: int, split: str) -> "Progress":
    """What tells of a run's progress.

    Args:
        mode: auto, live (bar and curves in a notebook), bar, log (lines) or none.
        epochs: epochs of the run.
        steps: steps of an epoch.
        batch_size: images of a step.
        split: what is evaluated, "test" or "val".
    """
    mode = choose_mode(mode)
    if mode == "live":
        from senet_lib.live import LiveProgress as Kind
    else:
        Kind = Progress
    return Kind(mode, epochs=epochs, steps=steps, batch_size=batch_size, split=split)


class Progress:
    """Progress of one run: a tqdm bar over an epoch's steps, and one line at each epoch's end.

    The line has the form of the first source, `Epoch 5 - Loss: 1.02 | Test Acc: 70.2%`. In mode
    "log", an epoch that takes long also says once a minute how far it is.
    """

    def __init__(self, mode: str, *, epochs: int, steps: int, batch_size: int, split: str) -> None:
        self.mode, self.epochs, self.steps = mode, epochs, steps
        self.batch_size, self.split = batch_size, split
        self._bar = None

    def start(self, line: str, history: Sequence[Mapping[str, float]]) -> None:
        """The run begins, or goes on after the epochs of the history; `line` says which it is."""
        self.say(line)

    def start_epoch(self, epoch: int, step: int) -> None:
        """An epoch (counted from 1) begins at `step`, which is not 0 when a run is resumed."""
        self._first_step, self._started = step, time.perf_counter()
        self._last_line, self._epoch = self._started, epoch
        if self.mode == "bar":
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=self.steps,
                initial=step,
                desc=f"Epoch {epoch}/{self.epochs}",
                unit="step",
                leave=False,
                dynamic_ncols=True,
            )

    def advance(self, step: int) -> None:
        """`step` steps of the epoch are done."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        elif self.mode == "log" and step < self.steps:
            now = time.perf_counter()
            if now - self._last_line >= SECONDS_BETWEEN_LINES:
                self._last_line = now
                seconds_per_step = (now - self._started) / (step - self._first_step)
                print(
                    f"  epoch {self._epoch}/{self.epochs}, step {step}/{self.steps}, "
                    f"{self.batch_size / seconds_per_step:.0f} images/s, "
                    f"{(self.steps - step) * seconds_per_step / 60:.1f} min to its end",
                    flush=True,
                )

    def start_measuring(self) -> None:
        """The epoch's steps are done and its error is being measured, which may take a while."""

    def end_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Print the line of the history's last epoch; a test_error that is not a number was not
        measured."""
        self.close()
        last = history[-1]
        known = not math.isnan(last["test_error"])
        accuracy = 100 * (1 - last["test_error"])
        measured = f" | {self.split.capitalize()} Acc: {accuracy:.1f}%" if known else ""
        self.say(f"Epoch {last['epoch']} - Loss: {last['train_loss']:.2f}{measured}")

    def say(self, line: str) -> None:
        """Print a line, unless the mode is "none"."""
        if self.mode != "none":
            print(line, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _in_notebook() -> bool:
    """True inside an IPython kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
