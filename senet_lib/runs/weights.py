"""Files that hold networks: finished weights (safetensors) and a run's checkpoint (resumable).

The checkpoint before the last one is kept until the next is whole, for a disk may damage what is
there. Weights carry what is needed to use them alone: the model's name and overrides, the classes,
the normalisation, and a checksum of all that and of the numbers, which is checked when read.
"""

import dataclasses
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet_lib import plugins
from senet_lib.errors import CheckpointError, RecordError, SenetError, counted, is_out_of_memory
from senet_lib.files import read_json, write_whole
from senet_lib.models import create_model
from senet_lib.models.registry import full_name
from senet_lib.recipe import needed_fields
from senet_lib.runs import RECORD

WEIGHTS = "weights.safetensors"
CHECKPOINT, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"
FORMAT = "senet_lib/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetSpec:
    """What a network is and how its images are normalised."""

    model: str  # registry name
    overrides: Mapping[str, Any]  # arguments given to the builder beside the name
    classes: tuple[str, ...]  # names of the classes, in the order of the logits
    mean: tuple[float, ...]  # mean of each colour channel, in [0, 1]
    std: tuple[float, ...]  # standard deviation of each colour channel
    half_precision: bool = False  # whether the weights were rounded to float16 when they were saved
    data: str = ""  # name or path of what it was trained on; empty if the file does not say
    data_fingerprint: str = ""  # of all of that data; empty likewise
    num_val: int = 0  # training images that were held out

    @property
    def network(self) -> str:
        """Name of the network with every setting of it, such as `se_resnet20+reduction=4`."""
        return full_name(self.model, self.overrides)

    def build(self) -> nn.Module:
        """A freshly initialised network of this kind."""
        for key in {"name", "num_classes", "in_channels"} & set(self.overrides):
            raise SenetError(f"{key} cannot be set; it comes from the model or the data")
        return create_model(
            self.model, num_classes=len(self.classes), in_channels=len(self.mean), **self.overrides
        )

    def to_dict(self) -> dict[str, Any]:
        """Every field of the training by name."""
        fields = dataclasses.asdict(self)
        del fields["half_precision"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "NetSpec":
        """The inverse of `to_dict`; raises KeyError where a field without a default is missing."""
        known, needed = [spec.name for spec in dataclasses.fields(cls)], needed_fields(cls)
        found = {name: fields[name] for name in known if name in needed or name in fields}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})


def save_weights(path: Path, model: nn.Module, spec: NetSpec) -> None:
    """Write parameters and buffers with `spec` as metadata; equal networks give equal bytes."""
    from safetensors.torch import save

    # Copies: a network may use one layer in two places, and safetensors takes no shared memory.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    fields = {"format": FORMAT, **spec.to_dict()}
    text = json.dumps({**fields, "sha256": _digest(fields, state)}, sort_keys=True)
    # One key: safetensors writes several in an order that differs from process to process.
    write_whole(path, save(state, metadata={"spec": text}))


def _digest(fields: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_network(path: str | Path) -> tuple[nn.Module, NetSpec]:
    """A network, in eval mode and fp32, on the CPU, and what it is; from weights.safetensors, a
    run's checkpoint.pt, or a run's folder holding either. CheckpointError where there is no such
    file, or it is no checkpoint of ours."""
    path = Path(path)
    if path.is_dir():
        names = (WEIGHTS, CHECKPOINT, PREVIOUS)
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise CheckpointError(f"{path} holds neither {WEIGHTS} nor {CHECKPOINT}")
        path = found[0]
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint: {path}")
    spec, state = _read_weights(path) if path.suffix == ".safetensors" else _read_state(path)
    try:
        model = spec.build()
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except (SenetError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} does not fit the model it names: {reason}") from None
    with suppress(RecordError):  # who reads the record says what is wrong with it
        kept = read_json(path.with_name(RECORD)).get("plugins", {})
        for name in plugins.changed(kept):
            print(f"note: {name} has changed since {path.parent} was trained", file=sys.stderr)
    return model.eval(), spec


def _read_weights(path: Path) -> tuple[NetSpec, dict[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            state = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        raise CheckpointError(f"{path} is not a whole safetensors file") from None
    half = any(tensor.dtype == torch.float16 for tensor in state.values())
    try:
        fields = json.loads(metadata["spec"])
        digest = fields.pop("sha256", None)
        spec = NetSpec.from_dict(fields)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{path} was not written by senet_lib: it does not say which model its weights are of"
        ) from None
    if (digest or "format" in fields) and digest != _digest(fields, state):  # older ones have none
        raise CheckpointError(f"{path} was changed after it was written: its checksum differs")
    return dataclasses.replace(spec, half_precision=half), state


def _read_state(path: Path) -> tuple[NetSpec, dict[str, torch.Tensor]]:
    state = load_checkpoint(path)
    try:
        engine = state["engine"]
        average = engine.get("average")  # what is evaluated, where there is one
        network = average["network"] if average else engine["model"]
        spec, epochs = NetSpec.from_dict(state["spec"]), state["position"]["epoch"]
    except (KeyError, TypeError):
        raise CheckpointError(f"{path} lacks its network") from None
    done = counted(epochs, "whole epoch")
    print(f"note: {path} is of a run that has not ended: {done}", file=sys.stderr)
    return spec, network


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a run's resumable state; the checkpoint before it stays as checkpoint.previous.pt."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_whole(path, buffer.getvalue(), keep=path.with_name(PREVIOUS))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a run's resumable state, executing no code; CheckpointError if missing or damaged."""
    try:
        with path.open("rb") as file:  # torch does not look at the checksums of its own format
            damaged = zipfile.ZipFile(file).testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no such checkpoint: {path}") from None
    except Exception as error:  # both raise whatever the bytes provoke
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise
        raise CheckpointError(f"{path} is damaged, or not a checkpoint") from None
    if damaged:
        raise CheckpointError(f"{path} is damaged: its checksum differs")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a checkpoint of senet_lib: expected a {CHECKPOINT} or {WEIGHTS} "
            "written by `senet train`"
        )
    return state
