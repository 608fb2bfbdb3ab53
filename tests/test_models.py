"""Every registered model: exact costs from the public record, and behaviour all of them share."""

import re

import pytest
import torch
from torch import nn

from senet_lib.errors import SenetError, UnknownNameError
from senet_lib.models import (
    check_name,
    create_model,
    describe,
    input_size,
    list_attentions,
    list_models,
    model_options,
    register_model,
    registry,
)
from senet_lib.profiling import profile_model

PAIRED = [
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "preact_resnet110",
    "preact_resnet164",
    "wrn16_8",
    "resnext29_8x64d",
    "res2net29",
    "resnet50",
    "resnext50_32x4d",
]
ALL_NAMES = {
    *PAIRED,
    *(f"se_{name}" for name in PAIRED),
    "densenet_bc100_12",
    "se_res2net29_last",
    "se_res2net29_first2",
}

# Published counts, or arithmetic from the published layer tables.
PARAMS = [
    ("resnet18", {}, 11_173_962),
    ("se_resnet18", {}, 11_261_002),
    ("se_resnet18", {"gate_bias": True}, 11_263_042),
    ("resnet20", {"shortcut": "A"}, 269_722),
    ("resnet20", {"shortcut": "B"}, 272_474),
    ("resnet32", {"shortcut": "A"}, 464_154),
    ("resnet32", {}, 466_906),
    ("resnet44", {"shortcut": "A"}, 658_586),
    ("resnet44", {}, 661_338),
    ("resnet56", {"shortcut": "A"}, 853_018),
    ("resnet56", {}, 855_770),
    ("resnet110", {"shortcut": "A"}, 1_727_962),
    ("resnet110", {}, 1_730_714),
    ("se_resnet20", {}, 272_474 + 2_016),
    ("se_resnet20", {"gate_bias": True}, 274_847),
    ("se_resnet56", {}, 855_770 + 6_048),
    ("se_resnet56", {"gate_bias": True}, 862_889),
    ("se_resnet110", {}, 1_730_714 + 12_096),
    ("se_resnet110", {"gate_bias": True}, 1_744_952),
    *(
        ("se_resnet20", {"shortcut": "A", "reduction": r}, count)
        for r, count in ((2, 285_850), (4, 277_786), (8, 273_754), (16, 271_738), (32, 270_778))
    ),
    ("wrn16_8", {}, 10_961_370),
    ("densenet_bc100_12", {}, 769_162),
    ("res2net29", {}, 636_421),
    ("se_res2net29", {}, 657_325),
    # SE on C = 52, 104, 208 channels, wherever it stands: 2 C max(C // 16, 1) a block, nine blocks.
    ("se_res2net29", {"gate_at": "output"}, 657_325),
    ("se_res2net29_last", {}, 636_421 + 3 * 2 * (13 * 1 + 26 * 1 + 52 * 3)),
    ("se_res2net29_first2", {}, 636_421 + 3 * 2 * (26 * 1 + 52 * 3 + 104 * 6)),
    # Four gates a block, of 13, 26 and 52 channels.
    ("se_res2net29", {"gate_at": "streams"}, 636_421 + 3 * 4 * 2 * (13 * 1 + 26 * 1 + 52 * 3)),
    # C // 16 hidden units from all C channels; gates for a quarter or for half of them.
    (
        "se_res2net29",
        {"gate_at": "last_from_z"},
        636_421 + 3 * ((52 + 13) * 3 + (104 + 26) * 6 + (208 + 52) * 13),
    ),
    ("se_res2net29", {"gate_at": "first2_from_z"}, 652_099),
    # Without the last 1x1 convolution, C^2 weights, and its norm, 2 C.
    ("res2net29", {"gate_at": "literal"}, 636_421 - 3 * (52 * 54 + 104 * 106 + 208 * 210)),
    ("se_res2net29", {"gate_at": "literal"}, 657_325 - 3 * (52 * 54 + 104 * 106 + 208 * 210)),
    ("resnet20", {"attention": "scale"}, 272_474 + 3 * (16 + 32 + 64)),
    ("resnet20", {"attention": "half"}, 272_474),
]
MACS = [
    ("resnet18", {}, 555_422_720),
    ("densenet_bc100_12", {}, 287_929_692),
    ("res2net29", {}, 99_578_912),
    ("se_res2net29", {}, 99_599_816),
]
# These two published totals include the ten bias additions of the classifier.
MACS_WITH_BIAS = [("resnet56", 125_747_850), ("resnet110", 253_149_834)]
MEGA_MACS = [
    ("resnet20", "A", 40.55),
    ("resnet20", "B", 40.81),
    ("resnet32", "A", 68.86),
    ("resnet32", "B", 69.12),
    ("resnet44", "A", 97.17),
    ("resnet44", "B", 97.44),
    ("resnet56", "A", 125.49),
    ("resnet110", "A", 252.89),
]


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def small_images(name: str, number: int = 2) -> torch.Tensor:
    """Random images as small as the model's strides allow, to keep the tests quick."""
    side = 16 if input_size(name) == (3, 32, 32) else 64
    return torch.randn(number, 3, side, side)


