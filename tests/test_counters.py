"""The counters against arithmetic, against each other and against published totals."""

import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.analysis.counters import (
    CountedNetwork,
    count_flop_counter,
    count_fvcore,
    count_network,
    count_thop_rule,
)
from senet_lib.errors import SenetError
from senet_lib.models import create_model, input_size, list_models
from senet_lib.profiling import profile_model

COUNTERS = (count_fvcore, count_flop_counter, count_thop_rule)


class Net(nn.Module):
    """One layer of each kind that a rule speaks of, and functions beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.plain_norm = nn.BatchNorm2d(8, affine=False)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(2)
        self.grouped = nn.Conv2d(8, 4, 1, groups=2)
        self.gather = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.plain_norm(self.norm(self.conv(x))))
        x = self.grouped(self.pool(x))
        x = x * torch.sigmoid(x)
        return self.linear(F.relu(self.gather(x).flatten(1)))


class Functional(nn.Module):
    """A convolution that is no module: the closed form cannot see it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3, 1, 1))
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.conv2d(x, self.weight).mean((2, 3)))


# Net on an image of 3 x 8 x 8: multiplications of each layer
CONV = 8 * 64 * 27
GROUPED = 4 * 16 * 4
LINEAR = 5 * 4


def test_fvcore_by_arithmetic() -> None:
    count = count_fvcore(Net(), (3, 8, 8))
    assert count.macs == CONV + GROUPED + LINEAR
    # in eval mode a normalised value is 2 with weights and 1 without; the pooling, 1 an input
    norms, gather = 8 * 64 * 2 + 8 * 64, 4 * 16
    assert count.by_operator["batch_norm"] == norms
    assert count.total == count.macs + norms + gather
    assert count.left_out == {"relu": 2, "avg_pool2d": 1, "sigmoid": 1, "mul": 1}


def test_torchs_counter_by_arithmetic() -> None:
    assert count_flop_counter(Net(), (3, 8, 8)) == 2 * (CONV + GROUPED + LINEAR)


def test_thops_rule_by_arithmetic() -> None:
    count = count_thop_rule(Net(), (3, 8, 8))
    assert count.by_kind == {
        "convolution": CONV + GROUPED,
        "linear": LINEAR,
        "normalisation": 4 * 8 * 64 + 2 * 8 * 64,
        "pooling": 8 * 16 + (16 + 1) * 4,  # one an output; window 4 x 4, and 1, an output
    }
    assert count.total == sum(count.by_kind.values())


def test_a_layer_called_twice_counts_twice_by_thops_rule() -> None:
    layer = nn.Conv2d(3, 3, 1)
    assert count_thop_rule(nn.Sequential(layer, layer), (3, 2, 2)).total == 2 * 4 * 9


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(3, 3, 2), nn.PReLU(), nn.Softmax(1)])
def test_a_layer_whose_rule_is_not_stated_is_refused(layer: nn.Module) -> None:
    with pytest.raises(SenetError, match="whose rule in thop is not stated"):
        count_thop_rule(nn.Sequential(nn.Conv2d(3, 3, 1), layer))


@pytest.mark.parametrize("name", [n for n in list_models() if input_size(n) == (3, 32, 32)])
def test_fvcore_and_the_closed_form_agree(name: str) -> None:
    model = create_model(name)
    profile, fvcore = profile_model(model), count_fvcore(model)
    assert fvcore.macs == profile.macs
    assert profile.num_params == sum(p.numel() for p in model.parameters())
    assert count_flop_counter(model) == 2 * profile.macs


@pytest.mark.parametrize("name", [n for n in list_models() if input_size(n) == (3, 32, 32)])
def test_the_sources_own_counter_sees_every_layer(name: str) -> None:
    import thop

    macs, params = thop.profile(
        create_model(name), inputs=(torch.zeros(1, 3, 32, 32),), verbose=False
    )
    profile = profile_model(create_model(name))
    assert params == profile.num_params
    assert profile.macs <= macs == count_thop_rule(create_model(name)).total


@pytest.mark.parametrize("name", [n for n in list_models() if input_size(n) == (3, 224, 224)])
def test_fvcore_and_the_closed_form_agree_on_large_images(name: str) -> None:
    model = create_model(name)
    assert count_fvcore(model, (3, 224, 224)).macs == profile_model(model, (3, 224, 224)).macs


@pytest.mark.parametrize("attention", ["eca", "cbam", "scse", "ge"])
def test_they_agree_on_every_attention(attention: str) -> None:
    model = create_model("resnet20", attention=attention)
    assert count_fvcore(model).macs == profile_model(model).macs


def test_a_difference_names_its_operator() -> None:
    model, size = Functional(), (3, 8, 8)
    network = CountedNetwork(
        name="functional",
        input_size=size,
        profile=profile_model(model, size),
        fvcore=count_fvcore(model, size),
        torch_flops=count_flop_counter(model, size),
        thop=count_thop_rule(model, size),
    )
    assert network.difference == "conv: 0 in closed form, 768 by fvcore"  # 4 * 64 * 3


def test_res2net29_goes_by_four_totals() -> None:
    network = count_network("res2net29")
    assert network.difference == ""
    assert network.profile.macs == 99_578_912  # the design's arithmetic
    assert network.torch_flops == 199_157_824
    # Normalised values: stem 16; in the stages at 32, 16 and 8 pixels, of C = 52, 104, 208
    # channels, each block has norms of C before the streams, 3/4 C in them and C after, the first
    # block of a stage C more on its shortcut. The first norm of a stage that begins with pooling
    # comes before it, at the larger size.
    stages = [(52, 32), (104, 16), (208, 8)]
    values = 16 * 32**2 + sum((3 * 11 * c // 4 + c) * n**2 for c, n in stages)
    values += sum(c * ((2 * n) ** 2 - n**2) for c, n in stages[1:])
    pooled = sum(c * n**2 for c, n in stages[1:])
    assert network.fvcore.total == 99_578_912 + 2 * values
    assert network.thop.total == 99_578_912 + 4 * values + pooled
    assert network.profile.bias_adds == 10


@pytest.mark.parametrize("count", COUNTERS)
def test_the_model_is_left_as_it_was(count) -> None:
    model = create_model("se_resnet20").train()
    model.stage1.eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    count(model)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("count", COUNTERS)
def test_a_bad_input_size_is_refused(count) -> None:
    with pytest.raises(SenetError, match="channels, height, width"):
        count(nn.Identity(), (3, 0, 32))


def test_fvcore_says_nothing(caplog, capfd) -> None:
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        count_fvcore(create_model("se_resnet20"))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
