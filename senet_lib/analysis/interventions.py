"""What gates matter for: channels are zeroed and gates fixed, and the network is asked again.

Nothing here trains; the model is left as it was. `open_run` gives a trained network with its gates
and those of the same network before training.

Shapes: N images, C channels of an attention's map, M channels that are tried, H x W pixels.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.analysis.gates import (
    Gates,
    Images,
    Moments,
    batches,
    checked_labels,
    gated_layers,
    hooked,
    record_gates,
    stage_table,
    unpacked,
    untrained_network,
)
from senet_lib.analysis.statistics import interval
from senet_lib.errors import DataError, SenetError, unknown
from senet_lib.evaluation import evaluating
from senet_lib.files import read_json, write_json
from senet_lib.models.blocks import Network
from senet_lib.runs.evaluate import images_of
from senet_lib.runs.records import DEFAULT_ROOT, RunRecord, anchored, from_top, load_run

if TYPE_CHECKING:
    import pandas as pd

SUMMARIES = "gates-*.json"
SHARES = ("mean", "class_share", "constant_share")
NEEDED = ("model", "seed", "images", "layers", "first", "last", "error", "fixed_error")


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
        model, images, moments, batch_size: as in `record_gates`.
        labels: (N,), integers from 0.
        layer: path of the attention, one of `record_gates(...).layers`.
        channels: which to try; None for all.
    Raises:
        UnknownNameError: the model has no such layer.
        SenetError: the layer has no such channel.
    """
    _check_layer(model, layer)
    images, moments = unpacked(images, moments)
    truth = torch.as_tensor(checked_labels(labels, len(images)))
    before, after = _split(model, layer)
    gate_sum: list[Tensor] = []  # (C,) for each batch
    chosen = None if channels is None else [int(c) for c in channels]
    totals: np.ndarray | float = 0.0  # (1 + M, 2): wrong and summed loss, untouched network first
    with evaluating(model):
        for batch, target in zip(
            batches(model, images, moments, batch_size), truth.split(batch_size), strict=True
        ):
            x = before(batch)
            with hooked(
                model,
                [layer],
                lambda _, gate: gate_sum.append(gate.double().flatten(2).mean(2).sum(0).cpu()),
            ):
                rows = [_sums(after(x), target)]
            chosen = _checked_channels(chosen, len(gate_sum[0]), layer)
            for channel in chosen:
                with hooked(model, [layer], lambda _, gate, c=channel: _without(gate, c)):
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
    if layer not in (paths := gated_layers(model)):
        raise unknown("attention layer", layer, paths)


def _checked_channels(chosen: list[int] | None, num_channels: int, layer: str) -> list[int]:
    chosen = list(range(num_channels)) if chosen is None else chosen
    for channel in chosen:
        if not 0 <= channel < num_channels:
            raise SenetError(f"{layer} has channels 0 to {num_channels - 1}, not {channel}")
    return chosen


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
    """How a network does on each image: wrong, (N,) bool, and losses, (N,) in nats."""

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
        model, images, moments, batch_size: as in `record_gates`.
        labels: (N,), integers from 0.
        fixed: layer to (C,), the gates that every image gets there, such as their means over the
            images; other layers compute theirs as usual. Empty: the untouched network.
    Raises:
        UnknownNameError: the model has no such layer.
    """
    for layer in fixed:
        _check_layer(model, layer)
    images, moments = unpacked(images, moments)
    truth = torch.as_tensor(checked_labels(labels, len(images)))
    parts: list[tuple[Tensor, Tensor]] = []

    def put(path: str, gate: Tensor) -> Tensor:
        values = torch.as_tensor(fixed[path]).to(gate)  # (C,)
        return values[None, :, None, None].expand_as(gate)

    with evaluating(model), hooked(model, fixed, put):
        for batch, target in zip(
            batches(model, images, moments, batch_size), truth.split(batch_size), strict=True
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
        DataError: there is no image, or the data has more classes than the network.
    """
    run = load_run(from_top(runs_root, DEFAULT_ROOT) / study / model / f"seed{seed}")
    network = run.load_model()
    gated_layers(network)  # before any image is read
    dataset = images_of(run, data)
    if dataset.num_classes > len(run.classes):
        raise DataError(f"{data} has {dataset.num_classes} classes, {model} {len(run.classes)}")
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


