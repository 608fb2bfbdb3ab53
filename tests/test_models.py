"""Every registered model: exact costs from the public record, and behaviour all of them share."""

import re

import pytest
import torch
from torch import nn

from senet_lib.errors import SenetError, UnknownNameError
from senet_lib.models import (
    attention,
    check_name,
    create_model,
    describe,
    input_size,
    list_attentions,
    list_models,
    register_attention,
    register_model,
    registry,
)
from senet_lib.profiling import profile_model

PAIRED = {
    "resnet18", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "preact_resnet110",
    "preact_resnet164", "wrn16_8", "resnext29_8x64d", "res2net29", "resnet50", "resnext50_32x4d",
    "cnn7",
}  # fmt: skip
ALONE = {"densenet_bc100_12", "se_res2net29_last", "se_res2net29_first2"}
ALL_NAMES = sorted({*PAIRED, *(f"se_{name}" for name in PAIRED), *ALONE})

# Published counts, or arithmetic from the published layer tables. Those of plain networks and many
# more stand in analysis/literature.csv, with which test_costs.py compares ours.
PARAMS = {
    "se_resnet18": 11_261_002,
    "se_resnet18+gate_bias=true": 11_263_042,
    "se_resnet20": 272_474 + 2_016,
    "se_resnet56": 855_770 + 6_048,
    "se_resnet110": 1_730_714 + 12_096,
    "se_resnet20+reduction=2+shortcut=A": 285_850,
    "se_resnet20+reduction=4+shortcut=A": 277_786,
    "se_resnet20+reduction=8+shortcut=A": 273_754,
    "se_resnet20+reduction=16+shortcut=A": 271_738,
    "se_resnet20+reduction=32+shortcut=A": 270_778,
    "res2net29": 636_421,
    "se_res2net29": 657_325,
    # SE on C = 52, 104, 208 channels, wherever it stands: 2 C max(C // 16, 1) a block, nine blocks.
    "se_res2net29+gate_at=output": 657_325,
    "se_res2net29_last": 636_421 + 3 * 2 * (13 * 1 + 26 * 1 + 52 * 3),
    "se_res2net29_first2": 636_421 + 3 * 2 * (26 * 1 + 52 * 3 + 104 * 6),
    # Four gates a block, of 13, 26 and 52 channels.
    "se_res2net29+gate_at=streams": 636_421 + 3 * 4 * 2 * (13 * 1 + 26 * 1 + 52 * 3),
    # C // 16 hidden units from all C channels; gates for a quarter or for half of them.
    "se_res2net29+gate_at=last_from_z": 636_421
    + 3 * ((52 + 13) * 3 + (104 + 26) * 6 + (208 + 52) * 13),
    "se_res2net29+gate_at=first2_from_z": 652_099,
    # Without the last 1x1 convolution, C^2 weights, and its norm, 2 C.
    "res2net29+gate_at=literal": 636_421 - 3 * (52 * 54 + 104 * 106 + 208 * 210),
    "se_res2net29+gate_at=literal": 657_325 - 3 * (52 * 54 + 104 * 106 + 208 * 210),
    # 24 filters of 2x2x3, six 3x3 convolutions and their norms, a linear layer.
    "cnn7": 24 * 12
    + 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    + 4 * (64 + 256 + 256)
    + 257 * 10,
    "resnet20+attention=scale": 272_474 + 3 * (16 + 32 + 64),
    "resnet20+attention=half": 272_474,
    # Stage 3 has three blocks of 64 channels with 4 hidden units.
    "se_resnet20+stages=3": 272_474 + 3 * 2 * 64 * 4,
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def on_meta(name: str, **overrides: object) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **overrides)


def small_images(name: str) -> torch.Tensor:
    """Random images as small as the model's strides allow, to keep the tests quick."""
    side = 16 if input_size(name) == (3, 32, 32) else 64
    return torch.randn(2, 3, side, side)


def equal(first: nn.Module, other: nn.Module) -> bool:
    states = zip(first.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in states)


def test_the_registry_holds_the_models_of_the_design() -> None:
    assert sorted(list_models()) == ALL_NAMES
    assert all(len(describe(name).splitlines()) == 1 for name in ALL_NAMES)
    assert list_models("nothing*") == []
    assert round(count(on_meta("resnext29_8x64d")) / 1e6, 1) == 34.4  # published


@pytest.mark.parametrize(("name", "expected"), PARAMS.items())
def test_parameter_count(name: str, expected: int) -> None:
    assert count(on_meta(name)) == expected


