"""A section of a page in which one looks at images, networks, maps and gates without a kernel: all
that can be chosen lies in the page as bytes, which the page's script, `look.js`, draws."""

# Legend: N images, H height, W width, C channels, K classes.

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from senet_lib.analysis.cam import CamMaps, scale_for_display
from senet_lib.analysis.gates import Gates
from senet_lib.analysis.overlay import heat
from senet_lib.evaluation import probabilities
from senet_lib.report.page import LOOK


def choose_images(logits: Sequence[np.ndarray], labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices, by class, of images that all networks get right, then that some do, then none.

    Args:
        logits, labels: (N, K) of each network, at least one, and (N,) integer.
        per_class: images of a class, as many of each of the three kinds while there are any.
    """
    rights = np.mean([one.argmax(1) == labels for one in logits], axis=0)
    frame = pd.DataFrame({"label": labels, "kind": np.select([rights == 1, rights > 0], [0, 1], 2)})
    frame["turn"] = frame.groupby(["label", "kind"]).cumcount()
    chosen = frame.sort_values(["turn", "kind"]).groupby("label").head(per_class)
    return chosen.rename_axis("index").sort_values(["label", "kind", "index"]).index.to_numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class Looking:
    """What can be looked at; a notebook displays it, and the page made of it brings it to life."""

    images: np.ndarray  # (N, H, W, 3), uint8
    labels: np.ndarray  # (N,), integer
    indices: np.ndarray  # (N,), their places among the evaluated images
    classes: Sequence[str]  # K names
    maps: Mapping[str, CamMaps]  # of each network, N maps, for the class that it names
    gates: Mapping[str, Gates]  # of those networks that have any, the gates of the N images

    def _repr_html_(self) -> str:
        content = {
            "size": self.images.shape[1],
            "images": _packed(self.images),
            "labels": self.labels.tolist(),
            "indices": self.indices.tolist(),
            "classes": list(self.classes),
            "colours": _packed(255 * heat(np.linspace(0, 1, 256))),
            "networks": [self._network(name) for name in self.maps],
        }
        text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
        return (
            f"<div {LOOK}><p>Here one chooses a class, an image and networks, once a page is made "
            "of this notebook and its script may run.</p>"
            f'<script type="application/json">{text}</script></div>'
        )

    def _network(self, name: str) -> dict[str, object]:
        found = self.maps[name]
        gates = self.gates.get(name)
        return {
            "name": name,
            "maps": _packed(255 * scale_for_display(found.maps)),
            "said": found.logits.argmax(1).tolist(),  # of rounded shares two may be the largest
            "blank": [not one.any() for one in found.maps],
            "shares": probabilities(found.logits).round(4).tolist(),
            "gates": [_layer(path, gates.values[path]) for path in gates.ends] if gates else [],
        }


def _layer(path: str, values: np.ndarray) -> dict[str, object]:
    """Gates (N, C) of one layer in 256 steps, the channels sorted by their mean."""
    low, high = float(values.min()), float(values.max())
    ordered = values[:, np.argsort(values.mean(0), kind="stable")]
    steps = 255 * (ordered - low) / ((high - low) or 1)
    name, channels = path.removesuffix(".attention"), values.shape[1]
    return {"name": name, "channels": channels, "low": low, "high": high, "values": _packed(steps)}


def _packed(values: np.ndarray) -> str:
    """Numbers from 0 to 255 as a byte each, in base64."""
    return base64.b64encode(values.round().astype(np.uint8).tobytes()).decode("ascii")
