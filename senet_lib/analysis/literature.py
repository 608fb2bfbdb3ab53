"""Errors on CIFAR-10 that others have published, to be drawn beside ours and never mixed with them.

They stand in `literature.csv`; nothing there was measured by this study. Parameters and MACs are
exact where it is known how the public network is built (they are then that network's own
arithmetic), rounded where the possible readings agree to three digits or the source rounds, and
empty where it is open which network it was.
"""

import csv
from pathlib import Path
from typing import NamedTuple

EVIDENCE = {
    "read": "read in the public file that is named",
    "second hand": "read in a secondary copy of the paper",
}


class PublishedPoint(NamedTuple):
    """One network's error as someone else published it.

    Attributes:
        network: short name of the network; points of one network share it.
        error: test error on CIFAR-10, a fraction.
        num_params: parameters; None where the source does not settle them.
        macs: multiply-accumulates of convolutions and linear layers for one image, likewise.
        source: where it stands.
        evidence: key of EVIDENCE: read, or second hand.
        recipe: what is known of how it was trained and chosen.
    """

    network: str
    error: float
    num_params: int | None
    macs: int | None
    source: str
    evidence: str
    recipe: str


def _read() -> tuple[PublishedPoint, ...]:
    text = (Path(__file__).parent / "literature.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedPoint(
            network, float(percent) / 100, *(int(n) if n else None for n in cost), *known
        )
        for network, percent, *cost, known in (
            (*row[:4], row[4:]) for row in list(csv.reader(text.splitlines()))[1:]
        )
    )


PUBLISHED = _read()

# Parameters in millions and FLOPs in millions, as the second source document prints them under
# "Complexity per Block (C=64, s=4, r=16)"; it does not say for which size of input.
CLAIMED_BLOCKS = {
    "ResNet (2 conv)": (0.18, 34.0),
    "SE-ResNet": (0.36, 68.0),
    "Res2Net": (0.19, 35.0),
    "SE-Res2Net": (0.20, 36.0),
}
