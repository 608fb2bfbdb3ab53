"""Exported networks give the model's logits in their own runtime; failures leave no file."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from senet_lib.errors import MissingDependencyError, SenetError, UnknownNameError
from senet_lib.export import ExportMismatchError, export_model
from senet_lib.models import create_model


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


def expected_logits(model: nn.Module, images: Tensor) -> Tensor:
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(images)
    model.train(training)
    return logits


def run_torchscript(path: Path, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.jit.load(path)(images)


def run_pt2(path: Path, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.export.load(path).module()(images)


def run_onnx(path: Path, images: Tensor) -> Tensor:
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.parametrize(
    ("format", "run"), [("torchscript", run_torchscript), ("pt2", run_pt2), ("onnx", run_onnx)]
)
def test_logits_for_any_batch_size(
    model: nn.Module, tmp_path: Path, format: str, run: object
) -> None:
    if format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    path = tmp_path / "new" / f"model.{format}"
    assert export_model(model, path, format, (3, 32, 32)) == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert model.training
    for number in (1, 5):
        images = torch.randn(number, 3, 32, 32)
        torch.testing.assert_close(
            run(path, images), expected_logits(model, images), rtol=1e-4, atol=1e-4
        )


def test_another_format_is_refused(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="onnx"):
        export_model(model, tmp_path / "model.onx", "onx")


def test_a_folder_is_refused(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(SenetError, match="is a folder"):
        export_model(model, tmp_path, "torchscript")


def test_missing_packages_are_named_with_the_remedy(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(
        MissingDependencyError, match=r"onnxscript.*pip install 'senet-lib\[export\]'"
    ):
        export_model(model, tmp_path / "model.onnx", "onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_network_with_other_logits_does_not_replace_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("the earlier file")
    with pytest.raises(ExportMismatchError, match="differ from the model's by 1"):
        export_model(BakedIn(), path, "torchscript")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
    assert path.read_text() == "the earlier file"
