"""Images made worse, by hand and by a naive loop."""

import math

import numpy as np
import pytest

from senet_lib.analysis.corruptions import corrupt
from senet_lib.errors import SenetError


def rng():
    return np.random.default_rng(0)


def test_contrast_by_hand():
    image = np.array([[[[0, 10, 250]], [[100, 30, 254]]]], np.uint8)  # means 50, 20, 252
    assert corrupt(image, "contrast", 0.2, rng=rng()).tolist() == [
        [[[40, 18, 252]], [[60, 22, 252]]]
    ]


def test_blur_is_a_gaussian_mean_of_the_neighbours():
    image = np.zeros((1, 9, 9, 3), np.uint8)
    image[0, 4, 4] = 255
    weights = [math.exp(-(k**2) / (2 * 0.8**2)) for k in range(-3, 4)]  # cut at four SD
    found = corrupt(image, "blur", 0.8, rng=rng())[0, ..., 0]
    for y in range(9):
        for x in range(9):
            near = max(abs(y - 4), abs(x - 4)) <= 3
            share = weights[y - 1] * weights[x - 1] / sum(weights) ** 2 if near else 0
            assert found[y, x] == pytest.approx(255 * share, abs=0.51)


def test_noise_has_the_stated_spread_and_is_drawn_anew_for_each_value():
    grey = np.full((4, 32, 32, 3), 128, np.uint8)
    away = corrupt(grey, "noise", 0.05, rng=rng()).astype(float) - 128
    assert away.std() == pytest.approx(255 * 0.05, rel=0.03)
    assert abs(np.corrcoef(away[..., 0].ravel(), away[..., 1].ravel())[0, 1]) < 0.06
    assert np.array_equal(corrupt(grey, "noise", 0, rng=rng()), grey)


def test_what_cannot_be_is_refused():
    image = np.zeros((1, 2, 2, 3), np.uint8)
    for kind, strength in (("blurr", 1), ("blur", -1)):
        with pytest.raises(SenetError, match=r"blur|at least 0"):
            corrupt(image, kind, strength, rng=rng())
