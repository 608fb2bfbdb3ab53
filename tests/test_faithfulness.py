"""Faithfulness: networks small enough for paper, and pytorch-grad-cam's ROAD on the same maps."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from senet_lib.analysis.faithfulness import deletion, insertion, road
from senet_lib.errors import DataError, SenetError, UnknownNameError

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


def test_deletion_by_hand():
    """From 27 : 1 the factors 9, 3, 2 and 1/2 are taken away in that order."""
    ranked = np.array([[[2.0, 3.0], [1.0, 4.0]]])
    found = deletion(HAND, ONES, ranked, rng=rng(), steps=4)
    np.testing.assert_allclose(found.shares, [0, 0.25, 0.5, 0.75, 1])
    points = odds(27, 3, 1, 0.5, 1)
    np.testing.assert_allclose(found.probabilities, [points], rtol=1e-6)
    area = (sum(points) - points[0] / 2 - points[-1] / 2) / 4
    np.testing.assert_allclose(found.auc, [area], rtol=1e-6)


def test_deletion_in_steps_of_two_pixels():
    ranked = np.array([[[2.0, 3.0], [1.0, 4.0]]])
    found = deletion(HAND, ONES, ranked, rng=rng(), steps=2)
    np.testing.assert_allclose(found.probabilities, [odds(27, 1, 1)], rtol=1e-6)


def test_insertion_by_hand():
    """From 1 : 1 the factors come back; the class given is the other one."""
    ranked = np.array([[[2.0, 3.0], [1.0, 4.0]]])
    targets = torch.tensor([1])
    found = insertion(HAND, ONES, ranked, targets, rng=rng(), substrate="zero", steps=4)
    expected = [1 - p for p in odds(1, 9, 27, 54, 27)]
    np.testing.assert_allclose(found.probabilities, [expected], rtol=1e-5)


def test_without_targets_the_prediction_is_followed():
    images = torch.cat([ONES, -ONES])  # odds 27 and 1/27 of class 0
    maps = np.zeros((2, 2, 2)) + np.arange(4).reshape(2, 2)
    for measure in (deletion, insertion):
        found = measure(HAND, images, maps, rng=rng(), substrate="zero", steps=4)
        whole = 0 if measure is deletion else -1
        np.testing.assert_allclose(found.probabilities[:, whole], odds(27, 27), rtol=1e-5)


def test_the_map_that_knows_the_weights_beats_its_opposite():
    weights = rng().normal(size=(6, 6))
    model = Weighted(weights.tolist())
    images = torch.ones(1, 1, 6, 6)
    options = {"targets": torch.tensor([0]), "rng": rng(), "substrate": "zero", "steps": 36}
    assert (
        deletion(model, images, weights[None], **options).auc
        < deletion(model, images, -weights[None], **options).auc
    )
    assert (
        insertion(model, images, weights[None], **options).auc
        > insertion(model, images, -weights[None], **options).auc
    )


def test_ties_come_in_a_random_order_that_the_generator_fixes():
    maps = np.zeros((400, 2, 2))
    images = ONES.expand(400, -1, -1, -1)
    first, again = (deletion(HAND, images, maps, rng=rng(1), steps=4) for _ in range(2))
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    # After one pixel the odds are 27 over one of the four factors, each as often as the others.
    values, counts = np.unique(first.probabilities[:, 1].round(6), return_counts=True)
    np.testing.assert_allclose(values, sorted(odds(27 / 2, 9, 54, 3)), atol=1e-6)
    assert counts.min() > 60


def test_blur_takes_the_detail_and_leaves_a_constant():
    """A blurred constant is itself: nothing changes however much is deleted."""
    model = Weighted((torch.arange(256.0).reshape(16, 16) / 1e4).tolist())
    flat, maps = torch.full((1, 3, 16, 16), 0.3), rng().random((1, 16, 16))
    found = deletion(model, flat, maps, rng=rng(), substrate="blur", steps=8)
    assert np.ptp(found.probabilities) < 1e-5
    grain = torch.from_numpy(rng(1).normal(size=(1, 3, 16, 16))).float()
    found = insertion(model, grain, maps, rng=rng(), steps=8)
    assert np.ptp(found.probabilities) > 1e-3


def test_batches_and_training_mode_change_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    images, maps = torch.randn(7, 3, 8, 8), rng().random((7, 8, 8))
    model.eval()
    expected = deletion(model, images, maps, rng=rng(), steps=4)
    model.train()
    for batch_size in (2, 256):
        found = deletion(model, images, maps, rng=rng(), steps=4, batch_size=batch_size)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
        assert model.training
    found = [
        road(model, images, maps, rng=rng(), fractions=(0.5,), noise=0.0, batch_size=batch_size)
        for batch_size in (2, 256)
    ]
    np.testing.assert_allclose(found[0].most, found[1].most, atol=1e-6)


# ROAD


def test_a_single_pixel_is_imputed_by_hand():
    """The middle of 3 x 3: 1/6 of each of 2 4 6 8 beside it, 1/12 of each corner 1 3 7 9."""
    middle = Weighted([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    image = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    image[0, 0, 1, 1] = -4
    image[0, 0, 0, 0] = 13
    maps = np.zeros((1, 3, 3))
    maps[0, 1, 1] = 1
    expected = (2 + 4 + 6 + 8) / 6 + (13 + 3 + 7 + 9) / 12
    found = road(middle, image, maps, torch.tensor([0]), rng=rng(), fractions=(1 / 9,), noise=0.0)
    assert found.most[0, 0] == pytest.approx(1 / (1 + math.exp(-expected)), rel=1e-6)
    # The class was not predicted before (logit -4) and is now; the lowest pixel is another.
    assert found.least[0, 0] == pytest.approx(1 / (1 + math.exp(4)), rel=1e-6)
    assert found.combined[0] == pytest.approx((found.least[0, 0] - found.most[0, 0]) / 2)


# The package hands tensors to numpy, which warns a thousand times.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_road_is_pytorch_grad_cams():
    """On 100 pixels without ties its percentiles cut at the same pixels."""
    package = pytest.importorskip("pytorch_grad_cam.metrics.road")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)).eval()
    images, maps = torch.randn(4, 3, 10, 10), rng().permuted(
        np.tile(np.linspace(0, 1, 100), (4, 1)), axis=1
    ).reshape(4, 10, 10).astype(np.float32)  # fmt: skip
    targets = torch.tensor([0, 1, 2, 3])
    calls = [lambda logits, k=k: logits.softmax(-1)[k] for k in targets.tolist()]
    found = road(model, images, maps, targets, rng=rng(), noise=0.0)
    for way, kind in (("most", "ROADMostRelevantFirst"), ("least", "ROADLeastRelevantFirst")):
        for place, percentile in enumerate(range(90, 0, -10)):
            metric = getattr(package, kind)(percentile)
            metric.perturbation.imputer.noise = 0.0
            theirs = metric(images, maps, calls, model, return_diff=False)
            np.testing.assert_allclose(getattr(found, way)[:, place], theirs, atol=1e-5)


def test_road_leaves_its_input_and_takes_any_memory_format():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    images, maps = torch.randn(3, 3, 8, 8), rng().random((3, 8, 8))
    before = images.clone()
    options = {"targets": torch.tensor([0, 1, 2]), "fractions": (0.3, 0.9), "noise": 0.0}
    expected = road(model, images, maps, rng=rng(), **options)
    assert torch.equal(images, before)
    last = images.to(memory_format=torch.channels_last)
    found = road(model, last, maps, rng=rng(), **options)
    np.testing.assert_allclose(found.most, expected.most, atol=1e-6)
    untouched = model(images).softmax(1)[range(3), range(3)].detach().numpy()
    assert np.abs(found.most - untouched[:, None]).min() > 1e-4


def test_road_of_a_uniform_map_is_chance():
    """The pixels removed first and last are then drawn alike."""
    model = Weighted(rng(2).normal(size=(5, 5)).tolist())
    images = torch.from_numpy(rng(3).normal(size=(1, 1, 5, 5))).float().expand(300, -1, -1, -1)
    targets = torch.zeros(300, dtype=torch.long)
    found = road(
        model, images, np.zeros((300, 5, 5)), targets, rng=rng(), fractions=(0.2,), noise=0.0
    )
    values = found.combined
    assert values.std() > 0.01
    assert abs(values.mean()) < 4 * values.std() / 300**0.5


def test_noise_is_of_the_generator_and_of_its_channel():
    class Middle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, 1, 1]

    images = torch.zeros(500, 2, 3, 3)
    maps = np.zeros((500, 3, 3))
    maps[:, 1, 1] = 1
    targets = torch.zeros(500, dtype=torch.long)
    options = {"fractions": (1 / 9,), "noise": (0.5, 0.0)}
    found, again = (road(Middle(), images, maps, targets, rng=rng(), **options) for _ in range(2))
    np.testing.assert_array_equal(found.most, again.most)
    noise = np.log(found.most[:, 0] / (1 - found.most[:, 0]))
    assert noise.std() == pytest.approx(0.5, rel=0.15)
    assert (found.least == 0.5).all()  # the noise stays on replaced pixels


def test_mistakes_are_refused():
    maps = np.zeros((1, 2, 2))
    with pytest.raises(DataError, match="do not fit"):
        deletion(HAND, ONES, maps[:, :1], rng=rng(), steps=1)
    with pytest.raises(DataError, match="finite"):
        deletion(HAND, ONES, maps + np.inf, rng=rng(), steps=1)
    with pytest.raises(DataError, match="targets"):
        deletion(HAND, ONES, maps, torch.tensor([0, 1]), rng=rng(), steps=1)
    with pytest.raises(SenetError, match="steps is 5"):
        deletion(HAND, ONES, maps, rng=rng(), steps=5)
    with pytest.raises(DataError, match="too small to blur"):
        insertion(HAND, ONES, maps, rng=rng(), steps=4)
    with pytest.raises(UnknownNameError, match="zero"):
        insertion(HAND, ONES, maps, rng=rng(), substrate="zeros", steps=4)
    for fractions in ((), (0.01,), (1.0,)):
        with pytest.raises(SenetError, match="fractions"):
            road(HAND, ONES, maps, rng=rng(), fractions=fractions)
