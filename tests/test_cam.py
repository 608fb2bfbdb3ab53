"""Class activation maps against hand-made formulas and pytorch-grad-cam; the gallery's files."""

import copy
import io
import re
import shutil
from base64 import b64decode

import numpy as np
import pytest
import torch
from fake_runs import save_shapes
from PIL import Image
from torch import Tensor, nn

from senet_lib.analysis import cam
from senet_lib.analysis.cam import METHODS, LayerError, compute_maps, find_layer, scale_for_display
from senet_lib.cli import main
from senet_lib.data.datasets import load_data
from senet_lib.errors import DataError, UnknownNameError
from senet_lib.evaluation import predict
from senet_lib.models import create_model
from senet_lib.report.gallery import PICTURE, Case, _file_name, choose_cases, panels
from senet_lib.runs.weights import NetSpec, save_weights


class Linear(nn.Module):
    """conv - [what follows] - mean - linear."""

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(3, 6, 3, padding=1), after
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.after(self.conv(x)).mean((2, 3)))


def trained_a_bit(name: str, num_classes: int = 4) -> nn.Module:
    """A network in eval mode whose running statistics are not those it was made with."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=num_classes)
    with torch.no_grad():
        for _ in range(10):
            model(torch.randn(8, 3, 16, 16))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained_a_bit("se_resnet20")


@pytest.fixture
def images() -> Tensor:
    return torch.randn(7, 3, 16, 16)


def test_gradcam_of_conv_mean_linear_is_the_analytic_map(images):
    model = Linear(nn.Identity())
    targets = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    found = compute_maps(model, images, targets, layer="conv")
    with torch.no_grad():
        activation = model.conv(images)
        # d logit_c / d A_k = w_ck / (H W) at every pixel
        weighted = torch.einsum("nk,nkhw->nhw", model.linear.weight[targets], activation)
        expected = (weighted / (16 * 16)).clamp(min=0)
        logits = model(images)
    assert found.maps.dtype == np.float32
    assert expected.max() > 1e-3
    np.testing.assert_allclose(found.maps, expected, atol=1e-6)
    np.testing.assert_allclose(found.logits, logits, atol=1e-6)
    np.testing.assert_array_equal(found.targets, targets)


@pytest.mark.parametrize("method", METHODS)
def test_the_prediction_is_explained_in_any_batch_and_whatever_relu_follows(
    images, method, monkeypatch
):
    plain, in_place = Linear(nn.ReLU()), Linear(nn.ReLU(inplace=True))
    in_place.load_state_dict(plain.state_dict())
    whole = compute_maps(plain, images, plain(images).argmax(1), layer="conv", method=method)
    assert whole.maps.any()
    for model, size in ((plain, 3), (in_place, 7)):
        monkeypatch.setattr(cam, "BATCH", size)
        found = compute_maps(model, images, layer="conv", method=method)
        np.testing.assert_array_equal(found.targets, whole.targets)
        np.testing.assert_allclose(found.maps, whole.maps, atol=1e-6 * whole.maps.max())
        np.testing.assert_allclose(found.logits, whole.logits, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(model, images, method, untouched):
    busy = copy.deepcopy(model).train()
    busy.stage1[0].norm1.eval()  # frozen by its owner
    busy.stem.conv.weight.requires_grad_(False)
    busy(images).sum().backward()
    in_eval = compute_maps(copy.deepcopy(busy).eval(), images, method=method).maps
    assert in_eval.any()
    with untouched(busy):
        np.testing.assert_array_equal(compute_maps(busy, images, method=method).maps, in_eval)
        with pytest.raises(LayerError):  # a failure leaves it so too
            compute_maps(busy, images, layer="stage1.0.attention.gate.reduce", method=method)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_explained_for_several_classes_is_run_once(model, images, method):
    place, targets = np.array([0, 0, 0, 1, 2, 2, 0]), np.array([0, 2, 1, 3, 1, 1, 3])
    alone = [
        compute_maps(model, images[[i]], np.array([t]), method=method)
        for i, t in zip(place, targets, strict=True)
    ]
    seen = []
    handle = model.stage1.register_forward_hook(lambda module, inputs, out: seen.append(len(out)))
    together = compute_maps(model, images[place], targets, method=method)
    handle.remove()
    for name in ("maps", "logits", "targets"):
        expected = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_allclose(getattr(together, name), expected, atol=1e-5)
    if method != "scorecam":  # it shows the network masked images beside these
        assert seen == [4]


def test_maps_are_the_same_where_gradients_are_off_and_in_small_pieces(model, images, monkeypatch):
    expected = compute_maps(model, images).maps
    for guard in (torch.no_grad, torch.inference_mode):
        with guard():
            found = compute_maps(model, images.clone(), layer="last").maps
        np.testing.assert_array_equal(found, expected)
    whole = compute_maps(model, images, method="scorecam").maps
    monkeypatch.setattr(cam, "SCORECAM_NUMBERS", 2 * 64 * images[0].numel())
    pieces = compute_maps(model, images, method="scorecam").maps
    np.testing.assert_allclose(whole, pieces, atol=1e-6 * whole.max())


@pytest.mark.parametrize("layer", ["stage2", "last"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_pytorch_grad_cams_before_its_scaling(model, images, method, layer):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [0, 1, 2, 3, 0, 1, 2]
    explained = copy.deepcopy(model)
    module = explained.stage2 if layer == "stage2" else explained.stage3
    with getattr(pytorch_grad_cam, METHODS[method])(explained, [module]) as explainer:
        theirs = explainer(images, [ClassifierOutputTarget(t) for t in targets])
    raw = compute_maps(model, images, np.array(targets), method=method, layer=layer).maps
    # Theirs enlarges the scaled map; only its constant of 1e-7 can tell the two apart.
    clear = raw.max((1, 2)) > 1e-3
    assert clear.sum() >= 3
    np.testing.assert_allclose(scale_for_display(raw)[clear], theirs[clear], atol=1e-3)


def test_the_last_layer_is_what_is_averaged(model, images):
    assert isinstance(find_layer(model, "last"), nn.Identity)
    last, stage = (compute_maps(model, images, layer=name).maps for name in ("last", "stage3"))
    np.testing.assert_array_equal(last, stage)
    preact, names = trained_a_bit("densenet_bc100_12"), ("last", "head.norm", "stage3")
    last, norm, stage = (compute_maps(preact, images, layer=name).maps for name in names)
    np.testing.assert_array_equal(last, norm)
    assert not np.allclose(norm, stage)
    # In front of mean - linear the gradient is the same at every place, and HiResCAM Grad-CAM.
    hires = compute_maps(preact, images, method="hirescam").maps
    np.testing.assert_allclose(last, hires, atol=1e-6)


def test_display_scaling_by_hand():
    maps, zero = np.array([[[1, 2], [3, 5]], [[4, 4], [4, 4]]], np.float32), [[0, 0], [0, 0]]
    np.testing.assert_array_equal(scale_for_display(maps), [[[0, 0.25], [0.5, 1]], zero])


class Odd(nn.Module):
    """A layer that is used twice, one that is not used, and one that leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.aside = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        return self.twice(self.twice(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"method": "gradcam+"}, UnknownNameError, r"gradcam\+\+"),
        ({"layer": "stage4"}, UnknownNameError, "stage3"),
        ({"layer": nn.Sequential(nn.ReLU())}, UnknownNameError, "a name, not a Sequential.*stage3"),
        ({"method": nn.ReLU}, UnknownNameError, "a name, not a type.*gradcam"),
        ({"layer": "head.linear"}, LayerError, r"\(7, 4\), not \(N, C, H, W\)"),
        ({"images": torch.zeros(3, 16, 16)}, DataError, r"\(3, 16, 16\)"),
        ({"images": torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}, DataError, "uint8"),
        ({"images": torch.zeros(0, 3, 16, 16)}, DataError, r"\(0, 3, 16, 16\)"),
        ({"targets": torch.zeros(3, dtype=torch.long)}, DataError, "7 whole numbers"),
        ({"targets": torch.zeros(7)}, DataError, "float32"),
        ({"targets": torch.full((7,), 4)}, DataError, "0 to 3"),
        ({"targets": torch.full((7,), -1)}, DataError, "0 to 3"),
        ({"model": Odd(), "layer": "twice"}, LayerError, "used 2 times"),
        ({"model": Odd(), "layer": "never"}, LayerError, "used 0 times"),
        ({"model": Odd(), "layer": "aside"}, LayerError, "aside"),
        ({"model": Odd(), "layer": "last"}, LayerError, "stages"),
    ],
)
def test_mistakes_are_named(model, images, changes, error, says):
    with pytest.raises(error, match=says):
        compute_maps(**{"model": model, "images": images, **changes})


