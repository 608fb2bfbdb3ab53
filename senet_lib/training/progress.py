"""How a run tells what it is doing: a bar where someone watches, plain lines where no one does.

In a notebook run by hand the bar has the curves of loss and error below it.
"""

import base64
import html
import io
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from senet_lib.errors import counted, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODES = ("auto", "live", "bar", "log", "none")
SECONDS_BETWEEN_LINES = 60.0


def choose_mode(mode: str) -> str:
    """Resolve "auto": $SENET_PROGRESS, else live in a notebook, a bar on a terminal, else lines."""
    if mode not in MODES:
        raise unknown("progress mode", mode, MODES)
    wanted, by_hand = os.environ.get("SENET_PROGRESS"), _in_notebook()
    if mode == "auto" and wanted in MODES:
        mode = wanted
    if mode == "auto":
        mode = "live" if by_hand else "bar" if sys.stderr.isatty() else "log"
    return "bar" if mode == "live" and not by_hand else mode


def watch(mode: str, **size: Any) -> "Progress":
    """What tells of a run's progress, in a mode of `fit`; of what size, as in `Progress`."""
    mode = choose_mode(mode)
    return (LiveProgress if mode == "live" else Progress)(mode, **size)


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

            look = {"unit": "step", "leave": False, "dynamic_ncols": True}
            about = f"Epoch {epoch}/{self.epochs}"
            self._bar = tqdm(total=self.steps, initial=step, desc=about, **look)

    def advance(self, step: int) -> None:
        """`step` steps of the epoch are done."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        elif self.mode == "log" and step < self.steps:
            now = time.perf_counter()
            if now - self._last_line >= SECONDS_BETWEEN_LINES:
                self._last_line = now
                seconds_per_step = (now - self._started) / (step - self._first_step)
                self.say(
                    f"  epoch {self._epoch}/{self.epochs}, step {step}/{self.steps}, "
                    f"{self.batch_size / seconds_per_step:.0f} images/s, "
                    f"{(self.steps - step) * seconds_per_step / 60:.1f} min to its end"
                )

    def start_measuring(self) -> None:
        """The epoch's steps are done and its error is being measured, which may take a while."""

    def end_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Print the line of the history's last epoch; a test_error that is not a number was not
        measured."""
        self.close()
        last = history[-1]
        line = f"Epoch {last['epoch']} - Loss: {last['train_loss']:.2f}"
        if not math.isnan(last["test_error"]):
            line += f" | {self.split.capitalize()} Acc: {100 * (1 - last['test_error']):.1f}%"
        self.say(line)

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


# The curves of a run by hand

BLUE = "#0072B2"
SECONDS_BETWEEN_REDRAWS = 0.2
MOST_MARKERS = 12  # epochs; more of them would touch
SHORTEST_AXIS = 10  # epochs; of a long run the axis doubles whenever the curves have filled it
# The first picture comes into sight, for Run All has gone to the end, and as cells are laid out.
COME_INTO_SIGHT = """onload="for (const ms of [0, 300, 1000])
    setTimeout(() => this.scrollIntoView({block: 'center'}), ms)" """
TRACK = "background: rgba(128, 128, 128, 0.25); border-radius: 4px; max-width: 824px"


