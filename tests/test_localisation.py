"""Localisation: Quantus and scikit-learn on the same maps, hand-made maps, and grids of tiles."""

import itertools

import numpy as np
import pytest
import torch

from senet_lib.analysis import grids as grid
from senet_lib.analysis import localisation
from senet_lib.analysis.grids import focus_mosaics, grid_maps, make_grids, tile_maps
from senet_lib.analysis.localisation import METRICS, score
from senet_lib.errors import DataError, SenetError

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

TILE = 8  # side of a tile, pixels


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tile_mask(n: int, cell: int) -> np.ndarray:
    """(n 8, n 8) bool, one tile counted row by row."""
    mask = np.zeros((n * TILE, n * TILE), bool)
    row, column = divmod(cell, n)
    mask[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = True
    return mask


def random_grids(n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positive maps without ties that lean more or less to one tile, and that tile's masks."""
    draw = rng(n)
    masks = np.stack([tile_mask(n, cell) for cell in draw.integers(n * n, size=count)])
    lean = draw.uniform(-0.5, 2, (count, 1, 1))
    return draw.random(masks.shape) + 0.01 + np.maximum(lean * masks, 0), masks


def quantus_scores(name: str, maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """What the metric of Quantus says, on the maps as they are."""
    quantus = pytest.importorskip("quantus")
    metric = getattr(quantus, name)(abs=False, normalise=False, disable_warnings=True)
    asked = {
        "a_batch": maps[:, None],
        "s_batch": masks[:, None],
        "y_batch": np.zeros(len(maps), int),
    }
    images = np.zeros((len(maps), 3, *maps.shape[1:]))
    return np.asarray(metric(model=None, x_batch=images, channel_first=True, **asked), float)


@pytest.mark.parametrize("n", [2, 3])
def test_mass_ranks_and_the_highest_pixel_are_quantus(n):
    maps, masks = random_grids(n, 100)
    maps = maps - 0.3  # so that a part is negative
    positive, found = np.maximum(maps, 0), score(maps, masks)
    ranks = quantus_scores("RelevanceRankAccuracy", positive + 1e-9 * maps, masks)
    assert np.ptp(ranks) > 0.5
    np.testing.assert_allclose(found["relevance_rank_accuracy"], ranks, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["iou_at_area"], ranks / (2 - ranks), rtol=0, atol=1e-6)
    mass = quantus_scores("RelevanceMassAccuracy", positive, masks)
    np.testing.assert_allclose(found["energy"], mass, rtol=0, atol=1e-6)
    pointing = quantus_scores("PointingGame", positive, masks)
    np.testing.assert_array_equal(found["pointing_game"], pointing)


def test_focus_is_quantus_focus():
    """Mosaics with two tiles of the target: top left and bottom right."""
    quantus = pytest.importorskip("quantus")
    maps = random_grids(2, 50)[0]
    masks = np.broadcast_to(tile_mask(2, 0) | tile_mask(2, 3), maps.shape)
    metric = quantus.Focus(abs=False, normalise=False, disable_warnings=True)
    batch = metric.evaluate_batch(a_batch=maps[:, None], c_batch=np.tile([1, 0, 0, 1], (50, 1)))
    np.testing.assert_allclose(score(maps, masks)["energy"], batch, rtol=0, atol=1e-6)


@pytest.mark.parametrize("levels", [3, 1000])
def test_auc_is_scikit_learns_with_and_without_ties(levels):
    metrics = pytest.importorskip("sklearn.metrics")
    maps, masks = random_grids(2, 40)
    maps = np.round(maps * levels) / levels
    theirs = [metrics.roc_auc_score(s.ravel(), a.ravel()) for a, s in zip(maps, masks, strict=True)]
    np.testing.assert_allclose(score(maps, masks)["auc"], theirs, rtol=0, atol=1e-12)


@pytest.fixture
def masks(shapes):
    """Objects of different sizes, and tiles."""
    tiles = np.stack([np.kron(tile_mask(2, cell), np.ones((2, 2), bool)) for cell in range(4)])
    return np.concatenate([shapes.masks_test[:40], tiles])


@pytest.mark.parametrize("scale", [1e-6, 0.7, 3e4])
def test_a_map_equal_to_the_mask_scores_1_and_a_uniform_one_chance(scale, masks):
    assert (score((scale * masks).astype(np.float32), masks)[[*METRICS]] == 1).all(axis=None)
    share = masks.mean(axis=(1, 2))
    special = {"auc": np.full(len(masks), 0.5), "iou_at_area": share / (2 - share)}
    found = score(np.full(masks.shape, scale, np.float32), masks)
    for name in METRICS:
        expected = special.get(name, share)
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)
        np.testing.assert_allclose(localisation.chance(name, masks), expected, rtol=1e-12)
    nine, four = tile_mask(3, 5)[None], tile_mask(2, 1)[None]  # as published: .059 and .143
    assert localisation.chance("iou_at_area", nine) == pytest.approx(0.059, abs=5e-4)
    assert localisation.chance("iou_at_area", four) == pytest.approx(0.143, abs=5e-4)


@pytest.mark.parametrize("value", [0.0, -0.0, -2.0])
def test_a_map_without_a_positive_value_scores_nothing(value, masks):
    found = score(np.full(masks.shape, value, np.float32), masks)
    assert found["zero"].all()
    for name in METRICS:
        assert (found[name] == (0.5 if name == "auc" else 0.0)).all()


def test_by_hand():
    """Six pixels, three in the region: 5 | 3 0 of it, 4 | 0 0 outside."""
    maps = np.array([[[5.0, 4.0], [3.0, 0.0], [0.0, -1.0]]])
    masks = np.array([[[True, False], [True, True], [False, False]]])
    expected = {"energy": 8 / 12, "pointing_game": 1, "zero": False}
    expected |= {"relevance_rank_accuracy": 2 / 3, "iou_at_area": 2 / 4}  # 5 4 3
    expected |= {"iou_at_half": 2 / 4, "iou_best": 2 / 4}  # at 2.5: 5 4 3
    # Pairs won: 5 against three, 3 against two, the region's 0 ties with two.
    expected |= {"auc": (3 + 2 + 2 * 0.5) / 9}
    assert score(maps, masks).iloc[0].to_dict() == pytest.approx(expected)


def test_thresholds_cut_at_or_above():
    maps = np.array([[[4.0, 3.0, 2.0, 1.0]]])
    masks = np.array([[[True, True, False, False]]])
    curve = dict(zip(localisation.THRESHOLDS, localisation.iou_curve(maps, masks)[0], strict=True))
    cuts = {0.25: 2 / 4, 0.5: 2 / 3, 0.51: 1, 0.75: 1, 0.76: 1 / 2, 0.99: 1 / 2}
    assert {at: curve[at] for at in cuts} == pytest.approx(cuts)
    found = score(maps, masks).iloc[0]
    assert (found["iou_at_half"], found["iou_best"]) == (pytest.approx(2 / 3), 1)
    maps, masks = random_grids(2, 5)  # and against sets counted directly
    maps = maps.astype(np.float32) - np.float32(0.2)
    curve = localisation.iou_curve(maps, masks)
    for i, (a, s) in enumerate(zip(np.maximum(maps, 0).astype(float), masks, strict=True)):
        for j, threshold in enumerate(localisation.THRESHOLDS):
            kept = a >= threshold * a.max()
            assert curve[i, j] == (kept & s).sum() / (kept | s).sum()


def test_ties_are_the_mean_over_every_order():
    """All 720 orders of six pixels, of which three tie at the cut and two at the top."""
    a = np.array([2.0, 2.0, 1.0, 1.0, 1.0, 0.0])
    s = np.array([True, False, True, True, False, True])
    hits, tops = [], []
    for order in itertools.permutations(range(6)):
        if all(a[i] >= a[j] for i, j in itertools.pairwise(order)):
            hits.append(s[list(order[:4])].mean())
            tops.append(s[order[0]])
    assert len(hits) == 12
    found = score(a.reshape(1, 2, 3), s.reshape(1, 2, 3)).iloc[0]
    accuracy = found["relevance_rank_accuracy"]
    assert accuracy == pytest.approx(np.mean(hits))
    assert found["iou_at_area"] == pytest.approx(accuracy / (2 - accuracy))
    assert found["pointing_game"] == pytest.approx(np.mean(tops))


def test_no_score_depends_on_where_tied_pixels_stand_nor_on_the_chunk(monkeypatch):
    """A map upsampled by nearest, and the same pixels in another order."""
    coarse, masks = rng().integers(0, 3, (30, 4, 4)), random_grids(2, 30)[1]
    maps = coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)
    maps[7] = 0
    order = rng(1).permutation(256)
    moved = [array.reshape(30, -1)[:, order].reshape(30, 16, 16) for array in (maps, masks)]
    first, second = score(maps, masks), score(*moved)
    np.testing.assert_allclose(first.astype(float), second.astype(float), rtol=1e-12)
    monkeypatch.setattr(localisation, "CHUNK", 7)
    assert score(maps, masks).equals(first)
    assert list(first["zero"]) == [i == 7 for i in range(30)]


def test_mistakes_are_refused(pool):
    maps, masks = random_grids(2, 3)
    images, labels, keep = pool
    many = {"rng": rng()}
    grids = make_grids(*pool, 2, 1, rng=rng())
    for error, says, make, wrong, options in (
        (DataError, "do not fit", score, (maps[:2], masks), {}),
        (DataError, "bool", score, (maps, masks.astype(int)), {}),
        (DataError, "empty", score, (maps, masks & False), {}),
        (DataError, "covers", score, (maps, masks | True), {}),
        (DataError, "finite", score, (np.where(masks, np.nan, maps), masks), {}),
        (DataError, "9 classes", make_grids, (images, labels, keep & (labels < 8), 3, 1), many),
        (SenetError, "n is 1", make_grids, (*pool, 1, 1), many),
        (DataError, "do not fit", make_grids, (images, labels[:5], keep, 2, 1), many),
        (DataError, "bool", make_grids, (images, labels, keep.astype(int), 2, 1), many),
        (SenetError, "count is 0", focus_mosaics, (*pool, 0), many),
        (DataError, "two images", focus_mosaics, (images, labels, keep & (labels < 1), 1), many),
        (DataError, "shape", grid_maps, (grids, lambda i, targets: np.zeros((len(i), 2, 2))), {}),
    ):  # fmt: skip
        with pytest.raises(error, match=says):
            make(*wrong, **options)


# Grids

CLASSES, EACH = 10, 12


@pytest.fixture
def pool():
    """120 images of 4 x 4 whose every pixel is the image's index, labels and what to keep."""
    labels = rng(5).permutation(np.arange(CLASSES * EACH) % CLASSES)
    images = torch.arange(len(labels), dtype=torch.float32).reshape(-1, 1, 1, 1)
    keep = rng(6).random(len(labels)) < 0.7
    return images.expand(-1, 3, 4, 4), labels, keep


def check_tiles(grids: grid.Grids, labels: np.ndarray, keep: np.ndarray) -> None:
    """Kept images of the classes stated, at the places stated."""
    assert keep[grids.tiles].all()
    np.testing.assert_array_equal(labels[grids.tiles], grids.classes)
    images = grids.images().numpy()
    for g, row in enumerate(grids.tiles):
        for cell, index in enumerate(row):
            y, x = divmod(cell, grids.n)
            tile = images[g, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            np.testing.assert_array_equal(tile, np.full((3, 4, 4), index))


@pytest.mark.parametrize("n", [2, 3])
def test_grids_have_distinct_classes_and_only_kept_images(n, pool):
    images, labels, keep = pool
    grids, again = (make_grids(images, labels, keep, n, 20, rng=rng()) for _ in range(2))
    np.testing.assert_array_equal(grids.tiles, again.tiles)
    assert (grids.tiles != make_grids(images, labels, keep, n, 20, rng=rng(3)).tiles).any()
    check_tiles(grids, labels, keep)
    assert all(len(set(row)) == n * n for row in grids.classes.tolist())
    assert len(grids.targets) == 20 * n * n
    assert np.bincount(grids.classes.ravel(), minlength=CLASSES).min() > 0
    many = make_grids(images, labels, np.ones(len(labels), bool), n, 12, rng=rng())
    assert len(set(many.tiles.ravel())) == 12 * n * n  # none again while others are left


def test_the_mask_of_a_case_is_the_tile_of_its_class(pool):
    grids = make_grids(*pool, 3, 5, rng=rng())
    labels, masks = pool[1], grids.masks()
    for case, target in enumerate(grids.targets):
        shown = grids.images()[grids.grid_of[case], 0].numpy().astype(int)
        np.testing.assert_array_equal(masks[case], labels[shown] == target)
    assert set(masks.sum(axis=(1, 2))) == {16}


def test_mosaics_have_two_images_of_the_target_and_two_other_classes(pool):
    images, labels, keep = pool
    grids = focus_mosaics(images, labels, keep, 6, rng=rng())
    check_tiles(grids, labels, keep)
    np.testing.assert_array_equal(grids.targets, np.repeat(np.arange(CLASSES), 6))
    for tiles, classes, target in zip(grids.tiles, grids.classes, grids.targets, strict=True):
        assert len(set(tiles)) == 4
        assert (classes == target).sum() == 2
        assert len(set(classes)) == 3
    assert (grids.masks()[:, ::4, ::4].sum(axis=0) > 0).all()  # shuffled: to every place
    assert set(grids.masks().mean(axis=(1, 2))) == {0.5}


def test_of_two_classes_a_mosaic_has_two_images_each(pool):
    images, labels, keep = pool
    grids = focus_mosaics(images, labels, keep & (labels < 2), 6, rng=rng())
    check_tiles(grids, labels, keep)
    np.testing.assert_array_equal(grids.targets, np.repeat(np.arange(2), 6))
    assert all(len(set(tiles)) == 4 for tiles in grids.tiles)
    assert (np.sort(grids.classes, axis=1) == [0, 0, 1, 1]).all()


def code(images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Maps that tell what was explained: 1000 times the class, plus each pixel's value."""
    return (images[:, 0] + 1000 * targets[:, None, None]).numpy()


def average(images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Maps of a network that mixes: everywhere the mean of the image."""
    return (images * 0 + images.mean((1, 2, 3), keepdim=True))[:, 0].numpy()


@pytest.mark.parametrize("size", [5, 128])
def test_every_case_is_explained_on_its_grid(pool, size, monkeypatch):
    monkeypatch.setattr(grid, "BATCH", size)
    grids = make_grids(*pool, 3, 4, rng=rng())
    expected = grids.images().numpy()[grids.grid_of, 0] + 1000 * grids.targets[:, None, None]
    for maps in (grid_maps, tile_maps):
        np.testing.assert_array_equal(maps(grids, code), expected.astype(np.float32))


def test_tiles_alone_do_not_mix(pool):
    """Whole grids give each tile the mean of all; tiles alone keep their own value."""
    grids = focus_mosaics(*pool, 2, rng=rng())
    whole, alone = (maps(grids, average) for maps in (grid_maps, tile_maps))
    np.testing.assert_allclose(whole[:, 0, 0], grids.tiles[grids.grid_of].mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(alone[:, 0, 0], grids.tiles[grids.grid_of, 0], rtol=1e-5)
    np.testing.assert_allclose(alone[:, -1, -1], grids.tiles[grids.grid_of, 3], rtol=1e-5)
