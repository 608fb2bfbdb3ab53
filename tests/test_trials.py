"""Trials and scores: the same for every network, right where the answer is known, kept whole."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fake_runs import RECIPE, make_run
from notebook_cells import run_cells

from senet_lib.analysis import cam_study, scores, trials
from senet_lib.analysis.cam_study import CamStudy
from senet_lib.claims.definitions import definitions
from senet_lib.errors import DataError, RecordError
from senet_lib.evaluation import predict
from senet_lib.models import create_model
from senet_lib.runs.records import save_logits, save_record
from senet_lib.runs.weights import WEIGHTS, NetSpec, save_weights

MODELS = ("resnet20", "se_resnet20")
T_1 = 12.7062  # 97.5 % point of Student's t with 1 degree of freedom, from a printed table


def fields(shapes):
    """What a record says of its images."""
    return {
        "classes": list(shapes.classes), "mean": shapes.mean, "std": shapes.std,
        "data_fingerprint": shapes.fingerprint,
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs_root(tmp_path_factory, shapes):
    """Runs of two networks with random weights, two seeds, whose logits are nearly always right."""
    root = tmp_path_factory.mktemp("runs")
    for model in MODELS:
        for seed in (0, 1):
            run = make_run(root, model, seed, 0.1, **fields(shapes))
            torch.manual_seed(seed)
            network = create_model(model)
            spec = NetSpec(
                model=model, overrides={}, classes=shapes.classes, mean=shapes.mean, std=shapes.std
            )
            save_weights(run.path / WEIGHTS, network, spec)
            logits = 3 * np.eye(10, dtype=np.float32)[shapes.y_test]
            wrong = slice(10 * seed, 10 * seed + 10)  # each seed is wrong about ten other images
            logits[wrong] = np.roll(logits[wrong], 1, axis=1)
            save_logits(run.path, logits, shapes.y_test)
            save_record(run)
    return root


@pytest.fixture(scope="module")
def compared(runs_root):
    return trials.compare("demo", MODELS, str(runs_root))


def flat(images, targets):
    return np.ones((len(images), *images.shape[-2:]), np.float32)


def test_only_images_that_every_run_gets_right_are_kept(compared, shapes):
    assert [(r.model, r.seed) for r in compared.runs] == [(m, s) for m in MODELS for s in (0, 1)]
    assert compared.kept.tolist() == list(range(20, len(shapes.y_test)))


def test_where_hardly_any_image_is_right_in_all_any_is_used(tmp_path, shapes):
    for seed in (0, 1):  # the first is right about half of the images, the second about the others
        run = make_run(tmp_path, "resnet20", seed, 0.5, **fields(shapes))
        said = np.where(np.arange(1000) % 2 == seed, shapes.y_test, (shapes.y_test + 1) % 10)
        save_logits(run.path, np.eye(10, dtype=np.float32)[said], shapes.y_test)
        save_record(run)
    found = trials.compare("demo", ["resnet20"], str(tmp_path))
    assert (found.right, len(found.kept)) == (0, 1000)
    assert len(trials.make_trials(found, 2, 5)) == 6


def test_trials_are_the_same_wherever_they_are_made(compared):
    first, second = (trials.make_trials(compared, 3, 15) for _ in range(2))
    names = ["grid2", "grid2-alone", "grid3", "grid3-alone", "mosaic", "objects"]
    assert [t.name for t in first] == names
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.masks, b.masks)
        if a.grids:
            np.testing.assert_array_equal(a.grids.tiles, b.grids.tiles)
            assert np.isin(a.grids.tiles, compared.kept).all()
    assert [len(t.masks) for t in first] == [12, 12, 27, 27, 10, 15]
    assert trials.make_trials(compared, 3, 0)[-1].name == "mosaic"


def test_a_perfect_map_scores_one_and_a_uniform_one_chance(compared):
    made = trials.make_trials(compared, 3, 15)
    for trial in made:
        perfect = replace(trial, ask=lambda explain, m=trial.masks: m.astype(np.float32))
        found = trials.measure(None, [perfect])
        np.testing.assert_allclose(found["score"], 1)
        assert found["cases"].eq(len(trial.masks)).all()
        assert trial.wrong.any((1, 2)).all()
        if trial.grids is not None:  # a wrong region is never the right one
            assert not (trial.wrong & trial.masks).any()
            assert found.set_index("metric").loc["energy", "wrong"] == 0
    found = trials.measure(flat, made)
    np.testing.assert_allclose(found["score"], found["chance"], atol=1e-9)
    chance = found.set_index(["trial", "metric"])["chance"]
    assert chance["grid2", "energy"] == 0.25
    assert chance["grid3", "iou_at_area"] == pytest.approx(1 / 17)  # (1/9) / (2 - 1/9)
    assert chance["mosaic", "energy"] == 0.5


def test_zero_maps_are_counted_and_score_nothing(compared):
    found = trials.measure(lambda *asked: 0 * flat(*asked), trials.make_trials(compared, 2, 5))
    assert (found["zero"] == found["cases"]).all()
    assert set(found[found["metric"] != "auc"]["score"]) == {0.0}


def test_faithfulness_of_a_uniform_map_is_chance(compared):
    network = create_model("resnet20").eval()
    images, targets = compared.images(compared.kept[:4]), torch.zeros(4, dtype=torch.long)
    found = trials.measure_faithfulness(network, flat, images, targets)
    assert found["metric"].tolist() == ["deletion", "insertion", "road"]
    np.testing.assert_allclose(found["score"], found["chance"])


def test_what_cannot_be_compared_is_refused(runs_root, tmp_path, shapes):
    with pytest.raises(RecordError, match=r"no finished run of resnet56; `make study"):
        trials.compare("demo", ["resnet56"], str(runs_root))
    make_run(tmp_path, "resnet20", 0, 0.1)  # of images that never were
    with pytest.raises(DataError, match="was changed since the network was trained"):
        trials.compare("demo", ["resnet20"], str(tmp_path))
    make_run(tmp_path, "resnet20", 1, 0.1, data_fingerprint="cd" * 32)
    with pytest.raises(RecordError, match="differ in data or recipe"):
        trials.compare("demo", ["resnet20"], str(tmp_path))


@pytest.fixture(scope="module")
def pages(runs_root, tmp_path_factory):
    """The folder of a report with the scores of both seeds."""
    folder = tmp_path_factory.mktemp("reports") / "demo"
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(cam_study, "LEAST_REMOVALS", 1)  # the removals take most of the time
    for seed in (0, 1):
        view = CamStudy(
            "demo", MODELS, seed, runs_root=str(runs_root), grids=2, page_folder=str(folder)
        )
        view.measure()
    monkeypatch.undo()
    return folder


def test_scores_are_kept_and_read_back_over_seeds(pages, runs_root, shapes):
    found = scores.read_scores(pages)
    assert (found.study, found.protocol, found.method, found.layer) == (
        "demo", "test", "gradcam", "last",
    )  # fmt: skip
    assert found.recipe_id == RECIPE.id
    assert found.models == list(MODELS)
    assert found.right == {0: len(shapes.y_test) - 20, 1: len(shapes.y_test) - 20}
    values = found.per_seed("resnet20", "grid2", "energy")
    assert sorted(values) == [0, 1]
    # Seed 1 by hand: its network, the same grids, the same maps.
    view = CamStudy("demo", MODELS, 1, runs_root=str(runs_root), grids=2, page_folder=str(pages))
    grids = view.trials[0].grids
    maps = trials.explainer(view.networks["resnet20"])(
        grids.images(grids.grid_of), torch.from_numpy(grids.targets)
    )
    inside = [
        m[k].sum() / m.sum() if m.any() else 0 for m, k in zip(maps, grids.masks(), strict=True)
    ]
    assert values[1] == pytest.approx(np.mean(inside), abs=1e-5)
    row = found.table().set_index(["trial", "metric", "model"]).loc["grid2", "energy", "resnet20"]
    half = T_1 * abs(values[0] - values[1]) / 2  # SD / sqrt(2) of two values
    assert (row["n"], row["mean"]) == (2, pytest.approx((values[0] + values[1]) / 2))
    assert row["high"] - row["mean"] == pytest.approx(half, rel=1e-4)


def test_the_networks_agree_with_their_logits_elsewhere(runs_root, shapes):
    view = CamStudy("demo", MODELS, 0, runs_root=str(runs_root), grids=1)
    examples = view.examples(2, 2)
    own = predict(
        view.networks["se_resnet20"], shapes.x_test[examples.index], shapes.mean, shapes.std
    )
    np.testing.assert_allclose(examples.logits["se_resnet20"], own.numpy(), atol=1e-4)
    shown = view.grid_examples(1)
    tile = view.trials[0].grids.tiles[0, 0]
    np.testing.assert_array_equal(shown.images[0, :32, :32], shapes.x_test[tile])


def test_a_seed_without_a_run_is_named(runs_root):
    with pytest.raises(RecordError, match=r"no finished run of seed 7; there are: 0, 1"):
        CamStudy("demo", MODELS, 7, runs_root=str(runs_root))


def test_scores_of_different_kinds_are_not_mixed(pages, tmp_path):
    assert scores.read_scores(tmp_path) is None
    for seed, method in ((0, "gradcam"), (1, "layercam")):
        content = json.loads((pages / f"localisation-seed{seed}.json").read_text())
        text = json.dumps({**content, "method": method})
        (tmp_path / f"localisation-seed{seed}.json").write_text(text)
    with pytest.raises(RecordError, match="different recipes or methods"):
        scores.read_scores(tmp_path)
    (tmp_path / "localisation-seed1.json").write_text("{}")
    with pytest.raises(RecordError, match=r"it lacks .*study"):
        scores.read_scores(tmp_path)
    (tmp_path / "localisation-seed1.json").write_text("{")
    with pytest.raises(RecordError, match="not readable JSON"):
        scores.read_scores(tmp_path)


def made_up(values):
    """Scores of three seeds: {model: (value of each seed)} for one trial and metric."""
    rows = [
        {"model": m, "seed": s, "trial": "grid2", "metric": "iou_at_half", "score": v,
         "chance": 0.25, "cases": 4, "zero": 1}
        for m, seeds in values.items() for s, v in enumerate(seeds)
    ]  # fmt: skip
    return scores.StudyScores(
        study="demo", protocol="test", recipe={"epochs": 2}, recipe_id="x", data="shapes",
        fingerprint="ab", method="gradcam", layer="last", right={0: 500}, frame=pd.DataFrame(rows),
        paths=[Path("a")],
    )  # fmt: skip


def test_a_definition_gives_the_order_or_does_not():
    (found,) = definitions(made_up({"a": (0.4, 0.5, 0.6), "b": (0.7, 0.8, 0.5)}), ["b", "a"])
    assert (found.ordered, found.seeds_ordered, found.seeds) == (True, 2, 3)
    (other,) = definitions(made_up({"a": (0.4, 0.5, 0.6), "b": (0.3, 0.4, 0.5)}), ["b", "a"])
    assert (other.ordered, other.seeds_ordered) == (False, 0)
    assert definitions(made_up({"a": (0.4, 0.5)}), ["b", "a"]) == []


def test_scores_stand_beside_what_maps_score_that_know_nothing(pages):
    table = scores.read_scores(pages).table().set_index(["trial", "metric", "model"])
    grids = table[[name.startswith("grid") for name in table.index.get_level_values("trial")]]
    assert grids[["wrong", "untrained"]].notna().all(axis=None)
    # The maps of a grid have their mass in its tiles: what one wrong tile has and the right one
    # has is never more than all.
    energy = grids.xs("energy", level="metric")
    assert (energy["mean"] + energy["wrong"] <= 1 + 1e-9).all()


def test_files_without_the_newer_columns_are_read(pages, tmp_path):
    content = json.loads((pages / "localisation-seed0.json").read_text())
    for row in content["rows"]:
        row.pop("wrong", None), row.pop("untrained", None)
    (tmp_path / "localisation-seed0.json").write_text(json.dumps(content))
    found = scores.read_scores(tmp_path)
    assert found.table()["wrong"].isna().all()
    assert found.table()["mean"].notna().all()


def test_the_notebook_shows_these_numbers(pages, runs_root, tmp_path, monkeypatch):
    monkeypatch.setattr(cam_study, "LEAST_REMOVALS", 1)
    chosen = {"study": "demo", "models": list(MODELS), "seed": 1, "runs_root": str(runs_root)}
    found = run_cells("gradcam", **chosen, grids=2, num_cases=0, page_folder=str(tmp_path))
    kept = scores.read_scores(pages).per_seed("resnet20", "grid2", "energy")[1]
    table = found["trial_table"]("grid2")
    assert table.loc["resnet20", "grid pointing score"] == pytest.approx(kept)
    assert table.loc["a uniform map", "grid pointing score"] == 0.25
    measured = found["scores"]
    wrong = measured[(measured["trial"] == "grid2") & (measured["metric"] == "energy")]["wrong"]
    assert f"{wrong.mean():.3f}" in found["outputs"][-1].markdown
