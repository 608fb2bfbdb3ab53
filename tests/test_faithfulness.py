"""Faithfulness: networks small enough for paper, and pytorch-grad-cam's ROAD on the same maps."""

import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from senet_lib.analysis.faithfulness import area, blurred, removal_curve, road, road_curves
from senet_lib.analysis.interventions import channel_importance
from senet_lib.errors import DataError, SenetError
from senet_lib.evaluation import error_and_loss
from senet_lib.models.attention import AttentionSpec, build_attention

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Weighted(nn.Module):
    """Two classes: the logit of class 0 is the weighted sum of the pixels, that of class 1 is 0."""

    def __init__(self, weights: list[list[float]]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = (x.sum(1) * self.weights).sum((1, 2))
        return torch.stack([total, torch.zeros_like(total)], 1)


# Odds of class 0 are the product of its pixels' factors: 2, 3, 1/2 and 9 on an image of ones.
FACTORS = [[2.0, 3.0], [0.5, 9.0]]
HAND = Weighted([[math.log(factor) for factor in row] for row in FACTORS])
ONES = torch.ones(1, 1, 2, 2)


def odds(*values: float) -> list[float]:
    return [value / (1 + value) for value in values]


RANKED = np.array([[[2.0, 3.0], [1.0, 4.0]]])
FIRST = torch.tensor([0])
ZEROS = torch.zeros_like(ONES)


@pytest.mark.parametrize(("steps", "at"), [(4, [27, 3, 1, 0.5, 1]), (2, [27, 1, 1])])
def test_deletion_by_hand(steps, at):
    """From 27 : 1 the factors 9, 3, 2 and 1/2 are taken away in that order."""
    shares, found = removal_curve(HAND, ONES, ZEROS, RANKED, FIRST, rng=rng(), steps=steps)
    np.testing.assert_allclose(shares, np.linspace(0, 1, steps + 1))
    points = odds(*at)
    np.testing.assert_allclose(found, [points], rtol=1e-6)
    expected = (sum(points) - points[0] / 2 - points[-1] / 2) / steps
    np.testing.assert_allclose(area(shares, found), [expected], rtol=1e-6)


def test_insertion_by_hand():
    """From 1 : 1 the factors come back; the class given is the other one."""
    _, found = removal_curve(HAND, ZEROS, ONES, RANKED, torch.tensor([1]), rng=rng(), steps=4)
    np.testing.assert_allclose(found, [[1 - p for p in odds(1, 9, 27, 54, 27)]], rtol=1e-5)


def test_ties_come_in_a_random_order_that_the_generator_fixes():
    images = torch.ones(400, 1, 2, 2)
    asked = images, 0 * images, np.zeros((400, 2, 2)), FIRST.expand(400)
    first, again = (removal_curve(HAND, *asked, rng=rng(1), steps=4)[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    # After one pixel the odds are 27 over one of the four factors, each as often as the others.
    values, counts = np.unique(first[:, 1].round(6), return_counts=True)
    np.testing.assert_allclose(values, sorted(odds(27 / 2, 9, 54, 3)), atol=1e-6)
    assert counts.min() > 60


def test_blur_is_a_gaussian_mean_of_the_neighbours_and_leaves_a_constant():
    image = torch.zeros(1, 1, 32, 32)
    image[0, 0, 16, 16] = 1
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 5.0**2))
    expected = np.outer(weights, weights) / weights.sum() ** 2
    np.testing.assert_allclose(blurred(image)[0, 0, 11:22, 11:22], expected, atol=1e-6)
    torch.testing.assert_close(
        blurred(torch.full((1, 3, 16, 16), 0.3)), torch.full((1, 3, 16, 16), 0.3)
    )
    with pytest.raises(DataError, match="too small to blur"):
        blurred(ONES)


def test_batches_and_training_mode_change_nothing(monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    images, asked = torch.randn(7, 3, 8, 8), (rng().random((7, 8, 8)), torch.arange(7) % 5)

    def curves() -> list[np.ndarray]:
        _, taken = removal_curve(model, images, 0 * images, *asked, rng=rng(), steps=4)
        return [taken, *road_curves(model, images, *asked, rng=rng(), fractions=(0.5,), noise=0.0)]

    whole = (model.eval(), curves())[1]
    monkeypatch.setattr("senet_lib.analysis.faithfulness.BATCH", 2)
    for expected, found in zip(whole, (model.train(), curves())[1], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert model.training


def test_a_single_pixel_is_imputed_by_hand():
    """The middle of 3 x 3: 1/6 of each of 2 4 6 8 beside it, 1/12 of each corner 1 3 7 9."""
    middle = Weighted([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    image = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    image[0, 0, 1, 1] = -4
    image[0, 0, 0, 0] = 13
    maps = np.zeros((1, 3, 3))
    maps[0, 1, 1] = 1
    expected = (2 + 4 + 6 + 8) / 6 + (13 + 3 + 7 + 9) / 12
    options = {"fractions": (1 / 9,), "noise": 0.0, "rng": rng()}
    most, least = road_curves(middle, image, maps, torch.tensor([0]), **options)
    assert most[0, 0] == pytest.approx(1 / (1 + math.exp(-expected)), rel=1e-6)
    # The lowest pixel is another.
    assert least[0, 0] == pytest.approx(1 / (1 + math.exp(4)), rel=1e-6)
    assert road(most, least) == pytest.approx((least[0] - most[0]) / 2)


# The package hands tensors to numpy, which warns a thousand times.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_road_is_pytorch_grad_cams():
    """On 100 pixels without ties its percentiles cut at the same pixels."""
    package = pytest.importorskip("pytorch_grad_cam.metrics.road")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)).eval()
    ranks = rng().permuted(np.tile(np.linspace(0, 1, 100, dtype=np.float32), (4, 1)), axis=1)
    images, maps, targets = torch.randn(4, 3, 10, 10), ranks.reshape(4, 10, 10), torch.arange(4)
    calls = [lambda logits, k=k: logits.softmax(-1)[k] for k in targets.tolist()]
    found = road_curves(model, images, maps, targets, rng=rng(), noise=0.0)
    for way, kind in enumerate(("ROADMostRelevantFirst", "ROADLeastRelevantFirst")):
        for place, percentile in enumerate(range(90, 0, -10)):
            metric = getattr(package, kind)(percentile)
            metric.perturbation.imputer.noise = 0.0
            theirs = metric(images, maps, calls, model, return_diff=False)
            np.testing.assert_allclose(found[way, :, place], theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("error", "says", "change"),
    [
        (DataError, "do not fit", {"maps": np.zeros((1, 1, 2))}),
        (DataError, "finite", {"maps": np.full((1, 2, 2), np.inf)}),
        (DataError, "targets", {"targets": torch.tensor([0, 1])}),
        (SenetError, "steps is 5", {"steps": 5}),
    ],
)
def test_mistakes_are_refused(error, says, change):
    options = {"maps": np.zeros((1, 2, 2)), "targets": FIRST, "rng": rng(), "steps": 4}
    with pytest.raises(error, match=says):
        removal_curve(HAND, ONES, ZEROS, **options | change)
    for fractions in ((), (0.01,), (1.0,)):  # which replace nothing or all
        with pytest.raises(SenetError, match="fractions"):
            road_curves(HAND, ONES, np.zeros((1, 2, 2)), FIRST, rng=rng(), fractions=fractions)


class NoFloat64(TorchFunctionMode):
    """What was not brought to the CPU cannot be float64, as on Apple's GPUs."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        here = any(getattr(value, "brought", False) for value in args)
        if func is torch.Tensor.double and not here:
            raise TypeError("the MPS framework doesn't support float64")
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            found.brought = here or func is torch.Tensor.cpu
        return found


def test_nothing_is_float64_before_it_is_on_the_cpu():
    attention = build_attention(3, AttentionSpec(attention="se", reduction=1))
    parts = {"attention": attention, "flat": nn.Flatten(), "head": nn.Linear(48, 4)}
    model = nn.Sequential(OrderedDict(parts)).eval()
    images, labels = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    maps = rng().random((2, 4, 4))
    with NoFloat64():
        error, _ = error_and_loss(torch.eye(4)[[0, 3]], labels)
        channel_importance(model, images, labels.numpy(), "attention")
        removal_curve(model, images, 0 * images, maps, labels, rng=rng(), steps=2)
    assert error == 0.5