def fix_stages(subject: Subject) -> dict[str, Scores]:
    """Scores of the network as it is ("none"), with the gates of each stage at their means over
    the images, and with all of them there ("all")."""
    gates = subject.gates
    found = {"none": subject.fix([])}
    for stage in dict.fromkeys(filter(None, map(gates.stage, gates.layers))):
        found[f"stage {stage}"] = subject.fix(x for x in gates.layers if gates.stage(x) == stage)
    return {**found, "all": subject.fix(gates.layers)}


def fixed_table(fixed: Mapping[str, Scores]) -> "pd.DataFrame":
    """What fixing gates changes, image by image.

    Args:
        fixed: of `fix_stages`.
    Returns:
        Index which gates are fixed; columns error, error_change (fractions), loss, loss_change
        (nats), low and high: the 95 % t interval of the mean change of loss over the images, which
        is infinite for a single image and a point where all change alike.
    """
    import pandas as pd

    plain, rows = fixed["none"], []
    for scores in fixed.values():
        changes = scores.losses - plain.losses
        found = interval(changes) if len(changes) > 1 else None
        still = changes[0] if len(changes) > 1 else np.inf
        rows.append({
            "error": scores.error, "error_change": scores.error - plain.error,
            "loss": scores.loss, "loss_change": scores.loss - plain.loss,
            "low": found.low if found else still if len(changes) > 1 else -np.inf,
            "high": found.high if found else still,
        })  # fmt: skip
    return pd.DataFrame(rows, index=list(fixed))


def importance_table(found: Iterable[Importance]) -> "pd.DataFrame":
    """What single channels are worth: a row a layer.

    Returns:
        Index the layer; columns channels (tried), median and largest (of the change of loss, nats),
        largest_error (of the change of error, a fraction), falls (channels without which the loss
        falls), rho and p (Spearman's correlation of mean gate and change of loss).
    """
    import pandas as pd

    rows = {}
    for one in found:
        rho, p = one.rank_correlation()
        rows[one.layer] = {
            "channels": len(one.channels), "median": np.median(one.loss_change),
            "largest": one.loss_change.max(), "largest_error": one.error_change.max(),
            "falls": int((one.loss_change < 0).sum()), "rho": rho, "p": p,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


# The numbers of a study's pages, kept beside its report


def write_summary(
    subject: Subject,
    table: "pd.DataFrame",
    fixed: Mapping[str, Scores],
    page_folder: str | Path = "",
) -> Path:
    """Write the numbers of one run, whole or not at all.

    Args:
        subject: the run and its images.
        table: of `gates.layer_table`.
        fixed: of `fix_stages`.
        page_folder: where; empty: outputs/reports/<study>.
    """
    stages = stage_table(table)
    ends = {"first": stages.iloc[0], "last": stages.iloc[-1]} if len(stages) else {}
    content: dict[str, Any] = {
        "model": subject.run.model,
        "seed": subject.run.seed,
        "images": len(subject.labels),
        "layers": len(table),
        **{end: None for end in ("first", "last") if not ends},
        **{end: {name: float(row[name]) for name in SHARES} for end, row in ends.items()},
        "error": fixed["none"].error,
        "fixed_error": fixed["all"].error,
    }
    folder = Path(page_folder or anchored("outputs/reports") / subject.run.study)
    path = folder / f"gates-{subject.run.model}.json"
    write_json(path, content)
    return path


def read_summaries(folder: str | Path) -> "pd.DataFrame":
    """What `write_summary` left in a folder: a row a network, none where none was looked at.

    Returns:
        Columns model, seed, images, layers, mean_first, mean_last, class_share_first and so on
        (NaN where the layers name no stages), error, fixed_error (fractions).
    Raises:
        RecordError: a file is unreadable or incomplete.
    """
    import pandas as pd

    rows = []
    for path in sorted(Path(folder).glob(SUMMARIES)):
        found = read_json(path, NEEDED)
        ends = {
            f"{name}_{end}": (found[end] or {}).get(name, np.nan)
            for end in ("first", "last")
            for name in SHARES
        }
        rows.append({**found, **ends})
    shares = [f"{name}_{end}" for name in SHARES for end in ("first", "last")]
    kept = ["model", "seed", "images", "layers", *shares, "error", "fixed_error"]
    return pd.DataFrame(rows, columns=kept)