def test_cases_by_hand():
    labels = np.array([0, 0, 0, 0, 0, 1, 1])
    logits = np.array([[1, 0], [4, 0], [2, 0], [3, 0], [0, 2], [0, 5], [0, 6]], np.float32)
    cases = choose_cases(logits, labels, 3)
    assert [(c.index, c.label, c.predicted) for c in cases] == [
        *[(1, 0, 0), (2, 0, 0), (0, 0, 0)],  # of 1, 3, 2, 0 by falling certainty
        (4, 0, 1),
        *[(6, 1, 1), (5, 1, 1)],
    ]
    assert [c.right for c in cases] == [True, True, True, False, True, True]
    assert cases[0].probability == pytest.approx(1 / (1 + np.exp(-4)))
    assert [c.index for c in choose_cases(logits, labels, 1)] == [2, 4, 5]


def test_panels_by_hand():
    image = np.zeros((32, 32, 3), np.uint8)
    image[0, 0] = (255, 0, 0)
    scaled = np.zeros((32, 32), np.float32)
    strip = panels(image, scaled)
    assert strip.shape == (128, 3 * 128 + 2 * 4, 3)
    assert (strip[:4, :4] == (255, 0, 0)).all()
    assert not strip[:, 4:128].any()
    assert (strip[:, 128:132] == 255).all()
    assert (strip[:, 132:260] == strip[0, 132]).all()  # the colour of zero
    assert (strip[:4, 264:268] == 76).all()  # 0.299 * 255: red as grey, under no map
    scaled[0, 0] = 1
    assert strip[0, 132].sum() < 10 < 500 < panels(image, scaled)[0, 132].sum()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("cam") / "weights.safetensors"
    data = save_shapes(path.with_name("few.npz"), 24, 60)
    few = load_data(data)
    spec = NetSpec(model="se_resnet20", overrides={}, classes=few.classes, mean=few.mean,
                   std=few.std, data=data)  # fmt: skip
    save_weights(path, trained_a_bit("se_resnet20", few.num_classes), spec)
    return path


