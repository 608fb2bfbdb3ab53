"""How numbers and facts of runs are put into words."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.runs.records import RunRecord

if TYPE_CHECKING:
    from senet_lib.analysis.statistics import Interval
    from senet_lib.device import Setup


def percent(fraction: float) -> str:
    """A fraction in percent, with two decimals; a dash where there is none."""
    return "–" if np.isnan(fraction) else f"{100 * fraction:.2f}".replace("-", "−")


def points(fraction: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return "–" if np.isnan(fraction) else f"{100 * fraction:+.2f}".replace("-", "−")


def span(interval: "Interval | None", write: Callable[[float], str]) -> str:
    """Both ends of an interval, each written by `write`; nothing where there is none."""
    return "" if interval is None else f"{write(interval.low)} to {write(interval.high)}"


def p_value(p: float | None) -> str:
    """A p-value with three decimals; nothing where there is none."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is 1."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def device(run: "RunRecord | Setup") -> str:
    """Where and how a run computes."""
    how = ", compiled" if run.compile else ", kernels" if run.fused else ""
    return f"{run.device}, {run.precision}{how}"


def threads(run: RunRecord) -> str:
    """How many CPU threads a run had."""
    return counted(run.threads, "CPU thread")
