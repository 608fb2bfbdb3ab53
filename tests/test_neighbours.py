"""Networks of timm and torchvision in our commands, and ours in timm."""

import sys
import warnings

import numpy as np
import pytest
import torch
from torchvision import models

from senet_lib.analysis.cam import LayerError, compute_maps, find_layer
from senet_lib.errors import MissingDependencyError, SenetError, UnknownNameError
from senet_lib.models import create_model, list_models, register_with_timm
from senet_lib.profiling import profile_model
from senet_lib.recipe import load_study
from senet_lib.runs.records import load_run

timm = pytest.importorskip("timm")
NAMES = ("timm:test_resnet+size=64", "torchvision:shufflenet_v2_x0_5+size=64")


def test_the_logits_are_the_librarys_own():
    images = torch.randn(2, 3, 64, 64)
    found = (
        timm.create_model("test_resnet", num_classes=7), models.shufflenet_v2_x0_5(num_classes=7),
    )  # fmt: skip
    for name, theirs in zip(NAMES, found, strict=True):
        ours = create_model(name, num_classes=7).eval()
        ours.network.load_state_dict(theirs.state_dict())
        assert torch.equal(ours(images), theirs.eval()(images))
        assert ours(images[..., :32, :32]).shape == (2, 7)
    gray = create_model("timm:test_resnet+size=32", in_channels=1)
    assert gray(torch.randn(2, 1, 32, 32)).shape == (2, 10)


def test_the_counts_are_those_at_the_enlarged_size():
    plain = profile_model(models.resnet18(num_classes=10), (3, 128, 128))
    ours = profile_model(create_model("torchvision:resnet18"), (3, 32, 32))
    assert (ours.num_params, ours.macs) == (11_181_642, plain.macs)


def test_the_last_map_is_the_one_that_is_pooled():
    for name, last, side in (
        ("timm:test_resnet", "layer4", 4), ("torchvision:shufflenet_v2_x0_5", "conv5", 4),
        ("torchvision:mobilenet_v3_small+size=64", "features", 2),
    ):  # fmt: skip
        model, shapes = create_model(name), []
        layer = model.network.get_submodule(last)
        assert find_layer(model, "last") is layer
        layer.register_forward_hook(lambda _m, _i, output, seen=shapes: seen.append(output.shape))
        assert compute_maps(model, torch.randn(2, 3, 32, 32)).maps.shape == (2, 32, 32)
        assert shapes[-1][2:] == (side, side)
    with pytest.raises(LayerError):  # a transformer of tokens has none
        find_layer(create_model("timm:test_vit"), "last")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_trained_kept_loaded_and_explained(name, tmp_path, prints):
    out = tmp_path / "few" / name / "seed0"
    words = ["train", "--model", name, "--data", "shapes", "--train-images", "64", "--epochs", "1"]
    words += ["--batch-size", "32", "--schedule", "--threads", "1", "--progress", "none"]
    prints(*words, "--out", out)
    record = load_run(out)
    assert record.model == name
    assert ("timm" in record.versions) >= name.startswith("timm")
    prints(*words, "--out", out)  # finished: the record is read
    assert "they agree" in prints("evaluate", "--checkpoint", out)
    prints("gradcam", "--checkpoint", out, "--out-dir", tmp_path / "maps", "--per-class", "1")
    assert (tmp_path / "maps" / "index.html").is_file()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("timm:resnet19", UnknownNameError),
        ("timm:resnet18.a1_in1k", UnknownNameError),  # weights are not fetched
        ("torchvision:fasterrcnn_resnet50_fpn", UnknownNameError),
        ("keras:resnet50", UnknownNameError),
        ("timm:test_resnet+reduction=4", SenetError),
        ("timm:test_resnet+size=0", SenetError),
        ("torchvision:vit_b_16+size=100", SenetError),  # its patches are 16x16
    ],
)
def test_what_is_not_there_is_one_line(name, kind, says):
    with pytest.raises(kind):
        create_model(name)
    says(["profile", "--model", name], "^.{9,400}$")


def test_without_timm_there_is_a_line_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (register_with_timm, lambda: create_model("timm:resnet18")):
        with pytest.raises(MissingDependencyError, match=r"-e '.\[timm\]'"):
            call()
    assert create_model("torchvision:alexnet+size=64") is not None


def test_a_study_and_the_listing_take_their_names(prints):
    asked = {"study": "s", "protocol": "p", "data": "shapes", "seeds": [0], "models": [*NAMES]}
    assert load_study(asked).models == NAMES
    assert "torchvision:resnet18" in prints("models", "torchvision:*net18")


def test_timm_builds_ours():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = register_with_timm()
        assert register_with_timm() == names  # again changes nothing, and warns of nothing
    assert names == [f"senet_{name}" for name in list_models()]
    assert set(timm.list_models("senet_*")) == set(names)
    torch.manual_seed(0)
    theirs = timm.create_model("senet_se_resnet20", num_classes=7, reduction=4)
    torch.manual_seed(0)
    ours = create_model("se_resnet20+reduction=4", num_classes=7)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(theirs.eval()(images), ours.eval()(images))
    about = timm.data.resolve_model_data_config(theirs)
    assert about["input_size"] == (3, 32, 32)
    assert np.isfinite(about["mean"]).all()
    for more in ({"pretrained": True}, {"drop_rate": 0.1}, {"width": 3}):
        with pytest.raises(SenetError):
            timm.create_model("senet_resnet20", **more)