def test_a_network_that_keeps_a_tensor_of_its_first_pass_has_maps_afterwards(images):
    class Keeping(nn.Sequential):
        kept = None

        def forward(self, x):
            if self.kept is None:
                self.kept = torch.ones(1)
            return super().forward(x * self.kept)

    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    network = Keeping(*layers)
    predict(network, np.zeros((2, 32, 32, 3), np.uint8), (0.5,) * 3, (0.2,) * 3)
    assert len(compute_maps(network, images, layer="0").maps) == len(images)


def test_a_long_class_has_a_file_name_of_its_own():
    cases = [Case(0, label, label, 0.9) for label in (0, 1)]
    names = [_file_name(case, ["a" * 255, "a" * 254 + "b"], cases) for case in cases]
    assert len(set(names)) == 2
    assert max(map(len, names)) < 100
    assert all(PICTURE.fullmatch(name) for name in names)


def test_the_gallery_shows_right_and_wrong_cases_of_each_class(checkpoint, tmp_path):
    few, folder = load_data(str(checkpoint.with_name("few.npz"))), tmp_path / "new" / "folder"
    assert main(["gradcam", "--checkpoint", str(checkpoint), "--out-dir", str(folder),
                 "--per-class", "2"]) == 0  # fmt: skip
    text = (folder / "index.html").read_text(encoding="utf-8")
    classifier = trained_a_bit("se_resnet20", few.num_classes)
    predicted = predict(classifier, few.x_test, few.mean, few.std).argmax(1).numpy()
    pictures = list((folder / "maps").iterdir())
    for path in pictures:  # images, none of whose maps is blank
        pixels = np.asarray(Image.open(path))
        assert pixels.shape == (128, 392, 3)
        assert len(np.unique(pixels[:, 132:260].reshape(-1, 3), axis=0)) > 10
    expected = set()
    for label, name in enumerate(few.classes):
        for word, right in (("right", True), ("wrong", False)):
            count = ((few.y_test == label) & ((predicted == label) == right)).sum()
            slug = name.replace(" ", "-").replace("_", "-")
            expected |= {f"{label:02d}-{slug}-{word}-{i + 1}.png" for i in range(min(count, 2))}
    assert {path.name for path in pictures} == expected
    assert len(re.findall(r"<img ", text)) == len(pictures) + 1
    assert f"({100 * (predicted == few.y_test).mean():.2f} %)" in text
    # The page needs nothing but itself.
    kinds = ("data:image/png;base64,", "data:image/webp;base64,", "#class-")
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(s.startswith(kinds) for s in sources)
    inline = re.findall(r'src="data:image/webp;base64,([^"]*)"', text)
    shown = [np.asarray(Image.open(io.BytesIO(b64decode(one)))).tobytes() for one in inline]
    assert sorted(shown) == sorted(np.asarray(Image.open(path)).tobytes() for path in pictures)
    assert {s[1:] for s in sources if s[0] == "#"} <= set(re.findall(r'id="([^"]*)"', text))
    assert not re.search(r"<(script|link|iframe|object)\b|@import|url\(", text)
    assert all(len(alt) > 40 for alt in re.findall(r'alt="([^"]*)"', text))


def test_the_command_prints_the_page_and_names_mistakes(checkpoint, prints, says, tmp_path):
    out = tmp_path / "out"
    words = ["gradcam", "--checkpoint", checkpoint, "--out-dir", out]
    shown = prints(*words, "--per-class", "1", "--method", "hirescam", "--layer", "stage3")
    assert shown.splitlines() == [str(out / "index.html")]
    shutil.rmtree(out)
    foreign = tmp_path / "site" / "index.html"
    foreign.parent.mkdir()
    foreign.write_text("<p>mine</p>")
    mistakes = {
        "gradcam": ["--method", "cam"],
        "stage3": ["--layer", "stage9"],
        "per-class is 0": ["--per-class", "0"],
        "cifar10": ["--data", "cifar11"],
        "no such checkpoint": ["--checkpoint", tmp_path / "none"],
        str(checkpoint): ["--out-dir", checkpoint],
        str(foreign): ["--out-dir", foreign.parent],
    }
    for part, change in mistakes.items():
        says([*words, *change], re.escape(part))
    assert not out.exists()
    assert foreign.read_text() == "<p>mine</p>"
    assert [path.name for path in foreign.parent.iterdir()] == ["index.html"]
