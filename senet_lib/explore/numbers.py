"""What the explorer shows, as numbers: runs on offer, chosen images, gates, own pictures.

Nothing here knows of widgets, and nothing is kept: `explore_bench` does that.
"""

# Shapes: N images, C channels of an attention's map or of several, K classes, L layers.

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from senet_lib.analysis.gates import Gates
from senet_lib.data.datasets import CIFAR_COUNTS, data_dir
from senet_lib.data.pictures import SIZE, read_picture
from senet_lib.errors import RecordError
from senet_lib.runs.published import PUBLISHED
from senet_lib.runs.records import (
    DEFAULT_ROOT,
    LOGITS,
    RECORD,
    RunRecord,
    anchored,
    find_runs,
    load_run,
)
from senet_lib.runs.weights import WEIGHTS

PUBLISHED_ROOT = PUBLISHED / "runs"
OWN = ""  # the split of a picture that is from none
VERDICTS = ("either", "right", "wrong")

# Runs on offer


def offered_runs(
    runs_root: str | Path = DEFAULT_ROOT, published_root: str | Path = PUBLISHED_ROOT
) -> dict[str, list[RunRecord]]:
    """Finished runs that can be explored, those on disk before the published ones.

    Args:
        runs_root: folder of the studies' folders; a relative path is seen from the clone's top.
        published_root: likewise, of published runs.
    Returns:
        A study's name to its runs, each with weights and logits. Runs of one entry share data and
        evaluated images: a study that mixes them has an entry for each.
    """
    found: dict[tuple, list[RunRecord]] = {}
    for root, note in ((runs_root, ""), (published_root, " (published)")):
        for folder in find_runs(anchored(root)):
            if all((folder / name).is_file() for name in (RECORD, WEIGHTS, LOGITS)):
                try:
                    run = load_run(folder)
                    run.verify()
                except RecordError:
                    continue  # `senet runs` says what is wrong with it
                found.setdefault((run.study + note, run.data, run.num_val), []).append(run)
    names = [key[0] for key in found]
    offers = {}
    for (name, data, num_val), runs in found.items():
        held = f", {num_val} held out" if num_val else ""
        offers[name if names.count(name) == 1 else f"{name}: {data_name(data)}{held}"] = runs
    return offers


def data_name(data: str) -> str:
    """A dataset's name, or the last part of its path."""
    return Path(data).name


def missing_data(data: str) -> str:
    """What to do where a dataset would first have to be downloaded, in a sentence, or nothing."""
    if data in CIFAR_COUNTS and not (data_dir() / f"{data}.npz").is_file():
        return (
            f"{data} is not on this machine; `senet data {data}` fetches it. "
            "A picture of your own can be shown without it"
        )
    return ""


# Images


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One image to look at.

    Attributes:
        key: names it within a study's data; no two pictures share it.
        pixels: (32, 32, 3) uint8.
        label: its class, or None where nobody knows it.
        split: the split it is from; `OWN` for one's own picture.
        index: its place in its split, or None for one's own picture.
        note: where it comes from, in words.
    """

    key: Hashable
    pixels: np.ndarray
    label: int | None
    split: str
    index: int | None
    note: str


def own_picture(name: str, content: bytes) -> Picture:
    """A picture from a file's bytes: turned upright, cropped to its centre, resized to 32x32.

    Args:
        name: the file's name, for what is said about it.
        content: the file.
    Returns:
        The picture; its note says what was done to it.
    Raises:
        DataError: the bytes are no readable image, or one with more than 8 bits a channel.
    """
    pixels, (width, height) = read_picture(content, name)
    side = min(width, height)
    done = "" if width == height else f", cropped to the {side}x{side} pixels in its middle"
    done += "" if side == SIZE else f", resized to {SIZE}x{SIZE}"
    note = f"your picture {name}: {width}x{height} pixels{done}"
    key = ("own", name, pixels.tobytes())
    return Picture(key=key, pixels=pixels, label=None, split=OWN, index=None, note=note)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64, of logits (..., K)."""
    logits = logits.astype(np.float64)
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def choose_images(
    labels: np.ndarray,
    logits: np.ndarray | None,
    *,
    label: int | None = None,
    said: int | None = None,
    verdict: str = "either",
) -> np.ndarray:
    """Indices of the images that fit, those the network is surest of first; ties by index.

    Args:
        labels: (N,), integer.
        logits: (N, K), or None where no prediction is known; then the order is that of the index,
            and no image fits if a prediction is asked for.
        label: the true class; None for any.
        said: the predicted class; None for any.
        verdict: "right", "wrong" or "either".
    """
    fits = np.ones(len(labels), bool) if label is None else labels == label
    if logits is None:
        return np.flatnonzero(fits & (said is None and verdict == "either"))
    predicted = logits.argmax(1)
    if said is not None:
        fits &= predicted == said
    if verdict != "either":
        fits &= (predicted == labels) == (verdict == "right")
    found = np.flatnonzero(fits)
    return found[np.argsort(-probabilities(logits[found]).max(1), kind="stable")]


# Gates


def gate_vectors(gates: Gates, layer: str = "") -> np.ndarray:
    """The gates of a layer, or with "" of all layers one after the other, (N, C) float32."""
    return gates.values[layer] if layer else np.concatenate(list(gates.values.values()), axis=1)


def gate_distances(vectors: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Root mean square difference of the gates of each image and of one, (N,) float64.

    Args:
        vectors: (N, C).
        vector: (C,).
    """
    return np.sqrt(((vectors.astype(np.float64) - vector) ** 2).mean(1))


def extremes(distances: np.ndarray, count: int, skip: int | None = None) -> tuple[list, list]:
    """Indices of the smallest distances, smallest first, and of the largest, largest first.

    Args:
        distances: (N,).
        count: how many of each; fewer where there are fewer.
        skip: an index that is left out, such as that of the image itself.
    """
    order = [int(i) for i in np.argsort(distances, kind="stable") if i != skip]
    return order[:count], order[::-1][:count]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The gates of one image, and those of the images of a class.

    Attributes:
        layers: paths of the attention layers, in order of depth.
        image: layer to (C,), the image's gates.
        count: images of the class, the image itself included if it is among them; with 0 the
            following are empty.
        mean: layer to (C,), mean over the class.
        difference: (L,), root mean square difference of the image's gates and the mean.
        usual: (L,), the median of that difference over the images of the class.
    """

    layers: Sequence[str]
    image: Mapping[str, np.ndarray]
    count: int
    mean: Mapping[str, np.ndarray]
    difference: np.ndarray
    usual: np.ndarray


def compare_with_class(
    one: Gates, many: Gates | None = None, members: np.ndarray | None = None
) -> Comparison:
    """An image's gates against those of a class.

    Args:
        one: gates of the image alone.
        many: gates of N images of the same network; None where they are not known.
        members: (N,) bool, which of them are of the class.
    """
    image = {layer: values[0] for layer, values in one.values.items()}
    count = 0 if many is None else int(np.count_nonzero(members))
    mean, difference, usual = {}, [], []
    for layer, values in many.values.items() if count else ():
        chosen = values[members].astype(np.float64)
        mean[layer] = chosen.mean(0)
        difference.append(gate_distances(image[layer][None], mean[layer])[0])
        usual.append(np.median(gate_distances(chosen, mean[layer])))
    return Comparison(
        layers=one.layers,
        image=image,
        count=count,
        mean=mean,
        difference=np.array(difference),
        usual=np.array(usual),
    )
