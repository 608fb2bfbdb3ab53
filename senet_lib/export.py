"""Write a trained network in a format that other programs read: ONNX, TorchScript or PT2.

The file also says what its classes are and how images are normalised. PyTorch has deprecated
TorchScript; PT2 is its successor.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from senet_lib.data.sources import LEAST_STD
from senet_lib.errors import SenetError, is_out_of_memory, need, one_line, unknown
from senet_lib.files import replacing

TOLERANCE = 1e-4
ONNX = ("onnx", "onnxscript", "onnxruntime")  # packages of the extra
_TRACE_BATCH, _CHECK_BATCH = 2, 3
_FREE_BATCH = ({0: torch.export.Dim("batch", min=1)},)
_ABOUT = "senet.json"  # what the file says of itself goes by this name


class ExportMismatchError(RuntimeError):
    """The written network does not give the model's logits; the file was not kept."""

    exit_code = 1


class Normalised(nn.Module):
    """images - minus the mean, over the deviation - network: takes RGB in [0, 1]."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).clamp(min=LEAST_STD).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


def export_model(
    model: nn.Module,
    path: str | Path,
    format: str,
    input_size: Sequence[int] = (3, 32, 32),
    about: Mapping[str, object] | None = None,
) -> Path:
    """Write a model with a free batch axis, its input called `images` and its output `logits`.

    The file appears whole or not at all, and only after its logits on random images, for another
    batch size than the one it was traced with, were found equal to the model's within 1e-4 (of the
    largest logit, where that exceeds 1). What is written is a float32 copy in eval mode.

    Args:
        model: maps `(N, *input_size)` to logits (N, K).
        path: file to write, with the format's ending; an old one is replaced.
        format: "onnx" (needs the extra `export`), "torchscript" or "pt2".
        input_size: (channels, height, width) in pixels.
        about: what the file is to say of itself, ready for JSON.
    Returns:
        The path of the file.
    Raises:
        MissingDependencyError: ONNX is asked for and onnx, onnxscript or onnxruntime is missing.
        SenetError: the path is a folder, or ends otherwise; or the format cannot hold the network.
        ExportMismatchError: the written network gives other logits.
    """
    if format not in _FORMATS:
        raise unknown("export format", str(format), _FORMATS)
    write, load, suffix = _FORMATS[format]
    if format == "onnx":
        need("export", *ONNX)
    path = Path(path)
    if path.is_dir():
        raise SenetError(f"{path} is a folder; name a file such as {path / f'model{suffix}'}")
    if path.suffix != suffix:
        raise SenetError(f"{path} does not end in {suffix}, as a file of {format} does here")
    network = deepcopy(model).cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_CHECK_BATCH, *input_size, generator=generator)
    with replacing(path) as partial, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the choice of format is the user's
        warnings.simplefilter("ignore", FutureWarning)
        expected = network(images)
        try:
            write(network, partial, images[:_TRACE_BATCH], json.dumps(dict(about or {})))
            away = (load(partial)[0](images) - expected).abs().max().item()
        except Exception as error:  # each exporter has errors of its own
            if isinstance(error, OSError) or is_out_of_memory(error):
                raise
            reason = f"{format} cannot hold this network: {one_line(error)}"
            raise SenetError(reason) from error
        if not away <= TOLERANCE * max(1.0, expected.abs().max().item()):
            by = f"{away:.2g}, more than {TOLERANCE:g}"
            raise ExportMismatchError(f"the {format} network's logits differ by {by}")
    return path


def latency_ms(run: Callable[[Tensor], Tensor], input_size: Sequence[int]) -> float:
    """Milliseconds that one image takes, the median of about half a second of calls of a network,
    or of what `load_exported` gives."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # looks for CUDA
    from torch.utils.benchmark import Timer

    images = torch.randn(1, *input_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        names = {"run": run, "images": images}
        timer = Timer("run(images)", globals=names, num_threads=torch.get_num_threads())
        return 1e3 * timer.blocked_autorange(min_run_time=0.5).median


def load_exported(path: str | Path) -> tuple[Callable[[Tensor], Tensor], dict[str, object]]:
    """A written network, run by its own runtime: onnxruntime, TorchScript or torch.export.

    Args:
        path: a file of `export_model`, whose ending tells the format.
    Returns:
        A function from images (N, C, H, W) to logits (N, K), and what the file says of itself.
    Raises:
        SenetError: the ending is another, or the file is missing or damaged.
        MissingDependencyError: it is ONNX, and onnx, onnxscript or onnxruntime is missing.
    """
    path = Path(path)
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
    if path.suffix not in by_suffix:
        raise unknown("ending of an exported network", path.suffix, by_suffix)
    format = by_suffix[path.suffix]
    if not path.is_file():
        raise SenetError(f"there is no file {path}")
    if format == "onnx":
        need("export", *ONNX)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the choice of format is the user's
            run, about = _FORMATS[format][1](path)
        return run, dict(json.loads(about or "{}"))
    except Exception as error:  # each runtime has errors of its own
        raise SenetError(f"{path} is no network that can be loaded: {one_line(error)}") from None


def _write_onnx(network: nn.Module, path: Path, images: Tensor, about: str) -> None:
    program = torch.onnx.export(
        network, (images,), dynamo=True, verbose=False,
        input_names=["images"], output_names=["logits"], dynamic_shapes=_FREE_BATCH,
    )  # fmt: skip
    program.model.metadata_props[_ABOUT] = about
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return run, session.get_modelmeta().custom_metadata_map.get(_ABOUT, "")


def _write_torchscript(network: nn.Module, path: Path, images: Tensor, about: str) -> None:
    buffer = io.BytesIO()  # on a full disk, its own writer would abort the process
    traced = torch.jit.trace(network, images, check_trace=False)
    torch.jit.save(traced, buffer, _extra_files={_ABOUT: about})
    path.write_bytes(buffer.getvalue())


def _load_torchscript(path: Path) -> tuple[Callable[[Tensor], Tensor], str | bytes]:
    extra = {_ABOUT: ""}
    return torch.jit.load(str(path), _extra_files=extra), extra[_ABOUT]


def _write_pt2(network: nn.Module, path: Path, images: Tensor, about: str) -> None:
    buffer = io.BytesIO()
    exported = torch.export.export(network, (images,), dynamic_shapes=_FREE_BATCH)
    torch.export.save(exported, buffer, extra_files={_ABOUT: about})
    path.write_bytes(buffer.getvalue())


def _load_pt2(path: Path) -> tuple[Callable[[Tensor], Tensor], str | bytes]:
    extra = {_ABOUT: ""}
    return torch.export.load(path, extra_files=extra).module(), extra[_ABOUT]


# Write the network, traced with some images; load it again; the ending of its file.
_FORMATS = {
    "onnx": (_write_onnx, _load_onnx, ".onnx"),
    "torchscript": (_write_torchscript, _load_torchscript, ".ts"),
    "pt2": (_write_pt2, _load_pt2, ".pt2"),
}
SUFFIXES = {name: suffix for name, (_, _, suffix) in _FORMATS.items()}
