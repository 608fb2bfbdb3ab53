"""What gates matter for: channels are zeroed and gates fixed, and the network is asked again.

The model is left as it was. Shapes: N images, C channels of an attention's map, H x W pixels.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.analysis import gates
from senet_lib.analysis.statistics import interval
from senet_lib.data.datasets import Dataset
from senet_lib.errors import unknown
from senet_lib.evaluation import evaluating
from senet_lib.files import read_json, write_json
from senet_lib.models.blocks import Network
from senet_lib.runs.records import RunRecord

SUMMARIES = "gates-*.json"
SHARES = ("mean", "class_share", "constant_share")
NEEDED = (
    "model", "seed", "recipe_id", "data_fingerprint", "images", "layers", "varying", "first",
    "last", "error", "fixed_error",
)  # fmt: skip


@torch.no_grad()
def channel_importance(
    model: nn.Module, images: Tensor, labels: np.ndarray, layer: str
) -> pd.DataFrame:
    """Set the gate of one channel at a time to zero and measure what the network loses.

    Args:
        model, images: as in `record_gates`.
        labels: (N,), integers from 0.
        layer: path of the attention, one of `record_gates(...).layers`.
    Returns:
        A row a channel: layer, channel, mean_gate (over the images), error_change (error without
        the channel less that of the untouched network, a fraction; above 0: it was of use) and
        loss_change (the same of the mean cross-entropy, in nats).
    """
    _check_layer(model, layer)
    before, after = _split(model, layer)
    gate_sum: list[Tensor] = []  # (C,) for each batch
    totals: np.ndarray | float = 0.0  # (1 + C, 2): wrong and summed loss, untouched network first

    def note(path: str, gate: Tensor) -> None:
        gate_sum.append(gate.cpu().double().mean(2).sum(0))

    def without(channel: int) -> Callable[[str, Tensor], Tensor]:
        return lambda path, gate: gate.index_fill(1, torch.tensor([channel], device=gate.device), 0)

    with evaluating(model):
        for batch, target in _labelled(model, images, labels):
            x = before(batch)
            with gates.hooked(model, [layer], note):
                rows = [_wrong_and_losses(after(x), target).sum(1).tolist()]
            for channel in range(len(gate_sum[0])):
                with gates.hooked(model, [layer], without(channel)):
                    rows.append(_wrong_and_losses(after(x), target).sum(1).tolist())
            totals = totals + np.array(rows)
    error, loss = (totals / len(images)).T
    return pd.DataFrame({
        "layer": layer, "channel": range(len(error) - 1),
        "mean_gate": sum(gate_sum) / len(images),
        "error_change": error[1:] - error[0], "loss_change": loss[1:] - loss[0],
    })  # fmt: skip


def _labelled(
    model: nn.Module, images: Tensor, labels: np.ndarray
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches with their labels; these on the CPU."""
    truth = torch.as_tensor(gates.checked_labels(labels, len(images)))
    return zip(gates.batches(model, images), truth.split(gates.BATCH), strict=True)


def _check_layer(model: nn.Module, layer: str) -> None:
    if layer not in (paths := gates.gated_layers(model)):
        raise unknown("attention layer", layer, paths)


def _wrong_and_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each prediction is wrong, and its cross-entropy in nats: (2, B) float64, CPU."""
    logits = logits.cpu().double()  # MPS has no float64
    losses = F.cross_entropy(logits, labels, reduction="none")
    return torch.stack([(logits.argmax(1) != labels).double(), losses])


def _split(model: nn.Module, layer: str) -> tuple[Callable, Callable]:
    """The model as what comes before the layer's block, and the rest with that block."""
    found = re.match(r"stage(\d+)\.(\d+)\.", layer)
    if found is None or type(model).forward is not Network.forward:
        return nn.Identity(), model
    stages = [list(stage) for stage in model.stages]
    index = sum(map(len, stages[: int(found[1]) - 1])) + int(found[2])
    parts = [model.stem, *(block for stage in stages for block in stage), model.head]
    return nn.Sequential(*parts[: 1 + index]), nn.Sequential(*parts[1 + index :])


