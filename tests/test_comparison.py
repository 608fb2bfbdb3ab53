"""The statistics of pairs in the report."""

import numpy as np
import pytest
from fake_runs import NUM_IMAGES, make_run
from scipy.stats import binomtest, ttest_ind, ttest_rel

from senet_lib.analysis.errors import compare_pairs, statistics_table
from senet_lib.runs.study import collect

PLAIN, SE = (0.30, 0.33, 0.31), (0.28, 0.29, 0.30)


@pytest.fixture
def study(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "resnet20", seed, PLAIN[seed])
        make_run(tmp_path, "se_resnet20", seed, SE[seed])
        make_run(tmp_path, "resnet32", seed, 0.2)
    return collect("demo", "", tmp_path, tmp_path / "page", tmp_path)


def test_a_pair_has_the_statistics_of_scipy(study):
    (pair,) = compare_pairs(study.runs, rng=np.random.default_rng(0))
    assert (pair.plain, pair.model, pair.result.n) == ("resnet20", "se_resnet20", 3)
    assert pair.result.p_paired == pytest.approx(ttest_rel(SE, PLAIN).pvalue)
    assert pair.result.p_welch == pytest.approx(ttest_ind(SE, PLAIN, equal_var=False).pvalue)
    assert pair.adjusted_p == pair.result.p_paired  # a family of one
    assert pair.result.mean == pytest.approx(-0.07 / 3)


def test_mcnemar_counts_the_images_of_each_seed(study):
    (pair,) = compare_pairs(study.runs, rng=np.random.default_rng(0))
    # The made runs get the first images wrong, so the variant is right where it errs less.
    gained = round((PLAIN[1] - SE[1]) * NUM_IMAGES)
    assert pair.images[1].only_variant_right == gained
    assert pair.images[1].only_plain_right == 0
    assert pair.images[1].p == pytest.approx(binomtest(0, gained).pvalue)


def test_the_table_has_a_row_a_pair(study):
    table = statistics_table(study)
    (row,) = table.frame.to_dict("records")
    assert row["network"] == "se_resnet20"
    assert row["difference"] == "−2.33"
    assert row["paired t"] == f"{ttest_rel(SE, PLAIN).pvalue:.3f}"


def test_one_seed_leaves_empty_cells_and_no_error(tmp_path):
    make_run(tmp_path, "resnet20", 0, 0.3)
    make_run(tmp_path, "se_resnet20", 0, 0.2)
    one = collect("demo", "", tmp_path, tmp_path, tmp_path)
    (row,) = statistics_table(one).frame.to_dict("records")
    assert row["difference"] == "−10.00"
    assert row["t interval"] == row["paired t"] == row["detectable"] == ""
    assert row["McNemar"] == "< 0.001"
