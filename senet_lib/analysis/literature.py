"""Errors on CIFAR-10 that others have published, to be drawn beside ours and never mixed with them.

They stand in `literature.csv`; nothing there was measured by this study. Parameters and MACs are
exact where it is known how the public network is built (they are then that network's own
arithmetic), rounded where the possible readings agree to three digits or the source rounds, and
empty where it is open which network it was. Evidence is "read" in the public file that is named, or
"second hand", in a secondary copy of the paper.
"""

from pathlib import Path

import pandas as pd

PUBLISHED = pd.read_csv(Path(__file__).with_name("literature.csv"))
"""A row a network as someone else published it: network, error (a fraction), num_params, macs (of
convolutions and linear layers, one image; NaN where open), source, evidence, recipe."""
PUBLISHED.insert(1, "error", PUBLISHED.pop("error_percent") / 100)

# Parameters in millions and FLOPs in millions, as the second source document prints them under
# "Complexity per Block (C=64, s=4, r=16)"; it does not say for which size of input.
CLAIMED_BLOCKS = {
    "ResNet (2 conv)": (0.18, 34.0),
    "SE-ResNet": (0.36, 68.0),
    "Res2Net": (0.19, 35.0),
    "SE-Res2Net": (0.20, 36.0),
}