class LiveProgress(Progress):
    """Progress of one run as a bar over all its epochs, with the curves below it.

    Where it is no longer updated, in a saved notebook, it says how far the run had come.
    """

    def start(self, line: str, history: Sequence[Mapping[str, float]]) -> None:
        from IPython.display import display

        self.say(line)
        self._history, self._done = history, False
        self._epoch, self._step = len(history) + 1, 0
        self._first, self._began = None, time.perf_counter()
        where = f"epoch {self._epoch} of {self.epochs}"
        self._bar = display(self._state(where), raw=True, display_id=True)
        self._curves = display(self._picture(COME_INTO_SIGHT), raw=True, display_id=True)

    def start_epoch(self, epoch: int, step: int) -> None:
        self._epoch, self._step = epoch, step
        self._first_step, self._started = step, time.perf_counter()
        if self._first is None:
            self._first, self._began = self._steps_done(), self._started
        self._redraw_bar(self._where() + self._left())

    def advance(self, step: int) -> None:
        self._step = step
        now = time.perf_counter()
        if now - self._drawn < SECONDS_BETWEEN_REDRAWS:
            return
        speed = (step - self._first_step) * self.batch_size / (now - self._started)
        self._redraw_bar(f"{self._where()}; {speed:,.0f} images/s{self._left()}")

    def start_measuring(self) -> None:
        self._redraw_bar(f"{self._where()}; measuring the error{self._left()}")

    def end_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        self._history, self._done = history, len(history) == self.epochs
        self._curves.update(self._picture(), raw=True)
        if self._done:
            last = history[-1]
            self._redraw_bar(
                f"{counted(self.epochs, 'epoch')} in {_duration(last['wall_seconds'])}; "
                f"{self.split} error {100 * last['test_error']:.2f} %"
            )

    def close(self) -> None:
        if not self._done:
            self._redraw_bar(f"stopped in {self._where()}", color="gray")

    def _redraw_bar(self, text: str, color: str = BLUE) -> None:
        self._drawn = time.perf_counter()
        self._bar.update(self._state(text, color), raw=True)

    def _state(self, text: str, color: str = BLUE) -> dict[str, str]:
        """The bar as HTML and as text."""
        share = 1.0 if self._done else self._steps_done() / (self.epochs * self.steps)
        bar = (
            f'<div role="progressbar" aria-label="training" aria-valuemin="0" aria-valuemax="100" '
            f'aria-valuenow="{100 * share:.0f}" style="{TRACK}"><div class="senet-bar" '
            f'style="width: {100 * share:.2f}%; height: 8px; border-radius: 4px; '
            f'background: {color}"></div></div>'
        )
        words = f'<div class="senet-words" style="padding-top: 4px">{html.escape(text)}</div>'
        return {"text/html": bar + words, "text/plain": text}

    def _steps_done(self) -> int:
        return (self._epoch - 1) * self.steps + self._step

    def _where(self) -> str:
        return f"epoch {self._epoch} of {self.epochs}, step {self._step} of {self.steps}"

    def _left(self) -> str:
        """How long it will take to the run's end, once a step has been taken."""
        steps = self._steps_done() - self._first
        if not steps:
            return ""
        seconds = (time.perf_counter() - self._began) / steps
        left = self.epochs * self.steps - self._steps_done()
        return f"; about {_duration(seconds * left)} left"

    def _picture(self, attribute: str = "") -> dict[str, str]:
        """The curves as HTML and as text."""
        said = describe_curves(self._history, self.epochs, self.split)
        file = io.BytesIO()
        draw_curves(self._history, self.epochs, self.split).savefig(file, format="png", dpi=120)
        picture = base64.b64encode(file.getvalue()).decode()
        image = (
            f'<img {attribute}class="senet-curves" alt="{html.escape(said)}" width="824" '
            f'style="max-width: 100%; height: auto" src="data:image/png;base64,{picture}">'
        )
        return {"text/html": image, "text/plain": said}


def _duration(seconds: float) -> str:
    """A time in the unit in which it is read most easily."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def describe_curves(history: Sequence[Mapping[str, float]], epochs: int, split: str) -> str:
    """The curves in words, for those who do not see them."""
    if not history:
        return f"No epoch of {epochs} is done yet."
    last = history[-1]
    measured = [row["test_error"] for row in history if not math.isnan(row["test_error"])]
    error = f", {split} error {100 * measured[-1]:.1f} percent" if measured else ""
    return (
        f"Loss and error after epoch {last['epoch']} of {epochs}: training loss "
        f"{last['train_loss']:.3g}{error}."
    )


def draw_curves(history: Sequence[Mapping[str, float]], epochs: int, split: str) -> "Figure":
    """Loss and error of each epoch, with room for those to come; what is not finite is left out."""
    from matplotlib.figure import Figure

    end = SHORTEST_AXIS
    while end <= len(history):
        end *= 2
    end = epochs if epochs <= 2 * end else end
    figure = Figure(figsize=(8.24, 2.6), layout="constrained")
    for axes, (kind, unit, scale) in zip(
        figure.subplots(1, 2), (("loss", "nats", 1), ("error", "%", 100)), strict=True
    ):
        for which, name, look in (
            ("train", "training batches", {"color": "gray", "linestyle": "--"}),
            ("test", f"{split} images", {"color": BLUE}),
        ):
            points = [(row["epoch"], scale * row[f"{which}_{kind}"]) for row in history]
            points = [point for point in points if math.isfinite(point[1])]
            marker = "o" if end <= MOST_MARKERS or len(points) == 1 else ""
            x, y = zip(*points, strict=True) if points else ((), ())
            axes.plot(x, y, label=name, marker=marker, markersize=4, **look)
        axes.set(title=f"{kind} ({unit})", xlabel="epoch", xlim=(0.8, end + 0.2))
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])  # the highest point is whole
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend()
    return figure
