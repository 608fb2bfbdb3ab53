"""Errors on CIFAR-10 that others have published, to be drawn beside ours and never mixed with them.

They stand in `literature.csv`. Parameters and MACs are exact where it is known how the network is
built, rounded where the possible readings agree to three digits or the source rounds, and empty
where it is open which network it was. Evidence is "read" in the public file that is named, or
"second hand", in a secondary copy of the paper.
"""

from pathlib import Path

import pandas as pd

PUBLISHED = pd.read_csv(Path(__file__).with_name("literature.csv"))
"""A row a network as someone else published it: network, error (a fraction), num_params, macs (of
convolutions and linear layers, one image; NaN where open), source, evidence, recipe."""
PUBLISHED.insert(1, "error", PUBLISHED.pop("error_percent") / 100)