@torch.no_grad()
def fixed_gates(
    model: nn.Module, images: Tensor, labels: np.ndarray, fixed: Mapping[str, np.ndarray]
) -> np.ndarray:
    """How the network does on each image with gates that no longer see the image.

    Args:
        model, images: as in `record_gates`.
        labels: (N,), integers from 0.
        fixed: layer to (C,), the gates that every image gets there, such as their means over the
            images; other layers compute theirs as usual. Empty: the untouched network.
    Returns:
        (2, N) float64: whether it is wrong, 0 or 1, and its cross-entropy in nats.
    """
    for layer in fixed:
        _check_layer(model, layer)

    def put(path: str, gate: Tensor) -> Tensor:
        values = torch.as_tensor(fixed[path]).to(gate)  # (C,)
        return values[None, :, None].expand_as(gate)

    with evaluating(model), gates.hooked(model, fixed, put):
        parts = [_wrong_and_losses(model(x), y) for x, y in _labelled(model, images, labels)]
    return torch.cat(parts, 1).numpy()


def fixed_table(fixed: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """What fixing gates changes, image by image, of `fixed_gates`; "none" is the untouched network.

    Returns:
        Index which gates are fixed; columns error, error_change (fractions), loss, loss_change
        (nats), low and high: the 95 % t interval of the mean change of loss over the images, which
        is infinite for a single image and a point where all change alike; error_reach: half of
        that of the error, NaN where all change alike, as none does, which has no spread to go by.
    """
    plain, rows = fixed["none"], []
    for scores in fixed.values():
        wrong, changes = scores - plain
        (least, most), (low, high) = _ends(wrong), _ends(changes)
        (error, loss), (error_before, loss_before) = scores.mean(1), plain.mean(1)
        rows.append({
            "error": error, "error_change": error - error_before,
            "error_reach": (most - least) / 2 or np.nan,
            "loss": loss, "loss_change": loss - loss_before, "low": low, "high": high,
        })  # fmt: skip
    return pd.DataFrame(rows, index=list(fixed))


def _ends(changes: np.ndarray) -> tuple[float, float]:
    ends = (-np.inf, np.inf) if len(changes) == 1 else (changes[0], changes[0])
    return interval(changes) or ends


def write_summary(
    run: RunRecord,
    dataset: Dataset,
    images: int,
    table: pd.DataFrame,
    fixed: pd.DataFrame,
    page_folder: str | Path,
) -> None:
    """Write the numbers of one run over so many images of a dataset, `layer_table` and
    `fixed_table`, to `gates-<model>.json` in the page's folder."""
    stages = gates.stage_table(table)
    rows = {"first": stages.iloc[0], "last": stages.iloc[-1]} if len(stages) else {}
    ends = {end: row[list(SHARES)].dropna().to_dict() for end, row in rows.items()}
    content: dict[str, Any] = {
        "model": run.network, "seed": run.seed, "recipe_id": run.recipe_id,
        "data_fingerprint": dataset.fingerprint, "images": images,
        "layers": len(table), "varying": int((table["constant_share"] < 1).sum()),
        "first": ends.get("first"), "last": ends.get("last"),
        "error": float(fixed.loc["none", "error"]),
        "fixed_error": float(fixed.loc["all", "error"]),
    }  # fmt: skip
    if np.isfinite(reach := float(fixed.loc["all", "error_reach"])):  # else there is none
        content["fixed_reach"] = reach
    write_json(Path(page_folder) / f"gates-{content['model']}.json", content)


def read_summaries(folder: str | Path) -> pd.DataFrame:
    """What `write_summary` left in a folder: a row a network, none where none was looked at.

    Returns:
        Columns model, seed, recipe_id (of the run), data_fingerprint (of the dataset), images,
        layers and varying (those in which some gate varies over the images), mean_first, mean_last,
        class_share_first and so on (NaN where the layers name no stages), error, fixed_error
        (fractions), fixed_reach: half of the 95 % interval of their difference over the images, NaN
        where that is not known.
    Raises:
        RecordError: a file is unreadable or incomplete.
    """
    shares = {f"{name}_{end}": (name, end) for name in SHARES for end in ("first", "last")}
    rows = []
    for path in sorted(Path(folder).glob(SUMMARIES)):
        found = read_json(path, NEEDED)
        ends = {key: (found[end] or {}).get(name, np.nan) for key, (name, end) in shares.items()}
        rows.append({"fixed_reach": np.nan, **found, **ends})
    kept = [name for name in NEEDED if name not in ("first", "last")]
    return pd.DataFrame(rows, columns=[*kept, "fixed_reach", *shares])