def test_macs_with_gates() -> None:
    profile = profile_model(create_model("se_res2net29"))
    assert (profile.macs, profile.bias_adds) == (99_599_816, 10)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_structure_logits_and_gradients(name: str) -> None:
    model = create_model(name, num_classes=7)
    assert [model.stem, *model.stages, model.head] == [*model.children()]
    gated = any(key.endswith(".attention.gate") for key, _ in model.named_modules())
    assert gated == name.startswith("se_")
    logits = model(small_images(name))
    assert logits.shape == (2, 7)
    nn.functional.cross_entropy(logits, torch.tensor([1, 5])).backward()
    fixed = [key for key, parameter in model.named_parameters() if not parameter.requires_grad]
    norms = [f"stage{i}.0.norm{k}.weight" for i in (1, 2, 3) for k in (1, 2)]
    assert fixed == (["stem.conv.weight", *norms] if "cnn7" in name else [])
    for key, parameter in model.named_parameters():
        if key not in fixed:
            assert torch.isfinite(parameter.grad).all(), key
            # A gate's few hidden units may all be off for two images; nothing else may be.
            assert ".attention." in key or parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", ALL_NAMES)
def test_logits_do_not_depend_on_batch_mates(name: str) -> None:
    model = create_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the running statistics become those of one batch
    images = small_images(name)
    with torch.no_grad():
        model(images)
        model.eval().double()  # float32 kernels round differently for another batch size
        together = model(images.double())
        alone = torch.cat([model(image[None]) for image in images.double()])
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-8)
    assert together.std() > 1e-3  # the logits are not all alike, so the comparison says something


@pytest.mark.parametrize("name", ["se_resnet20", "se_res2net29", "densenet_bc100_12", "wrn16_8"])
def test_same_seed_same_weights(name: str) -> None:
    first, again, other = (create_model(name) for seed in (3, 3, 4) if torch.manual_seed(seed))
    assert equal(first, again)
    state = other.state_dict().items()
    drawn = {k: v for k, v in state if k.endswith("weight") and "norm" not in k}
    assert not any(torch.equal(first.state_dict()[k], v) for k, v in drawn.items())


@pytest.mark.parametrize("attention", list_attentions())
@pytest.mark.parametrize("name", ["resnet20", "preact_resnet110", "densenet_bc100_12", "res2net29"])
def test_every_attention_goes_into_every_family(name: str, attention: str) -> None:
    model = create_model(name, attention=attention, num_classes=3)
    logits = model(torch.randn(2, 3, 8, 8))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["se_res2net29", "se_resnet20", "densenet_bc100_12"])
def test_channels_last_reaches_the_last_stage(name: str) -> None:
    model, seen = create_model(name).to(memory_format=torch.channels_last), []
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, _i, out: seen.append(out))
    images = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).isfinite().all()
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("se_res2net29_first2", 52), ("resnet20+attention=cbam+shortcut=A", 16),
        ("resnet20+attention=scse+gate=hard_sigmoid+squeeze=std", 16),
    ],
)  # fmt: skip
def test_compiles_into_one_graph(name: str, channels: int) -> None:
    block = create_model(name).stages[1][0].eval()
    maps = torch.randn(2, channels, 8, 8)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(maps), block(maps))


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("se_res2net92", {}, "se_res2net29"), ("resnet65", {}, "resnet56"),
        ("resnet20", {"redaction": 8}, "shortcut, attention, reduction"),
        ("resnet20", {"num_blocks": (1, 1, 1)}, "num_blocks"),
        ("se_res2net29_last", {"gate_at": "fused"}, "gate_at"),
        ("densenet_bc100_12", {"attention": "se", "position": "pre"}, "shortcut"),
        ("resnet20", {"shortcut": "C"}, "shortcut"),
        ("resnet20", {"num_classes": 0}, "num_classes"),
        ("cnn7", {"num_classes": 2**62}, "100,000"),
        ("res2net29", {"base_width": 10**30}, "at most 100,000"),
        ("resnet20", {"in_channels": "3"}, "in_channels"),
        ("resnet20", {"attention": "se", "stages": [4]}, "1 to 3"),
        ("resnet20+reduction=8", {}, "reduction"),
        ("se_res2net29", {"position": "post"}, "gate_at='output'"),
        ("res2net29", {"attention": "eca", "gate_at": "streams"}, "SE"),
        ("res2net29", {"scale": 1}, "scale"),
        ("se_resnet20+reduction=8", {"reduction": 4}, "twice"),
        ("se_resnet20+reduction", {}, "setting=value"), ("se_resnet20+=8", {}, "setting=value"),
        ("se_resnet20+depth=8", {}, "depth"),
        ("se_resnet20+reduction=many", {}, "whole number"),
        ("se_resnet20+squeeze=max+reduction=8", {}, "se_resnet20+reduction=8+squeeze"),
        ("se_resnet20+reduction=8+reduction=4", {}, "once"),
        ("se_resnet20+reduction=08", {}, "'08'"), ("se_resnet20+stages=3,1", {}, "stages=1,3"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(name: str, arguments: dict, text: str) -> None:
    with pytest.raises(SenetError, match=re.escape(text)):
        create_model(name, **arguments)
    if not arguments:
        with pytest.raises(SenetError, match=re.escape(text)):
            check_name(name)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("se_resnet20+reduction=4+squeeze=max", {"reduction": 4, "squeeze": "max"}),
        ("se_resnet20+gate_bias=true", {"gate_bias": True}),
        ("se_resnet20+stages=1,3", {"stages": (1, 3)}),
        ("se_res2net29+gate_at=output", {"gate_at": "output"}),
    ],
)
def test_settings_in_a_name_are_overrides(name: str, overrides: dict[str, object]) -> None:
    base = name.partition("+")[0]
    named, overridden = (
        create_model(model, **settings)
        for model, settings in ((name, {}), (base, overrides))
        if torch.manual_seed(0)
    )
    assert str(named) == str(overridden)
    assert equal(named, overridden)
    assert input_size(name) == input_size(base)
    assert all(setting in describe(name) for setting in name.split("+")[1:])


