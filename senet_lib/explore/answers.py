"""What trained networks answer about images, to widgets or a notebook; what was asked once is kept.
`offered_runs` gives the networks."""

# Shapes: N images, C channels of an attention's map or of several, K classes.

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from senet_lib.analysis.cam import CamMaps, compute_maps
from senet_lib.analysis.families import family
from senet_lib.analysis.gates import Gates, NoAttentionError, gated_layers, record_gates
from senet_lib.data import load_matching, read_picture
from senet_lib.data.augment import normalise
from senet_lib.data.datasets import CIFAR_COUNTS, data_dir
from senet_lib.data.pictures import SIZE
from senet_lib.errors import DataError, RecordError
from senet_lib.models.blocks import Network
from senet_lib.runs import DEFAULT_ROOT, LOGITS, RECORD
from senet_lib.runs.published import PUBLISHED
from senet_lib.runs.records import RunRecord, anchored, find_runs, load_run
from senet_lib.runs.weights import WEIGHTS

PUBLISHED_ROOT = PUBLISHED / "runs"
PART = 10  # images whose gates are read at a time; a question in between waits for one part


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One image to look at, (32, 32, 3) uint8, with a note on where it comes from; its class and
    its place among the evaluated images are None for one's own picture."""

    pixels: np.ndarray
    label: int | None
    index: int | None
    note: str


class Trained:
    """A finished run's network and its answers; its folder has weights and logits. `survey` reads
    the gates of `num_images` of the evaluated images, at least 1."""

    def __init__(self, run: RunRecord, num_images: int = 300) -> None:
        self.run, self.num_images = run, num_images
        self.name = f"{run.network}, seed {run.seed}"
        self.survey: Gates | None = None
        self._lock = threading.RLock()  # gates are read by hooks, which see every pass
        self._kept: dict[tuple, Any] = {}  # a map takes 4 KiB, so nothing need be forgotten

    @functools.cached_property
    def network(self) -> nn.Module:
        """The network, in eval mode."""
        return self.run.load_model()

    @functools.cached_property
    def evaluated(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, K) and labels (N,) of the evaluated images, from the record alone."""
        return self.run.test_logits()

    @property
    def has_gates(self) -> bool:
        """Whether the network has attention whose gates can be read."""
        with suppress(NoAttentionError):
            return bool(gated_layers(self.network))
        return False

    @property
    def missing(self) -> str:
        """What to do where the images would first have to be downloaded, or nothing."""
        data = self.run.data
        if data not in CIFAR_COUNTS or (data_dir() / f"{data}.npz").is_file():
            return ""
        remedy = f"{data} is not on this machine; `senet data {data}` fetches it"
        return f"{remedy}. A picture of your own can be shown without it"

    @property
    def layers(self) -> list[str]:
        """Where maps can be taken: "last", the stages and their blocks."""
        names = ["last"]
        for stage in self.network.stage_names if isinstance(self.network, Network) else ():
            blocks = getattr(self.network, stage).named_children()
            names += [stage, *(f"{stage}.{name}" for name, _ in blocks)]
        return names

    @property
    def images(self) -> np.ndarray:
        """The evaluated images, (N, 32, 32, 3) uint8; DataError where the data is not on this
        machine, or is not what the run was evaluated on."""
        if self.missing:
            raise DataError(self.missing)
        run = self.run
        return _images(run.data, tuple(run.classes), run.data_fingerprint, run.num_val)

    def picture(self, index: int) -> Picture:
        """One of the evaluated images."""
        note = f"{self.run.evaluated_on} image {index} of {Path(self.run.data).name}"
        true = int(self.evaluated[1][index])
        return Picture(pixels=self.images[index], label=true, index=index, note=note)

    def maps(
        self, picture: Picture, method: str = "gradcam", layer: str = "last",
        target: int | None = None,
    ) -> CamMaps:  # fmt: skip
        """The picture's map, raw, with the network's logits; see `cam.compute_maps`."""
        batch = self._normalised(picture.pixels[None])
        targets = None if target is None else np.array([target])
        how = {"method": method, "layer": layer}
        key = (method, layer, target, picture.pixels.tobytes())
        return self._once(key, lambda: compute_maps(self.network, batch, targets, **how))

    def gates(self, picture: Picture) -> Gates:
        """The picture's gates."""
        batch = self._normalised(picture.pixels[None])
        key = ("gates", picture.pixels.tobytes())
        return self._once(key, lambda: record_gates(self.network, batch))

    def read(self) -> Iterator[float]:
        """Read the gates of the first images into `survey`, in parts; yields the share done."""
        images, parts = self.images[: self.num_images], []
        for start in range(0, len(images), PART):
            batch = self._normalised(images[start : start + PART])
            with self._lock:
                parts.append(record_gates(self.network, batch).values)
            yield min((start + PART) / len(images), 1.0)
        whole = {layer: np.concatenate([part[layer] for part in parts]) for layer in parts[0]}
        self.survey = Gates(values=whole)

    def read_all(self, num_images: int = 0) -> Gates:
        """The gates of the first images, read at once; anew where `num_images` is more of them."""
        if num_images > self.num_images:
            self.num_images, self.survey = num_images, None
        if self.survey is None:
            list(self.read())
        return self.survey

    @property
    def num_surveyed(self) -> int:
        """How many images `survey` is of."""
        return len(next(iter(self.survey.values.values())))

    def nearest(self, picture: Picture, count: int, layer: str = "") -> list[tuple[int, float]]:
        """Index and distance (the root mean square difference of the gates) of the images of the
        survey whose gates, of one layer or of all together, are most similar to a picture's, the
        nearest first and without itself; `count` at most."""
        one = self.gates(picture).values
        layers = {k: v for k, v in self.survey.values.items() if layer in ("", k)}
        away = np.concatenate([v.astype(np.float64) - one[k] for k, v in layers.items()], axis=1)
        away = np.sqrt((away**2).mean(1))
        order = [int(i) for i in np.argsort(away, kind="stable") if i != picture.index]
        return [(i, float(away[i])) for i in order[:count]]

    def class_gates(self, true: int) -> tuple[dict[str, np.ndarray], int]:
        """Mean gates of the survey's images of a class, layer to (C,), and how many these are;
        nothing where there are none."""
        of_class = self.evaluated[1][: self.num_surveyed] == true
        if not of_class.any():
            return {}, 0
        gates = self.survey.values.items()
        return {path: v[of_class].mean(0, dtype=float) for path, v in gates}, int(of_class.sum())

    def _normalised(self, images: np.ndarray) -> torch.Tensor:
        return normalise(torch.from_numpy(images), self.run.mean, self.run.std)

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            return self._kept[key]