def warmed_up(name: str, **overrides: object) -> nn.Module:
    """A model in eval mode whose running statistics are those of one random batch."""
    model = create_model(name, **overrides)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(small_images(name, 4))
    return model.eval()


def test_the_registry_holds_the_models_of_the_design() -> None:
    assert set(list_models()) == ALL_NAMES


@pytest.mark.parametrize(("name", "overrides", "expected"), PARAMS)
def test_parameter_count(name: str, overrides: dict, expected: int) -> None:
    assert count(create_model(name, **overrides)) == expected


def test_resnext29_has_34_million_parameters() -> None:
    with torch.device("meta"):
        model = create_model("resnext29_8x64d")
    assert round(count(model) / 1e6, 1) == 34.4


@pytest.mark.parametrize(("name", "overrides", "expected"), MACS)
def test_macs(name: str, overrides: dict, expected: int) -> None:
    assert profile_model(create_model(name, **overrides)).macs == expected


@pytest.mark.parametrize(("name", "expected"), MACS_WITH_BIAS)
def test_macs_of_totals_that_count_the_bias(name: str, expected: int) -> None:
    profile = profile_model(create_model(name))
    assert profile.bias_adds == 10
    assert profile.macs + profile.bias_adds == expected


@pytest.mark.parametrize(("name", "shortcut", "expected"), MEGA_MACS)
def test_macs_in_millions(name: str, shortcut: str, expected: float) -> None:
    profile = profile_model(create_model(name, shortcut=shortcut))
    assert round(profile.macs / 1e6, 2) == expected


@pytest.mark.parametrize("name", sorted(ALL_NAMES))
def test_logits_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=7)
    logits = model(small_images(name))
    assert logits.shape == (2, 7)
    nn.functional.cross_entropy(logits, torch.tensor([1, 5])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        # A gate's few hidden units may all be off for two images; nothing else may be.
        assert ".attention." in key or parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", sorted(ALL_NAMES))
def test_logits_do_not_depend_on_batch_mates(name: str) -> None:
    torch.manual_seed(0)
    model = warmed_up(name).double()  # float32 kernels round differently for another batch size
    images = small_images(name, 3).double()
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-8)
    assert together.std() > 1e-3  # the logits are not all alike, so the comparison says something


@pytest.mark.parametrize("name", sorted(ALL_NAMES - {"resnext29_8x64d", "se_resnext29_8x64d"}))
def test_same_seed_same_weights(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create_model(name).state_dict())
    first, again = states
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_another_seed_gives_other_weights() -> None:
    states = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        states.append(create_model("se_resnet20").state_dict())
    first, other = states
    drawn = [key for key in first if key.endswith("weight") and "norm" not in key]
    assert drawn
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


