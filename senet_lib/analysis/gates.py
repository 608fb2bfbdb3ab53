"""The gates of attention: what they do over a set of images; `interventions` asks what they matter.

Gates are read by forward hooks on the submodule `gate` of every attention; the model is left as it
was. Shapes: N images, C channels of an attention's map, K classes, H x W pixels.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from senet_lib.data.augment import fit_to_images, normalise
from senet_lib.errors import DataError, SenetError
from senet_lib.evaluation import evaluating
from senet_lib.models import create_model
from senet_lib.models.attention import attention_paths
from senet_lib.profiling import calls_of
from senet_lib.runs.records import RunRecord

NEAR_ZERO, NEAR_ONE = 0.05, 0.95
CONSTANT_SD = 0.01  # a gate is constant where its SD over the images is below this
BATCH = 50  # images at a time; bounds the memory, not the result


class NoAttentionError(SenetError):
    """The model has no attention, or none with gates to look at."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """The gates of every attention layer over a set of images."""

    # Module path of the attention to its gates, (N, C) float32, in the order the layers run.
    values: Mapping[str, np.ndarray]
    # Layers whose gates differ from place to place (scSE); the values are means over H and W.
    averaged: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shapes = "; ".join(f"{path} {values.shape}" for path, values in self.values.items())
        return f"<gates (images, channels) of {len(self.values)} layers: {shapes}>"

    @property
    def layers(self) -> list[str]:
        """The paths, in order of depth."""
        return list(self.values)

    def stage(self, layer: str) -> int | None:
        """The stage a layer lies in, counted from 1; None where its path names none."""
        found = re.match(r"stage(\d+)\.", layer)
        return int(found[1]) if found else None

    def varies(self, layer: str) -> bool:
        """Whether some gate of a layer varies over the images, by `CONSTANT_SD`."""
        return bool(self.values[layer].std(0).max() >= CONSTANT_SD)

    @property
    def ends(self) -> list[str]:
        """The last layer of each stage whose gates vary, or if none does, the last; without stages
        the first, the middle and the last of all."""
        last = {self.stage(layer): layer for layer in sorted(self.layers, key=self.varies)}
        if None not in last:
            return sorted(last.values(), key=self.layers.index)
        chosen = {0, len(self.layers) // 2, len(self.layers) - 1}
        return [self.layers[i] for i in sorted(chosen)]


@torch.no_grad()
def record_gates(model: nn.Module, images: Tensor | np.ndarray) -> Gates:
    """The gates of every attention layer, in eval mode on the model's device.

    Args:
        model: any network with attention.
        images: (N, channels, H, W), normalised floats.
    Raises:
        NoAttentionError: the model has no attention with gates.
        DataError: the images have another form or there are none.
    """
    rows: dict[str, list[np.ndarray]] = {}
    averaged: dict[str, None] = {}  # in order

    def keep(path: str, gate: Tensor) -> None:
        if gate.shape[2] > 1:
            averaged[path] = None
        rows.setdefault(path, []).append(gate.float().mean(2).cpu().numpy())  # (B, C)

    with evaluating(model), hooked(model, gated_layers(model), keep):
        for batch in batches(model, images):
            model(batch)
    values = {path: np.concatenate(parts) for path, parts in rows.items()}
    if twice := [path for path, gates in values.items() if len(gates) > len(images)]:
        raise SenetError(f"{twice[0]} runs twice for one image, so its gates are not unique")
    return Gates(values=values, averaged=tuple(averaged))


def gated_layers(model: nn.Module, name: str = "") -> list[str]:
    """Paths of the attention modules that have a gate; NoAttentionError, which calls the model by
    its class or a name, if there are none."""
    children = {p: dict(model.get_submodule(p).named_children()) for p in attention_paths(model)}
    paths = [path for path, parts in children.items() if "gate" in parts]
    if not paths:
        name = name or type(model).__name__
        if children:
            raise NoAttentionError(
                f"{name} has an attention, {next(iter(children))}, that has no submodule called "
                "gate, whose output would be its gates"
            )
        raise NoAttentionError(f"{name} has no attention; take one like se_resnet20")
    return paths


def batches(model: nn.Module, images: Tensor | np.ndarray) -> Iterator[Tensor]:
    """Batches on the model's device and in its type, after a check of the images."""
    images = torch.as_tensor(images)
    if images.dim() != 4 or not len(images) or not images.is_floating_point():
        found = f"{tuple(images.shape)} of {images.dtype}"
        raise DataError(f"images must be (N, channels, H, W), normalised floats, not {found}")
    weight = next(model.parameters())
    return (part.to(weight.device, weight.dtype) for part in images.split(BATCH))


def hooked(
    model: nn.Module, paths: Iterable[str], use: Callable[[str, Tensor], Tensor | None]
) -> AbstractContextManager[None]:
    """Call `use` with each layer's path and gates, (N, C, places); what it returns, if anything,
    replaces them. SenetError where a gate gives others than (N, C), (N, C, H, W) or alike."""

    def call(path: str, module: nn.Module, inputs: tuple, gate: Tensor) -> Tensor | None:
        if not isinstance(gate, Tensor) or gate.dim() < 2:
            raise SenetError(f"the gate of {path} gives neither (N, C) nor (N, C, H, W)")
        new = use(path, gate.reshape(*gate.shape[:2], -1))
        return None if new is None else new.reshape(gate.shape)

    gates = {path: model.get_submodule(path).gate for path in paths}
    return calls_of(gates, call)


