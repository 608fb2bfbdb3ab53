"""How a run tells what it is doing: a bar where someone watches, plain lines where no one does.

In a notebook run by hand the bar has the curves of loss and error below it.
"""

import html
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence

from senet_lib.errors import unknown
from senet_lib.wording import counted, percent

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
    kind = LiveProgress if mode == "live" else Progress
    return kind(mode, epochs=epochs, steps=steps, batch_size=batch_size, split=split)


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


# The curves of a run by hand

BLUE = "#0072B2"

SECONDS_BETWEEN_REDRAWS = 0.2
MOST_MARKERS = 12  # epochs; more of them would touch
SHORTEST_AXIS = 10  # epochs; of a long run the axis doubles whenever the curves have filled it
WIDTH, HEIGHT = 824, 260  # CSS pixels
PANEL_WIDTH, PANEL_HEIGHT, TOP = 340, 188, 30
LEFTS = (40, 474)
KINDS = (("loss", "loss (nats)", 1, 2.5), ("error", "error (%)", 100, 100))  # scale, empty axis
TRAIN, TEST = ("currentColor", 0.6, "6 4"), (BLUE, 1, "none")  # colour, opacity, dashes
TRACK = "background: rgba(128, 128, 128, 0.25); border-radius: 4px; max-width: 824px"


class LiveProgress(Progress):
    """Progress of one run as a bar over all its epochs, with the curves below it.

    Where it is no longer updated, in a saved notebook, it says how far the run had come.
    """

    def start(self, line: str, history: Sequence[Mapping[str, float]]) -> None:
        """Put the bar and the curves so far where the cell's output stands."""
        from IPython.display import display

        self.say(line)
        self._history, self._done = history, False
        self._epoch, self._step = len(history) + 1, 0
        self._first, self._began = None, time.perf_counter()
        where = f"epoch {self._epoch} of {self.epochs}"
        self._bar = display(self._state(where), raw=True, display_id=True)
        self._curves = display(self._picture(), raw=True, display_id=True)

    def start_epoch(self, epoch: int, step: int) -> None:
        """An epoch (counted from 1) begins at `step`, which is not 0 when a run is resumed."""
        self._epoch, self._step = epoch, step
        self._first_step, self._started = step, time.perf_counter()
        if self._first is None:
            self._first, self._began = self._steps_done(), self._started
        self._redraw_bar(self._where() + self._left())

    def advance(self, step: int) -> None:
        """`step` steps of the epoch are done."""
        self._step = step
        now = time.perf_counter()
        if now - self._drawn < SECONDS_BETWEEN_REDRAWS:
            return
        speed = (step - self._first_step) * self.batch_size / (now - self._started)
        self._redraw_bar(f"{self._where()}; {speed:,.0f} images/s{self._left()}")

    def start_measuring(self) -> None:
        """The epoch's steps are done and its error is being measured."""
        self._redraw_bar(f"{self._where()}; measuring the error{self._left()}")

    def end_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Redraw the curves with the history's last epoch."""
        self._history, self._done = history, len(history) == self.epochs
        self._curves.update(self._picture(), raw=True)
        if self._done:
            last = history[-1]
            self._redraw_bar(
                f"{counted(self.epochs, 'epoch')} in {_duration(last['wall_seconds'])}; "
                f"{self.split} error {percent(last['test_error'])} %"
            )

    def close(self) -> None:
        """Say in the bar's place that the run has stopped, if it is not done."""
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
        return (
            f"; about {_duration(seconds * (self.epochs * self.steps - self._steps_done()))} left"
        )

    def _picture(self) -> dict[str, str]:
        """The curves as HTML and as text."""
        return {
            "text/html": curves_svg(self._history, self.epochs, self.split),
            "text/plain": describe_curves(self._history, self.epochs, self.split),
        }