@functools.lru_cache(2)
def _images(data: str, classes: tuple[str, ...], fingerprint: str, num_val: int) -> np.ndarray:
    found = load_matching(data, classes=classes, fingerprint=fingerprint, num_val=num_val)
    return found.x_test


# What there is to look at


def offered_runs(
    runs_root: str | Path = DEFAULT_ROOT,
    published_root: str | Path = PUBLISHED_ROOT,
    num_images: int = 300,
) -> dict[str, list[Trained]]:
    """Finished runs that can be explored, those on disk before the published ones: a study's name
    to its networks. Those of one entry share data and evaluated images: a study that mixes them has
    an entry for each. Relative folders are seen from the clone's top; `num_images` is as in
    `Trained`."""
    found: dict[tuple, list[Trained]] = {}
    for root, note in ((runs_root, ""), (published_root, " (published)")):
        for folder in find_runs(anchored(root)):
            if all((folder / name).is_file() for name in (RECORD, WEIGHTS, LOGITS)):
                with suppress(RecordError):  # `senet runs` lists it as unreadable
                    run = load_run(folder)
                    key = (run.study + note, run.data_fingerprint)
                    found.setdefault(key, []).append(Trained(run, num_images))
    counts, offers = Counter(key[0] for key in found), {}
    for (name, images), networks in found.items():
        run = networks[0].run
        if counts[name] > 1:
            name += f": {Path(run.data).name}"
            name += f", {run.num_val} held out" if run.num_val else ""
        offers[f"{name}, images {images[:6]}" if name in offers else name] = networks
    return offers


def usual_pair(networks: Sequence[Trained]) -> list[Trained]:
    """A network with attention and its plain one, SE before others; without such a pair the first
    two networks, or the only one."""
    first: dict[str, Trained] = {}
    for one in networks:
        first.setdefault(one.run.network, one)
    pairs = [(name, family(name, list(first))) for name in first]
    pairs = [pair for pair in pairs if pair[0] != pair[1] and pair[1] in first]
    pair = min(pairs, key=lambda p: p[0] != f"se_{p[1]}", default=list(first)[:2])
    return [first[name] for name in pair]


def usual_study(offers: Mapping[str, Sequence[Trained]]) -> str:
    """The study to begin with: one whose data is on this machine, and that has a pair."""

    def drawbacks(name: str) -> tuple[bool, bool]:
        first, *others = (one.run.network for one in usual_pair(offers[name]))
        return bool(offers[name][0].missing), family(first, others) not in others

    return min(offers, key=drawbacks)


def own_picture(name: str, content: bytes) -> Picture:
    """A picture from a file's name and bytes, brought to size as training brings a folder's images.
    DataError where the bytes are no readable image."""
    pixels, (width, height) = read_picture(content, name)
    done = "" if width == height else ", its centre square"
    done += "" if min(width, height) == SIZE else f" resized to {SIZE}x{SIZE}"
    note = f"your picture {name}: {width}x{height} pixels{done}"
    return Picture(pixels=pixels, label=None, index=None, note=note)
