"""Write a trained network in a format that other programs read: ONNX, TorchScript or PT2.

The batch axis of the written network is free, and its logits are compared with the model's own
before the file takes its place. PyTorch has deprecated TorchScript; PT2 is its successor.
"""

import importlib.util
import io
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from senet_lib.errors import MissingDependencyError, SenetError, unknown
from senet_lib.files import replacing

TOLERANCE = 1e-4
_TRACE_BATCH, _CHECK_BATCH = 2, 3
_FREE_BATCH = ({0: torch.export.Dim("batch", min=1)},)


class ExportMismatchError(RuntimeError):
    """The written network does not give the model's logits; the file was not kept."""


def export_model(
    model: nn.Module, path: str | Path, format: str, input_size: Sequence[int] = (3, 32, 32)
) -> Path:
    """Write a model with a free batch axis, its input called `images` and its output `logits`.

    The file appears whole or not at all, and only after its logits on random images, for another
    batch size than the one it was traced with, were found equal to the model's within 1e-4 (of the
    largest logit, where that exceeds 1). The given model is left as it was; what is written is its
    float32 copy in eval mode.

    Args:
        model: maps (N, *input_size) to logits (N, K).
        path: file to write; missing folders are made, an old file is replaced.
        format: "onnx" (needs the extra `export`), "torchscript" or "pt2".
        input_size: (channels, height, width) in pixels.
    Returns:
        The path of the file.
    Raises:
        UnknownNameError: another format.
        MissingDependencyError: ONNX is asked for and onnx, onnxscript or onnxruntime is missing.
        SenetError: the path is a folder.
        ExportMismatchError: the written network gives other logits.
    """
    if format not in _FORMATS:
        raise unknown("export format", str(format), _FORMATS)
    write, suffix = _FORMATS[format]
    if format == "onnx":
        _require_onnx()
    path = Path(path)
    if path.is_dir():
        raise SenetError(f"{path} is a folder; name a file such as {path / f'model{suffix}'}")
    network = deepcopy(model).cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_CHECK_BATCH, *input_size, generator=generator)
    with replacing(path) as partial, torch.no_grad(), warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # the choice of format is the user's
            warnings.simplefilter("ignore", kind)
        expected = network(images)
        written = write(network, partial, images[:_TRACE_BATCH], images)
        error = (written - expected).abs().max().item()
        if not error <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise ExportMismatchError(
                f"the {format} network's logits differ from the model's by {error:.2g}, "
                f"more than {TOLERANCE:g}"
            )
    return path


def _require_onnx() -> None:
    """MissingDependencyError with the remedy unless all packages of the extra are installed."""
    packages = ("onnx", "onnxscript", "onnxruntime")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"ONNX needs {', '.join(missing)}; install with: pip install 'senet-lib[export]'"
        )


def _onnx(network: nn.Module, path: Path, images: Tensor, others: Tensor) -> Tensor:
    import onnxruntime

    torch.onnx.export(
        network, (images,), path, dynamo=True, external_data=False, verbose=False,
        input_names=["images"], output_names=["logits"], dynamic_shapes=_FREE_BATCH,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": others.numpy()})
    return torch.from_numpy(logits)


def _torchscript(network: nn.Module, path: Path, images: Tensor, others: Tensor) -> Tensor:
    buffer = io.BytesIO()  # on a full disk, its own writer would abort the process
    torch.jit.save(torch.jit.trace(network, images, check_trace=False), buffer)
    path.write_bytes(buffer.getvalue())
    return torch.jit.load(str(path))(others)


def _pt2(network: nn.Module, path: Path, images: Tensor, others: Tensor) -> Tensor:
    buffer = io.BytesIO()
    exported = torch.export.export(network, (images,), dynamic_shapes=_FREE_BATCH)
    torch.export.save(exported, buffer)
    path.write_bytes(buffer.getvalue())
    return torch.export.load(path).module()(others)


# Write the network, traced with some images, and give what the file says of others.
_FORMATS = {"onnx": (_onnx, ".onnx"), "torchscript": (_torchscript, ".pt"), "pt2": (_pt2, ".pt2")}
