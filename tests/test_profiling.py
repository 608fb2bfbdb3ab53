"""Costs against arithmetic; the profiled model stays as it was."""

import pytest
import torch
from torch import nn

from senet_lib.errors import SenetError
from senet_lib.models import create_model
from senet_lib.profiling import profile_model


def test_layers_by_arithmetic() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
        nn.ConvTranspose2d(8, 2, 2, stride=2),
        nn.Flatten(),
        nn.Linear(2 * 8 * 8, 5),
    )
    profile = profile_model(model, (3, 8, 8))
    # output elements times the multiplications of each: 4x4 maps, then 8x8 by transposition
    conv, grouped = 8 * 16 * 27, 8 * 16 * 18
    transposed, linear = 8 * 16 * 2 * 4, 5 * 128
    assert [layer.macs for layer in profile.layers] == [conv, grouped, transposed, linear]
    assert profile.macs == conv + grouped + transposed + linear
    assert [layer.bias_adds for layer in profile.layers] == [8 * 16, 0, 2 * 64, 5]
    assert profile.num_params == 224 + 16 + 144 + 66 + 645
    assert [layer.name for layer in profile.layers] == ["0", "3", "4", "6"]
    assert profile.uncounted == {"native_batch_norm": 1, "relu": 1}


def test_uncounted_operators_are_listed_and_the_convolution_of_eca_is_counted() -> None:
    names = ("resnet20", "se_resnet20", "resnet20+attention=eca")
    profiles = [profile_model(create_model(name)) for name in names]
    # nine blocks, a kernel of 3, one output a channel
    assert profiles[2].macs - profiles[0].macs == 3 * 3 * (16 + 32 + 64)
    plain, gated, _ = (profile.uncounted for profile in profiles)
    assert "sigmoid" not in plain
    assert (gated["sigmoid"], gated["mul"]) == (9, 9)
    assert gated["mean"] == plain["mean"] + 9
    assert plain["add"] == 9
    assert not {"convolution", "addmm", "mm"} & {*plain, *gated}


def test_a_module_called_twice_costs_twice_and_weighs_once() -> None:
    layer = nn.Conv2d(3, 3, 1, bias=False)
    profile = profile_model(nn.Sequential(layer, layer), (3, 2, 2))
    assert profile.macs == 2 * 4 * 9
    assert profile.num_params == 9


def test_the_model_is_left_as_it_was(untouched) -> None:
    model = create_model("se_resnet20").train()
    model.stage1.eval()
    model.stem.norm.register_forward_hook(lambda *_: None)
    random_state = torch.get_rng_state()
    with untouched(model):
        profile_model(model)
        with pytest.raises(SenetError, match="does not run"):  # a failure leaves it so too
            profile_model(model, (4, 32, 32))
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("size", [(32, 32), (3, 0, 32), (3, 32.0, 32)])
def test_a_size_that_is_none_is_refused(size) -> None:
    with pytest.raises(SenetError, match="channels, height, width"):
        profile_model(nn.ReLU(), size)