@pytest.mark.parametrize("name", sorted(ALL_NAMES))
def test_common_structure(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    stages = [key for key, _ in model.named_children() if key.startswith("stage")]
    assert stages == [f"stage{i}" for i in range(1, len(stages) + 1)]
    assert [getattr(model, key) for key in stages] == model.stages
    assert isinstance(model.stem, nn.Module)
    assert isinstance(model.head, nn.Module)
    gated = any(key.endswith(".attention.gate") for key, _ in model.named_modules())
    assert gated == name.startswith("se_")
    assert input_size(name)[0] == 3
    assert describe(name)
    assert "\n" not in describe(name)


@pytest.mark.parametrize("attention", list_attentions())
@pytest.mark.parametrize("name", ["resnet20", "preact_resnet110", "densenet_bc100_12", "res2net29"])
def test_every_attention_goes_into_every_family(name: str, attention: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, attention=attention, num_classes=3)
    logits = model(torch.randn(2, 3, 8, 8))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("position", ["standard", "pre", "post", "identity"])
@pytest.mark.parametrize("name", ["se_resnet20", "se_preact_resnet110"])
def test_every_position(name: str, position: str) -> None:
    model = create_model(name, position=position)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_attention_in_chosen_stages_only() -> None:
    model = create_model("se_resnet20", stages=[3])
    gated = {key.split(".")[0] for key, _ in model.named_modules() if key.endswith(".gate")}
    assert gated == {"stage3"}
    # Stage 3 has three blocks of 64 channels with 4 hidden units.
    assert count(model) - count(create_model("resnet20")) == 3 * 2 * 64 * 4


def test_without_attention_se_is_the_plain_network() -> None:
    torch.manual_seed(0)
    plain = create_model("res2net29")
    torch.manual_seed(0)
    bare = create_model("se_res2net29", attention="none")
    assert all(map(torch.equal, plain.state_dict().values(), bare.state_dict().values()))


def test_a_new_attention_starts_from_its_own_defaults() -> None:
    # se_resnet50 has biases in its gates, which eca would refuse only if they were asked for.
    with torch.device("meta"):
        model = create_model("se_resnet50", attention="ge")
    assert count(model) == count(create_model("resnet50"))


@pytest.mark.parametrize("name", ["se_res2net29", "se_resnet20", "densenet_bc100_12"])
def test_channels_last_reaches_the_last_stage(name: str) -> None:
    model = create_model(name).to(memory_format=torch.channels_last)
    seen = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, _i, out: seen.append(out))
    images = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.isfinite().all()
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("se_res2net29", {}),
        ("se_res2net29_first2", {}),
        ("resnet20", {"attention": "cbam", "shortcut": "A"}),
        ("resnet20", {"attention": "eca", "squeeze": "std"}),
        ("resnet20", {"attention": "scse", "squeeze": "max", "gate": "hard_sigmoid"}),
    ],
)
def test_compiles_into_one_graph(name: str, overrides: dict) -> None:
    model = create_model(name, **overrides).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images))


def test_list_models_matches_a_pattern() -> None:
    assert list_models("*res2net29*") == [
        "res2net29",
        "se_res2net29",
        "se_res2net29_last",
        "se_res2net29_first2",
    ]
    assert list_models("nothing*") == []


