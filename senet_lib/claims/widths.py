"""The family of widths that the second source leaves open, counted in closed form.

Many choices of a stem and three stream widths print the source's three totals, and differ in what
they say of every other size. Ours (stem 16; 13, 26, 52) prints 0.64 and 0.66 M, not 0.63 and 0.65.
"""

# Legend: stem channels; w stream widths of the three stages, C = s w channels.

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd

from senet_lib.claims.claim import Claim, load_claims

SCALE, REDUCTION, BLOCKS, CLASSES, SIDES = 4, 16, 3, 10, (32, 16, 8)
STEMS = range(8, 65, 8)
WIDTHS = (range(4, 25), range(8, 49), range(16, 81))
"""Streams of each stage, whole numbers; a later stage is at least as wide as the one before."""
TOTALS = {
    "params": "b-res2net29-params", "macs": "b-res2net29-flops",
    "se_params": "b-se_res2net29-params",
}  # fmt: skip
"""What a choice must print, and the claim that says what."""
PREFIXES = {
    "res2net29": [""], "se_res2net29": ["se_"], "se_res2net29_last": ["last_", "last_z_"],
    "se_res2net29_first2": ["first2_", "first2_z_"],
}  # fmt: skip
"""Of the columns of `fitting_widths` that say a network's sizes, by each reading of the source."""


def res2net_sizes(stem: np.ndarray, widths: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters and MACs of Res2Net-29 and of its gated forms, for 32x32 images and ten classes,
    with so many channels of the stem, (...), and stream widths w of the three stages, each (...).

    Returns:
        params and macs of the network without gates; se_params and se_macs with gates on the whole
        of Z; last_params with gates for stream s, first2_params for the streams 1 and 2, squeezing
        these alone; last_z_params and first2_z_params with gates for the same that squeeze the
        whole of Z, as the source writes it (W1 in R^{C/r x C}).
    """
    params, macs, previous = 29 * stem, 27 * stem * SIDES[0] ** 2, stem
    gates = dict.fromkeys(("se", "last", "first2", "last_z", "first2_z"), 0)
    for stage, width in enumerate(widths):
        channels = SCALE * width
        cascade = (SCALE - 1) * 9 * width**2
        for block in range(BLOCKS):
            # The first 1x1 convolution of a later stage comes before its pooling.
            before = SIDES[max(stage - 1, 0) if block == 0 else stage] ** 2
            here, last = SIDES[stage] ** 2, channels**2
            norms = 2 * channels + (SCALE - 1) * 2 * width + 2 * channels
            params = params + previous * channels + cascade + last + norms
            macs = macs + previous * channels * before + (cascade + last) * here
            if block == 0:  # the shortcut's 1x1 convolution and its normalisation
                params = params + previous * channels + 2 * channels
                macs = macs + previous * channels * here
            previous = channels
        hidden = np.maximum(channels // REDUCTION, 1)
        gates["se"] += BLOCKS * 2 * channels * hidden
        for name, part in (("last", width), ("first2", 2 * width)):
            gates[name] += BLOCKS * 2 * part * np.maximum(part // REDUCTION, 1)
            gates[f"{name}_z"] += BLOCKS * (channels + part) * hidden
    params, macs = params + CLASSES * previous + CLASSES, macs + CLASSES * previous
    found = {"params": params, "macs": macs, "se_macs": macs + gates["se"]}
    return found | {f"{name}_params": params + more for name, more in gates.items()}


@cache
def fitting_widths() -> pd.DataFrame:
    """Every choice of `STEMS` and `WIDTHS` that prints the source's 0.63 M, 100 M and 0.65 M: a row
    a choice, with stem, w1, w2, w3 and what `res2net_sizes` gives."""
    choices = pd.MultiIndex.from_product([STEMS, *WIDTHS], names=["stem", "w1", "w2", "w3"])
    frame = choices.to_frame(index=False).query("w1 <= w2 <= w3")
    stem, *widths = (frame[name].to_numpy() for name in frame)
    frame = frame.assign(**res2net_sizes(stem, widths))
    for column, name in TOTALS.items():
        (claim,) = load_claims(name)
        frame = frame[(frame[column] >= claim.low * 1e6) & (frame[column] < claim.high * 1e6)]
    return frame.reset_index(drop=True)


def added_params() -> pd.Series:
    """Parameters that gates on the whole of Z add, in millions, of each of `fitting_widths`."""
    found = fitting_widths()
    return (found["se_params"] - found["params"]) / 1e6


def family_range(claim: Claim) -> tuple[float, float] | None:
    """What a size of the reconstruction lies between over `fitting_widths`, in the claim's unit;
    None where the claim is of no size, or of a network whose widths are stated."""
    if not claim.reconstructed:
        return None
    found = fitting_widths()
    if claim.measure == "added-params":
        values = added_params()
    elif claim.measure == "added-params-percent":
        values = 1e8 * added_params() / found["params"]
    elif claim.measure == "efficiency":
        (drop,) = load_claims(f"{claim.id}-derror")
        values = added_params() / -float(drop.value)
    else:
        readings = PREFIXES.get(claim.models[0] if claim.models else "", [])
        columns = found.columns.intersection([name + claim.measure for name in readings])
        if columns.empty:
            return None
        values = found[columns].to_numpy() / 1e6
    return float(values.min()), float(values.max())