def _duration(seconds: float) -> str:
    """A time in the unit in which it is read most easily."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def describe_curves(history: Sequence[Mapping[str, float]], epochs: int, split: str) -> str:
    """The curves in words, for those who do not see them.

    Args:
        history: one row an epoch; errors are fractions.
        epochs: epochs of the run.
        split: what is evaluated, "test" or "val".
    """
    if not history:
        return f"No epoch of {epochs} is done yet."
    last = history[-1]
    measured = [row["test_error"] for row in history if not math.isnan(row["test_error"])]
    error = f", {split} error {100 * measured[-1]:.1f} percent" if measured else ""
    return (
        f"Loss and error after epoch {last['epoch']} of {epochs}: training loss "
        f"{last['train_loss']:.3g}{error}."
    )


def curves_svg(history: Sequence[Mapping[str, float]], epochs: int, split: str) -> str:
    """Loss and error over the epochs as SVG, on an axis with room for the epochs to come.

    Text and grid have the colour of the page's text, so that they can be read on light and dark.

    Args:
        history: one row an epoch, with epoch and train_ and test_ loss and error; errors are
            fractions; what is not a number is left out.
        epochs: epochs of the run.
        split: what is evaluated, "test" or "val".
    """
    said = html.escape(describe_curves(history, epochs, split))
    end = SHORTEST_AXIS
    while end <= len(history):
        end *= 2
    end = epochs if epochs <= 2 * end else end
    panels = "".join(
        _panel(left, title, _points(history, kind, scale), empty, end)
        for left, (kind, title, scale, empty) in zip(LEFTS, KINDS, strict=True)
    )
    return (
        f'<svg class="senet-curves" role="img" aria-label="{said}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" style="max-width: 100%; height: auto" fill="none" '
        'font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">'
        f"{panels}{_legend(split)}</svg>"
    )


def _points(
    history: Sequence[Mapping[str, float]], kind: str, scale: float
) -> dict[str, list[tuple[float, float]]]:
    """Epochs and values of both curves of a panel."""
    return {
        which: [
            (row["epoch"], scale * row[f"{which}_{kind}"])
            for row in history
            if math.isfinite(row[f"{which}_{kind}"])
        ]
        for which in ("train", "test")
    }


def _panel(
    left: int,
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    empty: float,
    epochs: int,
) -> str:
    """One set of axes with the curve of training dashed and that of the evaluated images solid."""
    values = [value for points in curves.values() for _, value in points]
    rows = _ticks(max(values, default=empty) or empty)
    columns = sorted({max(1, tick) for tick in _ticks(epochs, whole=True) if tick <= epochs})
    bottom = TOP + PANEL_HEIGHT

    def x(epoch: float) -> float:
        return left + 8 + (PANEL_WIDTH - 16) * (epoch - 1) / max(epochs - 1, 1)

    def y(value: float) -> float:
        return bottom - PANEL_HEIGHT * value / rows[-1]

    parts = [_text(left, TOP - 12, title, "start", "bold")]
    for tick in rows:
        parts.append(_line(left, y(tick), left + PANEL_WIDTH, y(tick), 0.15 if tick else 0.6))
        parts.append(_text(left - 6, y(tick) + 4, f"{tick:g}", "end"))
    for tick in columns:
        parts.append(_line(x(tick), bottom, x(tick), bottom + 4, 0.6))
        parts.append(_text(x(tick), bottom + 18, f"{tick:g}", "middle"))
    parts.append(_text(left + PANEL_WIDTH / 2, bottom + 36, "epoch", "middle"))
    for which, look in (("train", TRAIN), ("test", TEST)):
        at = [(x(epoch), y(value)) for epoch, value in curves[which]]
        parts.append(_curve(at, look, marked=epochs <= MOST_MARKERS or len(at) == 1))
    return "".join(parts)


def _ticks(top: float, whole: bool = False) -> list[float]:
    """Round numbers from 0 to the first one that is not below `top`; about five."""
    power = 10 ** math.floor(math.log10(top))
    steps = [power * factor for factor in (0.1, 0.2, 0.5, 1, 2) if not whole or power * factor >= 1]
    step = next(step for step in steps if top / step <= 5)
    return [round(step * i, 10) for i in range(math.ceil(top / step - 1e-9) + 1)]


def _curve(
    points: Sequence[tuple[float, float]], look: tuple[str, float, str], marked: bool
) -> str:
    color, opacity, dash = look
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline points="{path}" stroke-width="2" stroke-dasharray="{dash}"/>'
    dots = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points)
    shapes = line + ("".join(dots) if marked else "")
    return f'<g stroke="{color}" opacity="{opacity}">{shapes}</g>'


def _legend(split: str) -> str:
    """What the two curves of each panel are, above the right one."""
    right, parts = LEFTS[1] + PANEL_WIDTH, []
    for name, look, x in (
        ("training batches", TRAIN, right - 235),
        (f"{split} images", TEST, right - 90),
    ):
        parts.append(_curve([(x, TOP - 16), (x + 22, TOP - 16)], look, marked=False))
        parts.append(_text(x + 28, TOP - 12, name, "start"))
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, opacity: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" '
        f'stroke-opacity="{opacity}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="currentColor">{html.escape(text)}</text>'
    )
