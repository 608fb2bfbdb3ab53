"""What stored logits say: by hand and by simulation."""

import math

import numpy as np
import pytest
from fake_runs import NUM_IMAGES, make_run

from senet_lib.analysis import predictions
from senet_lib.errors import SenetError
from senet_lib.runs.records import save_logits

# Right (1) or wrong by seed and image.
CORRECT = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]], bool)


def test_variance_split_by_hand():
    """Accuracies 2/4, 2/4 and 1: variance 1/12. Images: variances 0, 1/3, 1/3, 1/3, over 16."""
    assert predictions.split_variance(CORRECT) == pytest.approx((1 / 12, 1 / 16))


def test_variance_split_finds_what_the_networks_differ_by():
    """Seeds with an error of their own, 10 % with an SD of 2 points, on 500 images.

    The test set alone makes an SD of sqrt(0.1 · 0.9 / 500) = 1.34 points. Means of 400 studies of
    3 seeds: the standard error of each mean variance is under 6 %.
    """
    draw, parts = np.random.default_rng(0), []
    for _ in range(400):
        chance = 0.1 + 0.02 * draw.normal(size=3)
        wrong = draw.random((3, 500)) < chance[:, None]
        parts.append(predictions.split_variance(~wrong))
    total, finite = np.mean(parts, axis=0)
    assert finite == pytest.approx(0.1 * 0.9 / 500, rel=0.03)
    assert total - finite == pytest.approx(0.02**2, rel=0.15)


@pytest.fixture
def runs(tmp_path):
    """Made runs get the first images wrong, so that each seed's errors contain the others'."""
    return {
        model: [make_run(tmp_path, model, seed, error) for seed, error in enumerate(errors)]
        for model, errors in {"a": (0.3, 0.33), "b": (0.2, 0.2, 0.2), "c": (0.1,)}.items()
    }


def test_the_frame_splits_each_network_and_pools_all(runs):
    frame = predictions.spread_split(runs).set_index("model")
    assert frame.index.tolist() == ["a", "b", "all networks"]
    total, finite = 0.03**2 / 2, 6 / 2 / NUM_IMAGES**2  # six images differ, each variance 1/2
    a = frame.loc["a"]
    assert (a["n"], a["images"]) == (2, NUM_IMAGES)
    assert (a["sd"], a["sd_images"]) == pytest.approx((math.sqrt(total), math.sqrt(finite)))
    assert a["sd_networks"] ** 2 == pytest.approx(total - finite)
    assert frame.loc["b", ["sd", "sd_images", "sd_networks"]].tolist() == pytest.approx([0] * 3)
    pooled = frame.loc["all networks"]
    assert pooled["sd"] ** 2 == pytest.approx(total / 3)  # 1 degree of freedom of 3
    assert pooled["share_images"] == pytest.approx(finite / total)
    assert len(predictions.spread_split({"c": runs["c"]})) == 0
    with pytest.raises(SenetError, match="1 seed"):
        predictions.split_variance(CORRECT[:1])
    logits, labels = runs["a"][1].test_logits()
    save_logits(runs["a"][1].path, logits, labels[::-1])
    with pytest.raises(SenetError, match="different images"):
        predictions.correct_matrix(runs["a"])


def test_calibration_by_hand():
    """Confidences .6 .65 .9 .95, of which the second and third are right, in five bins.

    Bins .6-.8: .65 alone (.6 is on the border: the lower bin) and .8-1: two at .925 on average.
    """
    sure = np.array([0.6, 0.65, 0.9, 0.95])
    gap, labels = np.log(sure / (1 - sure)), np.array([1, 0, 0, 1])
    ece = predictions.calibration_error(np.stack([gap, 0 * gap], 1), labels, bins=5)
    assert ece == pytest.approx((0.6 + 0.35 + 2 * 0.425) / 4)