def class_means(gates: Gates, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Mean gate of each class: layer to (K, C) float64; a class without images is NaN. Labels are
    (N,) integers from 0.

    Source: Hu et al. 2018 (arXiv:1709.01507), the section on the role of excitation.
    """
    return {layer: _means(values, labels) for layer, values in gates.values.items()}


def _means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    labels = checked_labels(labels, len(values))
    means = pd.DataFrame(values.astype(np.float64)).groupby(labels).mean()
    return means.reindex(range(labels.max() + 1)).to_numpy()


def checked_labels(labels: np.ndarray, num_images: int) -> np.ndarray:
    """Labels as int64; DataError unless there is one from 0 for each image."""
    labels = np.asarray(labels)
    if labels.shape != (num_images,) or labels.min() < 0:
        raise DataError(f"{num_images} images need as many labels from 0, not {labels.shape}")
    return labels.astype(np.int64)


def _class_share(values: np.ndarray, labels: np.ndarray) -> float:
    """Share of the gates' variance, summed over channels, that lies between the means of the
    classes, each weighted by its images; NaN where no gate varies."""
    values = values.astype(np.float64)
    values = values - values[0]  # a gate that does not vary is zero exactly, not up to rounding
    means = _means(values, labels)[labels]  # (N, C), the mean of the image's own class
    between = ((means - values.mean(0)) ** 2).mean(0)
    total = between + ((values - means) ** 2).mean(0)
    return float(between.sum() / total.sum()) if total.any() else float("nan")


def layer_table(gates: Gates, labels: np.ndarray) -> pd.DataFrame:
    """One row a layer, in order of depth, of the gates and the labels, (N,), of N images.

    Returns:
        - layer, stage (None where the path names none), channels (C), mean (of all N * C gates);
        - near_zero and near_one (gates within 0.05 of 0, and those above 0.95, of N * C),
          constant (channels, of C, by `CONSTANT_SD`), and the same as fractions, ending in _share;
        - class_share: share of the gates' variance that lies between the classes' means; NaN where
          none varies. chance: (K - 1) / (N - 1), the expected share if labels had nothing to do
          with the gates; K counts the classes present.
    """
    rows, labels = [], checked_labels(labels, len(next(iter(gates.values.values()))))
    for layer, values in gates.values.items():
        low, high = int((abs(values) < NEAR_ZERO).sum()), int((values > NEAR_ONE).sum())
        still = int((values.std(0, dtype=np.float64) < CONSTANT_SD).sum())
        rows.append({
            "layer": layer, "stage": gates.stage(layer), "channels": values.shape[1],
            "mean": float(values.mean(dtype=np.float64)),
            "near_zero": low, "near_one": high, "constant": still,
            "near_zero_share": low / values.size, "near_one_share": high / values.size,
            "constant_share": still / values.shape[1],
            "class_share": _class_share(values, labels),
            "chance": (len(np.unique(labels)) - 1) / max(len(labels) - 1, 1),
        })  # fmt: skip
    return pd.DataFrame(rows)


def stage_table(table: pd.DataFrame) -> pd.DataFrame:
    """Of each stage its number of layers, and the means over them of `layer_table`'s fractions; a
    layer whose channels are all constant has no part in that of class_share."""
    shares = ["mean", "near_zero_share", "near_one_share", "constant_share", "class_share"]
    varying = table["class_share"].where(table["constant_share"] < 1)
    groups = table.assign(class_share=varying).groupby("stage", sort=True)
    means = groups[shares].mean()
    means.insert(0, "layers", groups.size())
    return means.reset_index()


def telling_classes(means: np.ndarray) -> list[int]:
    """Of mean gates (K, C) of one layer, up to four classes: the two that differ most, each with
    its nearest one; rows of NaN are left out."""
    present = np.flatnonzero(np.isfinite(means).all(1))
    if len(present) < 2:
        return present.tolist()
    gap = np.linalg.norm(means[present][:, None] - means[present][None], axis=2)  # (K, K)
    ends = np.unravel_index(gap.argmax(), gap.shape)
    np.fill_diagonal(gap, np.inf)
    chosen = [i for end in ends for i in (end, gap[end].argmin())]
    return present[list(dict.fromkeys(chosen))].tolist()


@torch.no_grad()
def untrained_network(run: RunRecord, images: np.ndarray) -> nn.Module:
    """The run's network with fresh weights, as a control, drawn from the run's seed.

    Normalisations get their statistics from the first 500 of the images, (N, H, W, 3) uint8, for
    without any the activations would grow from block to block; and what a training takes from its
    images before the first step, such as a stem that whitens, is taken from these."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = create_model(
            run.model, num_classes=len(run.classes), in_channels=len(run.mean), **run.overrides
        )
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # the statistics of the one batch below
    given = torch.as_tensor(images)
    fit_to_images(network, given, run.mean, run.std)
    network.train()(normalise(given[:500], run.mean, run.std))
    return network.eval()
