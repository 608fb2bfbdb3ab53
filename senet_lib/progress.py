"""How a run tells what it is doing: a bar where someone watches, plain lines where no one does."""

import math
import os
import sys
import time

from senet_lib.errors import unknown

MODES = ("auto", "bar", "log", "none")
SECONDS_BETWEEN_LINES = 60.0


def choose_mode(mode: str) -> str:
    """Resolve "auto": $SENET_PROGRESS, else a bar on a terminal and in a notebook, else lines."""
    if mode not in MODES:
        raise unknown("progress mode", mode, MODES)
    if mode != "auto":
        return mode
    if (wanted := os.environ.get("SENET_PROGRESS")) in MODES[1:]:
        return wanted
    return "bar" if sys.stderr.isatty() or _in_notebook() else "log"


class Progress:
    """Progress of one run: a tqdm bar over an epoch's steps, and one line at each epoch's end.

    The line has the form of the first source, `Epoch 5 - Loss: 1.02 | Test Acc: 70.2%`. In mode
    "log", an epoch that takes long also says once a minute how far it is.
    """

    def __init__(
        self, mode: str, *, epochs: int, steps: int, batch_size: int, split: str = "test"
    ) -> None:
        self.mode, self.epochs, self.steps = choose_mode(mode), epochs, steps
        self.batch_size, self.split = batch_size, split.capitalize()
        self._bar = None

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

    def end_epoch(self, epoch: int, train_loss: float, test_error: float) -> None:
        """Print the epoch's line; test_error is not a number where nothing was evaluated."""
        self.close()
        known = not math.isnan(test_error)
        accuracy = f" | {self.split} Acc: {100 * (1 - test_error):.1f}%" if known else ""
        self.say(f"Epoch {epoch} - Loss: {train_loss:.2f}{accuracy}")

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
