"""The counters against arithmetic, against each other and against published totals."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.analysis.counters import count_flop_counter as count_torch
from senet_lib.analysis.counters import count_fvcore, count_network, count_thop_rule
from senet_lib.errors import SenetError
from senet_lib.models import create_model, input_size, list_models
from senet_lib.profiling import profile_model


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


# Net on an image of 3 x 8 x 8: multiplications of each layer
CONV = 8 * 64 * 27
GROUPED = 4 * 16 * 4
LINEAR = 5 * 4


def test_every_counter_by_arithmetic() -> None:
    counters = (count_fvcore, count_torch, count_thop_rule)
    fvcore, torch_flops, thop = (count(Net(), (3, 8, 8)) for count in counters)
    macs = CONV + GROUPED + LINEAR
    assert (fvcore.macs(), torch_flops) == (macs, 2 * macs)
    # in eval mode a normalised value is 2 with weights and 1 without; the pooling, 1 an input
    norms, gather = 8 * 64 * 2 + 8 * 64, 4 * 16
    assert fvcore.by_operator["batch_norm"] == norms
    assert fvcore.by_operator.total() == macs + norms + gather
    assert fvcore.left_out == {"relu": 2, "avg_pool2d": 1, "sigmoid": 1, "mul": 1}
    assert thop == {
        "convolution": CONV + GROUPED,
        "linear": LINEAR,
        "normalisation": 4 * 8 * 64 + 2 * 8 * 64,
        "pooling": 8 * 16 + (16 + 1) * 4,  # one an output; window 4 x 4, and 1, an output
    }


def test_a_layer_called_twice_counts_twice_by_thops_rule() -> None:
    layer = nn.Conv2d(3, 3, 1)
    assert count_thop_rule(nn.Sequential(layer, layer), (3, 2, 2)).total() == 2 * 4 * 9


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(3, 3, 2), nn.PReLU(), nn.Softmax(1)])
def test_a_layer_whose_rule_is_not_stated_is_refused(layer: nn.Module) -> None:
    with pytest.raises(SenetError, match="rule"):
        count_thop_rule(nn.Sequential(nn.Conv2d(3, 3, 1), layer))


ATTENTIONS = [f"resnet20+attention={name}" for name in ("eca", "cbam", "scse", "ge")]


@pytest.mark.parametrize("name", [*list_models(), *ATTENTIONS])
def test_the_counters_agree_with_the_closed_form_and_thops_rule_with_thop(name: str) -> None:
    import thop

    model, size = create_model(name), input_size(name)
    profile = profile_model(model, size)
    assert count_fvcore(model, size).macs() == profile.macs
    if size == (3, 32, 32):
        assert count_torch(model) == 2 * profile.macs
        by_rule = count_thop_rule(model).total()
        macs, params = thop.profile(model, inputs=(torch.zeros(1, *size),), verbose=False)
        assert params == profile.num_params == sum(p.numel() for p in model.parameters())
        assert profile.macs <= macs == by_rule


def test_res2net29_goes_by_four_totals() -> None:
    network = count_network("res2net29")
    assert network.fvcore.macs() == network.profile.macs
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
    assert network.fvcore.by_operator.total() == 99_578_912 + 2 * values
    assert network.thop.total() == 99_578_912 + 4 * values + pooled
    assert network.profile.bias_adds == 10
    assert count_network("torchvision:convnext_tiny").thop is None  # it has layer normalisations
