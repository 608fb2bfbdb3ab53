"""Exported networks give the model's logits in their own runtime; failures leave no file."""

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from senet_lib.errors import MissingDependencyError, SenetError, UnknownNameError
from senet_lib.evaluation import evaluating
from senet_lib.export import SUFFIXES, ExportMismatchError, export_model, load_exported
from senet_lib.models import create_model
from senet_lib.runs.evaluate import classify


class BakedIn(nn.Module):
    """Adds the batch size, which tracing turns into a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + float(x.shape[0])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("se_resnet20", num_classes=4)
    for _ in range(20):
        model(torch.randn(8, 3, 16, 16))  # moves the running statistics
    return model


@pytest.mark.parametrize(("format", "suffix"), SUFFIXES.items())
def test_logits_for_any_batch_size(model: nn.Module, tmp_path: Path, format, suffix) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        pytest.importorskip(package)
    path = tmp_path / "new" / f"model{suffix}"
    about = {"classes": ["a", "b"], "mean": [0.5] * 3}
    assert export_model(model, path, format, (3, 32, 32), about) == path
    run, said = load_exported(path)  # by the format's own runtime
    assert said == about
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert model.training
    for number in (1, 5):
        images = torch.randn(number, 3, 32, 32)
        with evaluating(model), torch.no_grad():
            torch.testing.assert_close(run(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet20+attention=scale", "resnet20+attention=half"])
@pytest.mark.parametrize(("format", "suffix"), SUFFIXES.items())
def test_gates_that_see_no_image_take_any_batch_size(tmp_path, name, format, suffix) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        pytest.importorskip(package)
    export_model(create_model(name), tmp_path / f"model{suffix}", format)  # which compares logits


def test_what_cannot_be_written_is_refused(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="onnx"):
        export_model(model, tmp_path / "model.onx", "onx")
    with pytest.raises(SenetError, match="is a folder"):
        export_model(model, tmp_path, "torchscript")
    for name in ("weights.safetensors", "checkpoint.pt", "model.pt", "model.onnx", "model"):
        with pytest.raises(SenetError, match=r"does not end in .ts"):
            export_model(model, tmp_path / name, "torchscript")
    monkeypatch.setattr(importlib.util, "find_spec", {"onnx": 1, "onnxruntime": 1}.get)
    with pytest.raises(MissingDependencyError, match=r"onnxscript.*-e '.\[export\]'"):
        export_model(model, tmp_path / "model.onnx", "onnx")
    assert not list(tmp_path.iterdir())


class Recursive(nn.Module):
    """Asks its input what to do, which no format can write down."""

    def forward(self, x: Tensor) -> Tensor:
        while x.abs().max() > 1:
            x = x / 2
        return x.mean((2, 3)).tolist() and x.mean((2, 3))


class OneBatchSize(nn.Module):
    """Is traced for one batch size, and fails with any other when it is loaded."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + torch.zeros(int(x.shape[0]), 3)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_network_that_a_format_cannot_hold_is_one_line(tmp_path: Path) -> None:
    for network, format in ((Recursive(), "pt2"), (OneBatchSize(), "torchscript")):
        with pytest.raises(SenetError, match=f"^{format} cannot hold this network: .+"):
            export_model(network, tmp_path / f"model{SUFFIXES[format]}", format)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_network_with_other_logits_does_not_replace_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.ts"
    path.write_text("the earlier file")
    with pytest.raises(ExportMismatchError, match="differ by 1"):
        export_model(BakedIn(), path, "torchscript")
    assert [p.name for p in tmp_path.iterdir()] == ["model.ts"]
    assert path.read_text() == "the earlier file"


@pytest.mark.parametrize("name", ["none.onnx", "model.png", "bad.onnx", "bad.ts", "bad.pt2"])
def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, name: str) -> None:
    if name.startswith("bad"):
        (tmp_path / name).write_bytes(b"PK no network")
    with pytest.raises(SenetError):
        load_exported(tmp_path / name)


SAYS = {"classes": ["a", "b", "c", "d"], "mean": [0.5] * 3, "std": [0.2] * 3,
        "input_size": [3, 32, 32]}  # fmt: skip
FOUR = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))


@pytest.mark.parametrize(
    ("change", "network", "size"),
    [
        ({}, FOUR, 32),
        ({"classes": ["a", "b", "c"]}, FOUR, 32),  # fewer than logits
        ({"classes": ["a", "b", "c", "d", "e"]}, FOUR, 32),
        ({"classes": "abcd"}, FOUR, 32),
        ({"std": [0.2, 0.0, 0.2]}, FOUR, 32),
        ({"mean": [0.5]}, FOUR, 32),
        ({"mean": ["0.5"] * 3}, FOUR, 32),
        ({"input_size": [3, 64, 64]}, FOUR, 32),
        ({}, nn.Flatten(), 16),
        ({}, nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), 2),
    ],
)
def test_a_file_that_says_wrong_things_of_itself_is_no_answer(change, network, size, tmp_path):
    path, picture = tmp_path / "model.ts", tmp_path / "picture.png"
    Image.new("RGB", (32, 32), "red").save(picture)
    export_model(network, path, "torchscript", (3, size, size), SAYS | change)
    if network is FOUR and not change:
        assert classify(path, [picture])[0].shape == (1, 4)
    else:
        with pytest.raises(SenetError, match=r"model\.ts"):
            classify(path, [picture])