def test_a_user_can_register_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))

    @register_model("tiny", summary="one linear layer", input_size=(3, 4, 4))
    def tiny(num_classes: int, in_channels: int, *, bias: bool = True) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 16, num_classes, bias=bias))

    assert count(create_model("tiny", num_classes=2, bias=False)) == 96
    with pytest.raises(SenetError, match="accepts bias"):
        create_model("tiny", depth=2)
    assert input_size("tiny") == (3, 4, 4)
    register_model("grey", summary="of one channel", input_size=(1, 4, 4))(tiny)
    assert [count(create_model("grey", 2, *more)) for more in ((), (3,))] == [34, 98]

    @register_model("narrow", summary="with an argument that is called as one of attention's is")
    def narrow(num_classes: int, in_channels: int, *, reduction: int = 4) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * reduction, num_classes))

    assert count(create_model("narrow", num_classes=2, reduction=2)) == 14
    for name, says in (("tiny", "registered already"), ("a+b", "small letters"),
                       ("Big", "small letters"), ("odd", "num_classes")):  # fmt: skip
        with pytest.raises(SenetError, match=says):
            register_model(name, summary="no arguments")(lambda: nn.Identity())


def test_what_fails_to_be_built_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))

    @register_attention("published")
    class Published(nn.Module):
        def __init__(self, channels: int, reduction: int = 16) -> None:
            super().__init__()
            self.reduce = nn.Linear(channels, channels // reduction)

    @register_model("broken", summary="without its parts")
    def broken(num_classes: int, in_channels: int) -> nn.Module:
        return {}["parts"]

    says = r"'published', called as \(channels, spec\) for 16 channels, cannot be built: TypeError"
    for name, reason in (("resnet20+attention=published", says), ("broken", "'broken'.*KeyError")):
        with pytest.raises(SenetError, match=reason) as caught:
            create_model(name)
        assert caught.value.__cause__

    class Forward(nn.Identity):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.gates

    with pytest.raises(SenetError, match=r"\(3, 32, 32\): AttributeError.*gates"):
        profile_model(Forward(), (3, 32, 32))
    del attention._ATTENTIONS["published"]
    with pytest.raises(UnknownNameError, match="--plugin FILE"):
        create_model("resnet20+attention=published")
    with pytest.raises(SenetError, match="registered already"):
        register_attention("none")

    def out_of_memory(num_classes: int, in_channels: int) -> nn.Module:
        raise MemoryError

    register_model("large", summary="too large")(out_of_memory)
    with pytest.raises(MemoryError):
        create_model("large")


def test_whitened_patches_are_uncorrelated() -> None:
    stem = create_model("cnn7").stem
    images = torch.rand(200, 3, 8, 8).cumsum(2).cumsum(3)  # neighbours that are much alike
    images -= images.mean((0, 2, 3), keepdim=True)
    stem.fit_to_images(images)
    responses = stem.conv(images)[:, :12].movedim(1, -1).flatten(0, -2)  # (patches, 12)
    found = responses.T @ responses / len(responses)
    torch.testing.assert_close(found, torch.eye(12), rtol=0, atol=0.05)
    assert torch.equal(stem.conv.weight[:12], -stem.conv.weight[12:])
