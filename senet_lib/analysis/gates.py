"""The gates of attention: what they do over a set of images, and what they matter for.

Gates are read by forward hooks on the submodule `gate` of every attention, the rest is arithmetic
on arrays. Nothing here trains; the model is left as it was.

Shapes: N images, C channels of an attention's map, K classes, H x W pixels.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.data.augment import normalise
from senet_lib.data.datasets import Dataset
from senet_lib.errors import DataError, SenetError, unknown
from senet_lib.models import create_model
from senet_lib.models.attention import attention_paths
from senet_lib.models.blocks import Network
from senet_lib.runs.evaluate import images_of
from senet_lib.runs.records import DEFAULT_ROOT, RunRecord, from_top, load_run

if TYPE_CHECKING:
    import pandas as pd

NEAR_ZERO, NEAR_ONE = 0.05, 0.95
CONSTANT_SD = 0.01
"""A gate whose standard deviation over the images is below this is called constant."""
Images = Tensor | np.ndarray | Dataset
Moments = tuple[Sequence[float], Sequence[float]]


class NoAttentionError(SenetError):
    """The model has no attention, so there are no gates to look at."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """The gates of every attention layer over a set of images.

    Attributes:
        values: module path of the attention to its gates, (N, C) float32, in the order in which
            the layers run. Sigmoid gates lie in [0, 1].
        averaged: paths of layers whose gates differ from place to place (scSE); the values are
            their means over H and W.
    """

    values: Mapping[str, np.ndarray]
    averaged: tuple[str, ...] = ()

    @property
    def layers(self) -> list[str]:
        """The paths, in order of depth."""
        return list(self.values)

    def stage(self, layer: str) -> int | None:
        """The stage a layer lies in, counted from 1; None where its path names none."""
        found = re.match(r"stage(\d+)\.", layer)
        return int(found[1]) if found else None

    @property
    def ends(self) -> list[str]:
        """The last layer of each stage; without stages the first, the middle and the last."""
        last = {self.stage(layer): layer for layer in self.layers}
        if None not in last:
            return list(last.values())
        chosen = {0, len(self.layers) // 2, len(self.layers) - 1}
        return [self.layers[i] for i in sorted(chosen)]


# Reading gates and replacing them


@torch.inference_mode()
def record_gates(
    model: nn.Module, images: Images, *, moments: Moments | None = None, batch_size: int = 500
) -> Gates:
    """The gates of every attention layer, in eval mode on the model's device.

    Args:
        model: any network with attention; modes, hooks and buffers are as before afterwards.
        images: normalised floats (N, channels, H, W); or uint8 (N, H, W, 3) with `moments`; or a
            Dataset, whose test images are taken and normalised by its own moments.
        moments: mean and standard deviation of each colour, in [0, 1]; for uint8 images alone.
        batch_size: images at a time, at least 1; bounds the memory, not the result. What is kept
            is (N, C) floats a layer and nothing else.
    Raises:
        NoAttentionError: the model has no attention.
        DataError: the images have another form or there are none.
    """
    paths = _gated(model)
    values: dict[str, np.ndarray] = {}
    averaged: set[str] = set()
    images, moments = _unpacked(images, moments)
    start, ran = 0, set()

    def keep(path: str, gate: Tensor) -> None:
        if path in ran:
            raise SenetError(f"{path} runs twice for one image, so its gates are not unique")
        ran.add(path)
        if gate.dim() == 4 and gate.shape[2:] != (1, 1):
            averaged.add(path)
        rows = gate.float().flatten(2).mean(2).cpu().numpy()  # (B, C)
        if path not in values:
            values[path] = np.empty((len(images), rows.shape[1]), np.float32)
        values[path][start : start + len(rows)] = rows

    with _evaluating(model), _hooked(model, paths, keep):
        for batch in _batches(model, images, moments, batch_size):
            model(batch)
            start += len(batch)
            ran.clear()
    return Gates(values=values, averaged=tuple(path for path in values if path in averaged))


def _gated(model: nn.Module) -> list[str]:
    """Paths of the attention modules that have a gate."""
    paths = [p for p in attention_paths(model) if hasattr(model.get_submodule(p), "gate")]
    if not paths:
        raise NoAttentionError(
            f"{type(model).__name__} has no attention, so it has no gates; "
            "take a model such as se_resnet20"
        )
    return paths


def _unpacked(images: Images, moments: Moments | None) -> tuple[Tensor, Moments | None]:
    """Images as a tensor, with the moments that they are still to be normalised by."""
    if isinstance(images, Dataset):
        images, moments = images.x_test, (images.mean, images.std)
    images = torch.as_tensor(images)
    if images.dim() != 4 or not len(images):
        raise DataError(f"images must be (N, channels, H, W) with N >= 1, not {(*images.shape,)}")
    if images.dtype == torch.uint8 and moments is None:
        raise DataError("uint8 images need the moments that they are normalised by")
    if images.dtype != torch.uint8 and moments is not None:
        raise DataError(f"moments are for uint8 images; these are {images.dtype}, so normalised")
    return images, moments


def _batches(
    model: nn.Module, images: Tensor, moments: Moments | None, batch_size: int
) -> Iterator[Tensor]:
    """Normalised batches on the model's device."""
    if batch_size < 1:
        raise SenetError(f"batch size is {batch_size}; it must be at least 1")
    weight = next(model.parameters())
    for part in images.split(batch_size):
        batch = part.to(weight.device)
        yield batch.to(weight.dtype) if moments is None else normalise(batch, *moments)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and true float32 inside; every submodule's own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _hooked(
    model: nn.Module, paths: Iterable[str], use: Callable[[str, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call `use` with each layer's path and gates; what it returns, if anything, replaces them."""

    def hook_of(path: str) -> Callable[[nn.Module, tuple, Tensor], Tensor | None]:
        return lambda module, inputs, gate: use(path, gate)

    with ExitStack() as stack:
        for path in paths:
            handle = model.get_submodule(path).gate.register_forward_hook(hook_of(path))
            stack.callback(handle.remove)
        yield


# Statistics of gates


def class_means(gates: Gates, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Mean gate of each class: layer to (K, C) float64; a class without images is NaN.

    Args:
        gates: of N images.
        labels: (N,), integers from 0.
    Source: Hu et al. 2018 (arXiv:1709.01507), the section on the role of excitation.
    """
    return {layer: _means(values, labels) for layer, values in gates.values.items()}


def _means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    labels = _checked(labels, len(values))
    sums = np.zeros((labels.max() + 1, values.shape[1]))
    np.add.at(sums, labels, values.astype(np.float64))
    counts = np.bincount(labels)[:, None]
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _checked(labels: np.ndarray, num_images: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (num_images,) or labels.min() < 0:
        raise DataError(f"{num_images} images need as many labels from 0, not {labels.shape}")
    return labels.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the gates of one layer vary; all standard deviations divide by N.

    Attributes:
        between_sd: (C,), of the class means, each class weighted by its images.
        within_sd: (C,), of the gates about the mean of their own class.
        share: (C,), in [0, 1]: between_sd² / (between_sd² + within_sd²), the share of a channel's
            variance that the class accounts for; NaN where a gate does not vary at all.
        total_share: the same with the variances of all channels added up; channels that hardly
            vary hardly count. NaN where none varies.
        chance: (K - 1) / (N - 1), the expected share if labels had nothing to do with the gates;
            K counts the classes present.
    """

    between_sd: np.ndarray
    within_sd: np.ndarray
    share: np.ndarray
    total_share: float
    chance: float


def class_spread(gates: Gates, labels: np.ndarray) -> dict[str, Spread]:
    """How much of the variance of the gates lies between classes: layer to `Spread`."""
    return {layer: _spread(values, labels) for layer, values in gates.values.items()}


def _spread(values: np.ndarray, labels: np.ndarray) -> Spread:
    values, labels = values.astype(np.float64), _checked(labels, len(values))
    values = values - values[0]  # a gate that does not vary is zero exactly, not up to rounding
    means = _means(values, labels)[labels]  # (N, C), the mean of the image's own class
    between = ((means - values.mean(0)) ** 2).mean(0)
    within = ((values - means) ** 2).mean(0)
    total = between + within
    share = np.divide(between, total, out=np.full_like(total, np.nan), where=total > 0)
    return Spread(
        between_sd=np.sqrt(between),
        within_sd=np.sqrt(within),
        share=share,
        total_share=float(between.sum() / total.sum()) if total.any() else float("nan"),
        chance=(len(np.unique(labels)) - 1) / max(len(labels) - 1, 1),
    )


def layer_table(
    gates: Gates, labels: np.ndarray, *, constant_sd: float = CONSTANT_SD
) -> "pd.DataFrame":
    """One row a layer, in order of depth.

    Args:
        gates: of N images.
        labels: (N,), integers from 0.
        constant_sd: a channel is constant when its gate's standard deviation over all images
            (dividing by N) is below this.
    Returns:
        Columns layer, stage (None where the path names none), channels (C), mean (of all N * C
        gates), near_zero and near_one (gates below 0.05 and above 0.95, of N * C), constant
        (channels, of C), near_zero_share, near_one_share and constant_share (the same as
        fractions), class_share (`Spread.total_share`), chance.
        For gates other than the sigmoid's, "near zero" still means below 0.05, negative or not.
    """
    import pandas as pd

    rows, spreads = [], class_spread(gates, labels)
    for layer, values in gates.values.items():
        low, high = int((values < NEAR_ZERO).sum()), int((values > NEAR_ONE).sum())
        still = int((values.std(0, dtype=np.float64) < constant_sd).sum())
        rows.append({
            "layer": layer, "stage": gates.stage(layer), "channels": values.shape[1],
            "mean": float(values.mean(dtype=np.float64)),
            "near_zero": low, "near_one": high, "constant": still,
            "near_zero_share": low / values.size, "near_one_share": high / values.size,
            "constant_share": still / values.shape[1],
            "class_share": spreads[layer].total_share, "chance": spreads[layer].chance,
        })  # fmt: skip
    return pd.DataFrame(rows)


def stage_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """Early against late: the mean over the layers of each stage, of `layer_table`'s fractions.

    Returns:
        Columns stage, layers (how many), mean, near_zero_share, near_one_share, constant_share,
        class_share; every layer has the same weight, and one whose gates do not vary has no part
        in the mean of class_share.
    """
    shares = ["mean", "near_zero_share", "near_one_share", "constant_share", "class_share"]
    groups = table.groupby("stage", sort=True)
    means = groups[shares].mean()
    means.insert(0, "layers", groups.size())
    return means.reset_index()


# What gates matter for


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What is lost when one channel of one layer's rescaled map is zero, channel by channel.

    Attributes:
        layer: path of the attention.
        channels: (M,), the channels that were tried.
        mean_gate: (M,), mean gate of each over the same images.
        error: share of wrong predictions of the untouched network, in [0, 1].
        loss: its mean cross-entropy in nats.
        error_change: (M,), error without the channel less `error`; above 0: it was of use.
        loss_change: (M,), the same of the loss, in nats.
        num_images: N; the error moves in steps of 1 / N.
    """

    layer: str
    channels: np.ndarray
    mean_gate: np.ndarray
    error: float
    loss: float
    error_change: np.ndarray
    loss_change: np.ndarray
    num_images: int

    def rank_correlation(self) -> tuple[float, float]:
        """Spearman's correlation of mean gate and loss change over the channels, and its two-sided
        p; NaN for fewer than three channels or where either does not vary."""
        from scipy.stats import spearmanr

        pairs = (self.mean_gate, self.loss_change)
        if len(self.channels) < 3 or any(np.ptp(values) == 0 for values in pairs):
            return float("nan"), float("nan")
        found = spearmanr(*pairs)
        return float(found.statistic), float(found.pvalue)


@torch.inference_mode()
def channel_importance(
    model: nn.Module,
    images: Images,
    labels: np.ndarray,
    layer: str,
    channels: Sequence[int] | None = None,
    *,
    moments: Moments | None = None,
    batch_size: int = 500,
) -> Importance:
    """Zero one channel's gated output at a time and measure what the network loses.

    The gate is set to zero, which makes the channel of the rescaled map zero for every image. In
    our networks the blocks before the layer's are run once for all channels.

    Args:
        model: any network with attention; left as it was.
        images: as in `record_gates`.
        labels: (N,), integers from 0.
        layer: path of the attention, one of `record_gates(...).layers`.
        channels: which to try; None for all.
        moments: as in `record_gates`.
        batch_size: images at a time.
    Raises:
        UnknownNameError: the model has no such layer.
        SenetError: the layer has no such channel.
    """
    _check_layer(model, layer)
    images, moments = _unpacked(images, moments)
    truth = torch.as_tensor(_checked(labels, len(images)))
    before, after = _split(model, layer)
    gate_sum: list[Tensor] = []  # (C,) for each batch
    chosen = None if channels is None else [int(c) for c in channels]
    totals: np.ndarray | float = 0.0  # (1 + M, 2): wrong and summed loss, untouched network first
    with _evaluating(model):
        for batch, target in zip(
            _batches(model, images, moments, batch_size), truth.split(batch_size), strict=True
        ):
            x = before(batch)
            with _hooked(model, [layer], lambda _, gate: gate_sum.append(_gate_sum(gate))):
                rows = [_sums(after(x), target)]
            chosen = _checked_channels(chosen, len(gate_sum[0]), layer)
            for channel in chosen:
                with _hooked(model, [layer], lambda _, gate, c=channel: _without(gate, c)):
                    rows.append(_sums(after(x), target))
            totals = totals + np.array(rows)
    error, loss = (totals / len(images)).T
    return Importance(
        layer=layer,
        channels=np.array(chosen, int),
        mean_gate=(sum(gate_sum) / len(images)).numpy()[chosen],
        error=float(error[0]),
        loss=float(loss[0]),
        error_change=error[1:] - error[0],
        loss_change=loss[1:] - loss[0],
        num_images=len(images),
    )


def _check_layer(model: nn.Module, layer: str) -> None:
    if layer not in (paths := _gated(model)):
        raise unknown("attention layer", layer, paths)


def _checked_channels(chosen: list[int] | None, num_channels: int, layer: str) -> list[int]:
    chosen = list(range(num_channels)) if chosen is None else chosen
    for channel in chosen:
        if not 0 <= channel < num_channels:
            raise SenetError(f"{layer} has channels 0 to {num_channels - 1}, not {channel}")
    return chosen


def _gate_sum(gate: Tensor) -> Tensor:
    return gate.double().flatten(2).mean(2).sum(0).cpu()  # (C,)


def _without(gate: Tensor, channel: int) -> Tensor:
    gate = gate.clone()
    gate[:, channel] = 0
    return gate


def _wrong_and_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each prediction is wrong, and its cross-entropy in nats; both (B,)."""
    labels = labels.to(logits.device)
    return logits.argmax(1) != labels, F.cross_entropy(logits.double(), labels, reduction="none")


def _sums(logits: Tensor, labels: Tensor) -> list[float]:
    """Number of wrong predictions and summed loss."""
    return [float(part.sum()) for part in _wrong_and_losses(logits, labels)]


def _split(model: nn.Module, layer: str) -> tuple[Callable, Callable]:
    """The model as what comes before the layer's block, and the rest with that block."""
    found = re.match(r"stage(\d+)\.(\d+)\.", layer)
    if found is None or type(model).forward is not Network.forward:
        return nn.Identity(), model
    stages = [list(stage) for stage in model.stages]
    index = sum(map(len, stages[: int(found[1]) - 1])) + int(found[2])
    blocks = [block for stage in stages for block in stage]
    first, rest = [model.stem, *blocks[:index]], [*blocks[index:], model.head]
    return (lambda x: _through(first, x)), (lambda x: _through(rest, x))


def _through(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How a network does on each image.

    Attributes:
        wrong: (N,) bool.
        losses: (N,) float64, cross-entropy in nats.
    """

    wrong: np.ndarray
    losses: np.ndarray

    @property
    def error(self) -> float:
        """Share of wrong predictions, in [0, 1]."""
        return float(self.wrong.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return float(self.losses.mean())


@torch.inference_mode()
def fixed_gates(
    model: nn.Module,
    images: Images,
    labels: np.ndarray,
    fixed: Mapping[str, np.ndarray],
    *,
    moments: Moments | None = None,
    batch_size: int = 500,
) -> Scores:
    """How the network does with gates that no longer see the image.

    Args:
        model: any network with attention; left as it was.
        images: as in `record_gates`.
        labels: (N,), integers from 0.
        fixed: layer to (C,), the gates that every image gets there, such as their means over the
            images; other layers compute theirs as usual. Empty: the untouched network.
        moments: as in `record_gates`.
        batch_size: images at a time.
    Raises:
        UnknownNameError: the model has no such layer.
    """
    for layer in fixed:
        _check_layer(model, layer)
    images, moments = _unpacked(images, moments)
    truth = torch.as_tensor(_checked(labels, len(images)))
    parts: list[tuple[Tensor, Tensor]] = []

    def put(path: str, gate: Tensor) -> Tensor:
        values = torch.as_tensor(fixed[path]).to(gate)  # (C,)
        return values[None, :, None, None].expand_as(gate)

    with _evaluating(model), _hooked(model, fixed, put):
        for batch, target in zip(
            _batches(model, images, moments, batch_size), truth.split(batch_size), strict=True
        ):
            parts.append(_wrong_and_losses(model(batch), target))
    wrong, losses = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return Scores(wrong=wrong, losses=losses)


# One trained network


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A finished run's network with the images it is asked about.

    Attributes:
        run: its record.
        model: the trained network, in eval mode.
        data: name or path of the data the images are from.
        images: (N, H, W, 3) uint8.
        labels: (N,) int64.
        gates: of every attention layer over the images.
        untrained: the same of the network as `untrained_network` makes it.
    """

    run: RunRecord
    model: nn.Module
    data: str
    images: np.ndarray
    labels: np.ndarray
    gates: Gates
    untrained: Gates

    @property
    def moments(self) -> Moments:
        """What the images are normalised by: the moments the network was trained with."""
        return self.run.mean, self.run.std

    def importance(self, layer: str, num_images: int = 200) -> Importance:
        """`channel_importance` of every channel of a layer, on the first `num_images` images."""
        images, labels = self.images[:num_images], self.labels[:num_images]
        return channel_importance(self.model, images, labels, layer, moments=self.moments)

    def fix(self, layers: Iterable[str]) -> Scores:
        """`fixed_gates` with the gates of these layers at their means over the images."""
        means = {layer: self.gates.values[layer].mean(0) for layer in layers}
        return fixed_gates(self.model, self.images, self.labels, means, moments=self.moments)


def open_run(
    study: str,
    model: str,
    seed: int,
    runs_root: str | Path = DEFAULT_ROOT,
    data: str = "",
    num_images: int = 2000,
) -> Subject:
    """Load a finished run, and record its gates over the first images it was evaluated on.

    Args:
        study: the study's name.
        model: the network's name.
        seed: the run's seed.
        runs_root: folder of the studies' folders.
        data: name or path of the data; empty: what the run was trained on.
        num_images: images to take, in their canonical order, which is as good as drawn at random;
            all where there are fewer.
    Raises:
        RecordError: there is no such finished run.
        NoAttentionError: the network has no attention.
        DataError: there is no image, or the data has other classes than the network.
    """
    run = load_run(from_top(runs_root, DEFAULT_ROOT) / study / model / f"seed{seed}")
    network = run.load_model()
    _gated(network)  # before any image is read
    dataset = images_of(run, data)
    if num_images < 1:
        raise DataError(f"num_images is {num_images}; it must be at least 1")
    images, labels = dataset.x_test[:num_images], dataset.y_test[:num_images]
    moments = (run.mean, run.std)
    return Subject(
        run=run,
        model=network,
        data=data or run.data,
        images=images,
        labels=labels,
        gates=record_gates(network, images, moments=moments),
        untrained=record_gates(untrained_network(run, images), images, moments=moments),
    )


@torch.no_grad()
def untrained_network(run: RunRecord, images: np.ndarray) -> nn.Module:
    """The run's network with fresh weights, as a control: what its gates do without training.

    The weights are drawn from the run's seed. Normalisations get their statistics from the first
    500 images, for without any the activations would grow from block to block.

    Args:
        run: which network.
        images: (N, H, W, 3) uint8.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = create_model(
            run.model, num_classes=len(run.classes), in_channels=len(run.mean), **run.overrides
        )
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # the statistics of the one batch below
    network.train()(normalise(torch.as_tensor(images[:500]), tuple(run.mean), tuple(run.std)))
    return network.eval()
