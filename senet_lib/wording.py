"""How numbers are put into words."""

import numpy as np


def percent(fraction: float) -> str:
    """A fraction in percent, with two decimals; a dash where there is none."""
    return "–" if np.isnan(fraction) else f"{100 * fraction:.2f}".replace("-", "−")


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is 1."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
