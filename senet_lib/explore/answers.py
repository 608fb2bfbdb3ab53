"""The explorer's networks, images, gates and maps, kept within limits.

A second question about the same network or image is answered from what is kept.
"""

# Shapes: N images, C channels, K classes.

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet_lib.analysis.cam import CamMaps, compute_maps
from senet_lib.analysis.gates import Gates, NoAttentionError, record_gates
from senet_lib.data.augment import normalise
from senet_lib.data.datasets import Dataset
from senet_lib.errors import DataError
from senet_lib.evaluation import predict
from senet_lib.explore.numbers import Picture, data_name, missing_data
from senet_lib.models.attention import attention_paths
from senet_lib.models.blocks import Network
from senet_lib.runs.evaluate import images_of
from senet_lib.runs.records import RunRecord

EVALUATED, TRAIN = "evaluated", "train"
PART = 5  # images read at a time; a question that comes in between waits for one part


class Recent:
    """A dictionary that forgets what was not asked for longest.

    Args:
        limit: how many values it keeps, at least 1.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value kept under the key, or the one that `make` makes, which is then kept."""
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        while len(self._values) > self.limit:
            self._values.popitem(last=False)
        return self._values[key]

    def peek(self, key: Hashable) -> Any:
        """The value if it is kept, else None."""
        return self._values.get(key)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """What a network says about the first images of a split.

    Attributes:
        logits: (N, K) float32.
        gates: of every attention layer, or None for a network without attention.
    """

    logits: np.ndarray
    gates: Gates | None


class Bench:
    """Answers about runs and images.

    Args:
        num_images: how many images of a split gates are read of, and, of a split that the record
            has no logits of, how many are offered.
    """

    def __init__(self, num_images: int = 500) -> None:
        self.num_images = num_images
        self._networks, self._datasets = Recent(8), Recent(2)
        self._logits, self._surveys = Recent(16), Recent(16)
        self._maps, self._gates = Recent(1000), Recent(500)

    def network(self, run: RunRecord) -> nn.Module:
        """The run's trained network, in eval mode."""
        return self._networks.get(run.path, run.load_model)

    def dataset(self, run: RunRecord) -> Dataset:
        """The data of a run, its second split being what the run was evaluated on.

        Raises:
            DataError: the data is not on this machine, or is not what the run was evaluated on.
        """
        return self._datasets.get((run.data, run.num_val), lambda: _load(run))

    def images(self, run: RunRecord, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, 32, 32, 3) uint8 and labels (N,) of "evaluated" or "train" that are offered.

        Raises:
            DataError: as in `dataset`, or the labels are not those of the run's record.
        """
        data = self.dataset(run)
        if split == TRAIN:
            return data.x_train[: self.num_images], data.y_train[: self.num_images]
        if not np.array_equal(data.y_test, self._evaluated(run)[1]):
            raise DataError(f"{run.data} is not what {run.path} was evaluated on")
        return data.x_test, data.y_test

    def picture(self, run: RunRecord, split: str, index: int) -> Picture:
        """One image of a split."""
        images, labels = self.images(run, split)
        name = TRAIN if split == TRAIN else run.evaluated_on
        return Picture(
            key=(run.data, run.num_val, split, index),
            pixels=images[index],
            label=int(labels[index]),
            split=split,
            index=index,
            note=f"{name} image {index} of {data_name(run.data)}",
        )

    def logits(self, run: RunRecord, split: str) -> np.ndarray | None:
        """Logits (N, K) of the images that `images` offers; None where they are yet to be read."""
        if split == EVALUATED:
            return self._evaluated(run)[0]
        survey = self.survey(run, split)
        return None if survey is None else survey.logits

    def labels(self, run: RunRecord) -> np.ndarray:
        """Labels (N,) of the images that the run was evaluated on, from its record alone."""
        return self._evaluated(run)[1]

    def survey(self, run: RunRecord, split: str) -> Survey | None:
        """The gates and logits of the split's first images, where `read` has read them."""
        return self._surveys.peek((run.path, split))

    def read(self, run: RunRecord, split: str) -> Iterator[float]:
        """Read a survey in parts; yields the share that is done, in (0, 1], after each one."""
        images = self.images(run, split)[0][: self.num_images]
        network = self.network(run)
        parts = []
        for start in range(0, len(images), PART):
            parts.append(_ask(network, run, images[start : start + PART]))
            yield min((start + PART) / len(images), 1.0)
        self._surveys.get((run.path, split), lambda: _joined(parts))

    def gates(self, run: RunRecord, picture: Picture) -> Gates | None:
        """The gates of one image; None for a network without attention."""
        network = self.network(run)
        return self._gates.get(
            (run.path, picture.key), lambda: _ask(network, run, picture.pixels[None]).gates
        )

    def maps(
        self,
        run: RunRecord,
        picture: Picture,
        method: str,
        layer: str,
        target: int | None = None,
    ) -> CamMaps:
        """The map of one image, raw, with the network's logits; see `cam.compute_maps`."""

        def make() -> CamMaps:
            targets = None if target is None else np.array([target])
            batch = _normalised(run, picture.pixels[None])
            return compute_maps(self.network(run), batch, targets, method=method, layer=layer)

        return self._maps.get((run.path, picture.key, method, layer, target), make)

    def _evaluated(self, run: RunRecord) -> tuple[np.ndarray, np.ndarray]:
        return self._logits.get(run.path, run.test_logits)


def has_gates(network: nn.Module) -> bool:
    """Whether the network has attention whose gates can be read."""
    return any(hasattr(network.get_submodule(p), "gate") for p in attention_paths(network))


def map_layers(networks: list[nn.Module]) -> list[str]:
    """Layers that maps can be taken at in all these networks: "last", stages and their blocks."""
    offered = []
    for network in networks:
        names = ["last"]
        for name in network.stage_names if isinstance(network, Network) else ():
            names += [
                name,
                *(f"{name}.{child}" for child, _ in getattr(network, name).named_children()),
            ]
        offered.append(names)
    return [name for name in offered[0] if all(name in names for names in offered[1:])]


def _load(run: RunRecord) -> Dataset:
    problem = missing_data(run.data)
    if problem:
        raise DataError(problem)
    return images_of(run)


def _normalised(run: RunRecord, images: np.ndarray) -> Tensor:
    """(N, 3, 32, 32) float32, as the run's network expects them."""
    return normalise(
        torch.from_numpy(np.ascontiguousarray(images)), tuple(run.mean), tuple(run.std)
    )


def _ask(network: nn.Module, run: RunRecord, images: np.ndarray) -> Survey:
    """Logits and gates of images, in one pass where there are gates."""
    said: list[Tensor] = []
    handle = network.register_forward_hook(lambda module, inputs, output: said.append(output))
    try:
        gates = record_gates(network, _normalised(run, images))
    except NoAttentionError:
        return Survey(logits=predict(network, images, run.mean, run.std).numpy(), gates=None)
    finally:
        handle.remove()
    return Survey(logits=torch.cat(said).float().numpy(), gates=gates)


def _joined(parts: list[Survey]) -> Survey:
    """The parts one after the other."""
    gates = None
    if parts[0].gates is not None:
        gates = Gates(
            values={
                layer: np.concatenate([part.gates.values[layer] for part in parts])
                for layer in parts[0].gates.layers
            },
            averaged=parts[0].gates.averaged,
        )
    return Survey(logits=np.concatenate([part.logits for part in parts]), gates=gates)