@pytest.mark.parametrize("name", ["se_res2net", "resnet65", "SE_RESNET20", ""])
def test_unknown_model_offers_names(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean|known:"):
        create_model(name)


def test_near_model_names_are_offered() -> None:
    with pytest.raises(UnknownNameError, match="se_res2net29"):
        create_model("se_res2net92")


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("resnet20", {"redaction": 8}, "accepts shortcut, attention, reduction"),
        ("resnet20", {"num_blocks": (1, 1, 1)}, "no setting 'num_blocks'"),
        ("se_res2net29_last", {"gate_at": "fused"}, "no setting 'gate_at'"),
        ("densenet_bc100_12", {"shortcut": "A"}, "no setting 'shortcut'"),
        ("densenet_bc100_12", {"attention": "se", "position": "pre"}, "no shortcut"),
        ("resnet20", {"shortcut": "C"}, "unknown shortcut"),
        ("resnet20", {"num_classes": 0}, "num_classes must be"),
        ("resnet20", {"in_channels": "3"}, "in_channels must be"),
        ("resnet20", {"attention": "se", "stages": [4]}, "1 to 3"),
        ("resnet20", {"reduction": 8}, "does not use reduction"),
        ("se_res2net29", {"position": "post"}, "gate_at='output'"),
        ("se_res2net29", {"gate_at": "first"}, "unknown gate_at"),
        ("res2net29", {"attention": "eca", "gate_at": "streams"}, "is SE's"),
        ("res2net29", {"scale": 1}, "scale must be"),
        ("res2net29", {"base_width": 0}, "base_width must be"),
    ],
)
def test_bad_settings_are_refused(name: str, arguments: dict, text: str) -> None:
    with pytest.raises(SenetError, match=text):
        create_model(name, **arguments)


def test_a_user_can_register_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))

    @register_model("tiny", summary="one linear layer", input_size=(3, 4, 4))
    def tiny(num_classes: int, in_channels: int, *, bias: bool = True) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 16, num_classes, bias=bias))

    assert count(create_model("tiny", num_classes=2, bias=False)) == 96
    assert model_options("tiny") == ("bias",)
    assert input_size("tiny") == (3, 4, 4)
    with pytest.raises(SenetError, match="registered already"):
        register_model("tiny", summary="again")
    with pytest.raises(SenetError, match="num_classes and in_channels first"):
        register_model("odd", summary="no arguments")(lambda: nn.Identity())


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("se_resnet20+reduction=8", {"reduction": 8}),
        ("se_resnet20+reduction=4+squeeze=max", {"reduction": 4, "squeeze": "max"}),
        ("se_resnet20+gate_bias=true", {"gate_bias": True}),
        ("se_resnet20+stages=1,3", {"stages": (1, 3)}),
        ("se_resnet20+stages=2", {"stages": (2,)}),
        ("resnet20+attention=eca", {"attention": "eca"}),
        ("se_res2net29+gate_at=output", {"gate_at": "output"}),
    ],
)
def test_settings_in_a_name_are_overrides(name: str, overrides: dict[str, object]) -> None:
    base = name.partition("+")[0]
    torch.manual_seed(0)
    named = create_model(name)
    torch.manual_seed(0)
    overridden = create_model(base, **overrides)
    assert str(named) == str(overridden)
    for ours, theirs in zip(
        named.state_dict().values(), overridden.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert input_size(name) == input_size(base)
    for setting in name.split("+")[1:]:
        assert setting in describe(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("se_resnt20+reduction=8", "did you mean se_resnet20"),
        ("se_resnet20+reduction", "must be a setting=value"),
        ("se_resnet20+=8", "must be a setting=value"),
        ("se_resnet20+depth=8", "has no setting 'depth'; it accepts"),
        ("se_resnet20+reduction=many", "must be a whole number"),
        ("se_resnet20+stages=4", "must lie in 1 to 3"),
        ("se_resnet20+squeeze=max+reduction=8", "in order, each once: se_resnet20+reduction=8+sq"),
        ("se_resnet20+reduction=8+reduction=4", "in order, each once"),
        ("resnet20+reduction=8", "does not use reduction"),
    ],
)
def test_a_wrong_setting_in_a_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(SenetError, match=re.escape(message)):
        check_name(name)


def test_a_setting_cannot_be_given_twice_and_no_registered_name_holds_a_plus() -> None:
    with pytest.raises(SenetError, match="given twice"):
        create_model("se_resnet20+reduction=8", reduction=4)
    with pytest.raises(SenetError, match="cannot be registered"):
        register_model("a+b", summary="x")
