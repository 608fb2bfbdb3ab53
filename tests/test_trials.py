"""Trials and scores: the same for every network, right where the answer is known, kept whole."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fake_runs import RECIPE, data_fields, make_run, save_network
from notebook_cells import run_cells

from senet_lib.analysis import cam_study, scores, trials
from senet_lib.analysis.cam_study import CamStudy
from senet_lib.claims.definitions import definitions
from senet_lib.data.datasets import load_data
from senet_lib.errors import DataError, RecordError, UnknownNameError
from senet_lib.evaluation import predict
from senet_lib.models import create_model
from senet_lib.runs.records import save_logits, save_record

MODELS = ("resnet20", "se_resnet20")
ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "outputs" / "published" / "reports" / "smoke"
T_1 = 12.7062  # 97.5 % point of Student's t with 1 degree of freedom, from a printed table


@pytest.fixture(scope="module")
def runs_root(tmp_path_factory, shapes):
    """Runs of two networks with random weights, two seeds, whose logits are nearly always right."""
    root = tmp_path_factory.mktemp("runs")
    for model in MODELS:
        for seed in (0, 1):
            run = make_run(root, model, seed, 0.1, **data_fields(shapes))
            logits = 3 * np.eye(10, dtype=np.float32)[shapes.y_test]
            wrong = slice(10 * seed, 10 * seed + 10)  # each seed is wrong about ten other images
            logits[wrong] = np.roll(logits[wrong], 1, axis=1)
            save_logits(run.path, logits, shapes.y_test)
            torch.manual_seed(seed)
            save_network(run, create_model(model))
    return root


@pytest.fixture(scope="module")
def compared(runs_root):
    return trials.compare("demo", MODELS, str(runs_root))


def flat(images, targets):
    return np.ones((len(images), *images.shape[-2:]), np.float32)


def test_images_that_all_get_right_are_kept_or_any_if_there_are_hardly_any(
    compared, tmp_path, shapes
):
    assert [(r.model, r.seed) for r in compared.runs] == [(m, s) for m in MODELS for s in (0, 1)]
    assert compared.kept.tolist() == list(range(20, len(shapes.y_test)))
    for seed in (0, 1):  # the first is right about half of the images, the second about the others
        run = make_run(tmp_path, "resnet20", seed, 0.5, **data_fields(shapes))
        said = np.where(np.arange(1000) % 2 == seed, shapes.y_test, (shapes.y_test + 1) % 10)
        save_logits(run.path, np.eye(10, dtype=np.float32)[said], shapes.y_test)
        save_record(run)
    shutil.copytree(run.path, run.path.with_name("seed1_old"))
    found = trials.compare("demo", ["resnet20"], str(tmp_path))
    assert (found.right, len(found.kept), len(found.runs)) == (0, 1000, 2)


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


def test_a_perfect_map_scores_one_a_uniform_one_chance_and_one_of_zeros_nothing(compared):
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
    found = trials.measure(lambda *asked: 0 * flat(*asked), made)
    assert (found["zero"] == found["cases"]).all()
    assert set(found[found["metric"] != "auc"]["score"]) == {0.0}
    network = create_model("resnet20").eval()
    images, targets = compared.images(compared.kept[:4]), torch.zeros(4, dtype=torch.long)
    found = trials.measure_faithfulness(network, flat, images, targets)
    assert found["metric"].tolist() == ["deletion", "insertion", "road"]
    np.testing.assert_allclose(found["score"], found["chance"])


def test_what_cannot_be_compared_is_refused(runs_root, tmp_path):
    with pytest.raises(RecordError, match="resnet56"):
        trials.compare("demo", ["resnet56"], str(runs_root))
    with pytest.raises(UnknownNameError, match=r"did you mean.* resnet20"):
        trials.compare("demo", [*MODELS, "resnet2O"], str(runs_root))
    assert len(trials.compare("demo", "se_resnet20", str(runs_root)).runs) == 2
    with pytest.raises(RecordError, match=r"7.*0, 1"):
        CamStudy("demo", MODELS, 7, runs_root=str(runs_root))
    make_run(tmp_path, "resnet20", 0, 0.1)  # of images that never were
    with pytest.raises(DataError, match="was changed"):
        trials.compare("demo", ["resnet20"], str(tmp_path))
    make_run(tmp_path, "resnet20", 1, 0.1, data_fingerprint="cd" * 32)
    with pytest.raises(RecordError, match="mixes 2 recipes or datasets"):
        trials.compare("demo", ["resnet20"], str(tmp_path))


@pytest.fixture(scope="module")
def pages(runs_root, tmp_path_factory):
    """The folder of a report with the scores of both seeds."""
    folder = tmp_path_factory.mktemp("reports") / "demo"
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(cam_study, "LEAST_REMOVALS", 1)  # the removals take most of the time
    bars = {}

    class Bar(cam_study.tqdm):
        def close(self) -> None:
            bars[self] = self.disable or (self.n, self.total, self.desc)
            super().close()

    monkeypatch.setattr(cam_study, "tqdm", Bar)
    options = {"runs_root": str(runs_root), "grids": 2, "page_folder": str(folder)}
    for seed, progress in enumerate(("auto", "log")):
        monkeypatch.setenv("SENET_PROGRESS", progress)
        CamStudy("demo", MODELS, seed, **options).measure()
    monkeypatch.undo()
    grids = 2 * 4 * 4 + 2 * 9 * 9  # of one of each size, whole and tile by tile
    images = 2 * (2 * grids + 10 * 4 + 10 + grids + 10 * 4 + 2 + 1)
    assert [*bars.values()] == [(images, images, "se_resnet20: "), True]
    return folder


def test_scores_are_kept_and_read_back_over_seeds(pages, runs_root, shapes):
    found = scores.read_scores(pages)
    about = (found.study, found.protocol, found.method, found.layer)
    assert about == ("demo", "test", "gradcam", "last")
    assert found.recipe_id == RECIPE.id
    assert found.frame["model"].unique().tolist() == list(MODELS)
    assert found.right == dict.fromkeys((0, 1), len(shapes.y_test) - 20)
    values = found.per_seed("resnet20", "grid2", "energy")
    # Seed 1 by hand: its network, the same grids, the same maps.
    look = {"runs_root": str(runs_root), "grids": 2}
    assert not CamStudy("demo", MODELS, 1, **look).keeps_scores  # nothing of a look by hand
    view = CamStudy("demo", MODELS, 1, **look, page_folder=str(pages))
    grids = view.trials[0].grids
    maps = trials.explainer(view.networks["resnet20"])(
        grids.images(grids.grid_of), torch.from_numpy(grids.targets)
    )
    inside = (maps * grids.masks()).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-30)
    assert values[1] == pytest.approx(inside.mean(), abs=1e-5)
    row = found.table().set_index(["trial", "metric", "model"]).loc["grid2", "energy", "resnet20"]
    half = T_1 * abs(values[0] - values[1]) / 2  # SD / sqrt(2) of two values
    assert (row["n"], row["mean"]) == (2, pytest.approx((values[0] + values[1]) / 2))
    assert row["high"] - row["mean"] == pytest.approx(half, rel=1e-4)


def test_scores_of_different_kinds_are_not_mixed_and_older_ones_are_read(tmp_path, caplog):
    assert scores.read_scores(tmp_path) is None
    one, other = (tmp_path / f"localisation-seed{seed}.json" for seed in (0, 1))
    content = json.loads((PUBLISHED / one.name).read_text())
    for row in content["rows"]:
        row.pop("wrong", None), row.pop("untrained", None)
    one.write_text(json.dumps(content))
    table = scores.read_scores(tmp_path).table()
    assert (table["wrong"].isna().all(), table["mean"].notna().all()) == (True, True)
    fewer = [{**row, "cases": row["cases"] // 2} for row in content["rows"]]
    others = ({"method": "layercam"}, {"right": 1}, {"rows": fewer})
    for text in (*(json.dumps({**content, **other}) for other in others), "{}", "{"):
        other.write_text(text)
        with pytest.raises(RecordError):
            scores.read_scores(tmp_path)
        assert set(scores.read_scores(tmp_path, [0, 2]).right) == {0}  # 1 is no longer asked for
    assert scores.read_scores(tmp_path, [2]) is None
    whole = shutil.copytree(PUBLISHED, tmp_path / "reports" / "whole")
    shutil.copytree(whole, tmp_path / "reports" / "broken")
    other.replace(tmp_path / "reports" / "broken" / other.name)
    (kept,) = scores.all_scores(tmp_path / "reports")  # no study keeps another from being read
    assert kept.study == "smoke"
    assert "broken" in caplog.text
    less = tmp_path / "own" / "smoke"  # one seed does not hide the three that are kept elsewhere
    less.mkdir(parents=True)
    shutil.copy(PUBLISHED / one.name, less)
    for roots in ((less.parent, whole.parent), (whole.parent, less.parent)):
        (kept,) = scores.all_scores(*roots)
        assert set(kept.right) == {0, 1, 2}


@pytest.mark.parametrize(("b", "ordered"), [((0.7, 0.8, 0.5), True), ((0.3, 0.4, 0.5), False)])
def test_a_definition_gives_the_order_or_does_not(b, ordered):
    scored = {"a": (0.4, 0.5, 0.6), "b": b}
    rows = [(model, *seed) for model, seeds in scored.items() for seed in enumerate(seeds)]
    frame = pd.DataFrame(rows, columns=["model", "seed", "score"])
    frame = frame.assign(trial="grid2", metric="iou_at_half")
    known = scores.StudyScores(**dict.fromkeys(scores.SHARED, ""), right={}, frame=frame)
    (found,) = definitions(known, ["b", "a"])
    assert (found.ordered, found.seeds) == (ordered, 3)
    assert definitions(replace(known, frame=frame[frame["model"] == "a"]), ["b", "a"]) == []


def test_a_network_without_its_plain_form_stands_alone():
    """Of the answer's networks, one with its plain form, one whose plain form has no maps."""
    content = json.loads((ROOT / "notebooks" / "gradcam.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in content["cells"]]
    (cell,) = (text for text in cells if "gained = " in text)
    names, values = ["resnet20", "se_resnet20", "se_resnet110"], [0.25, 0.5, 0.75]
    frame = {"model": names, "trial": "grid2", "metric": "energy", "score": values}
    view = SimpleNamespace(trials=[SimpleNamespace(name="grid2")])
    known = {
        "scores": pd.DataFrame(frame),
        "pd": pd,
        "view": view,
        "networks": [*names, "resnet110"],
    }
    exec(cell, known)
    assert known["gained"].to_dict("list") == {"se_resnet20 less resnet20": [0.25]}


def test_the_notebook_shows_these_numbers(pages, runs_root, tmp_path, monkeypatch, shapes):
    monkeypatch.setattr(cam_study, "LEAST_REMOVALS", 1)
    chosen = {"study": "demo", "models": list(MODELS), "seed": 1, "runs_root": str(runs_root)}
    found = run_cells("gradcam", **chosen, grids=2, num_cases=0, page_folder=str(tmp_path))
    kept = scores.read_scores(pages).per_seed("resnet20", "grid2", "energy")[1]
    own = found["view"].networks["se_resnet20"]
    own = predict(own, shapes.x_test[found["index"]], shapes.mean, shapes.std)
    np.testing.assert_allclose(found["explained"]["se_resnet20"].logits, own, atol=1e-4)
    tile = shapes.x_test[found["grids"].tiles[0, 0]]
    np.testing.assert_array_equal(found["mosaics"][0, :32, :32], tile)
    table = found["trial_table"]("grid2")
    assert table.loc["resnet20", "grid pointing score"] == pytest.approx(kept)
    assert table.loc["a uniform map", "grid pointing score"] == 0.25
    measured = found["scores"]
    energy = measured[(measured["trial"] == "grid2") & (measured["metric"] == "energy")]
    said = found["outputs"][-1].markdown
    assert f"untrained networks: {energy['untrained'].mean() / 0.25:.1f} times" in said
    gated, plain = (energy.set_index("model")["score"][m] for m in ("se_resnet20", "resnet20"))
    gained = found["gained"].loc["grid2", "energy"]
    assert gained.to_dict() == {"se_resnet20 less resnet20": pytest.approx(gated - plain)}


def test_of_two_classes_without_masks_the_page_asks_about_mosaics(tmp_path, monkeypatch, shapes):
    monkeypatch.setattr(cam_study, "LEAST_REMOVALS", 1)
    two = shapes.y_test < 2
    images, labels = shapes.x_test[two], shapes.y_test[two]
    path = tmp_path / "two.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    data = load_data(str(path))
    for model in MODELS:
        run = make_run(tmp_path, model, 0, 0.0, data=str(path), **data_fields(data))
        save_logits(run.path, 3 * np.eye(2, dtype=np.float32)[data.y_test], data.y_test)
        save_network(run, create_model(model, num_classes=2))
    chosen = {"study": "demo", "models": list(MODELS), "runs_root": str(tmp_path)}
    found = run_cells("gradcam", **chosen, grids=2, num_cases=0, page_folder=str(tmp_path))
    assert [trial.name for trial in found["view"].trials] == ["mosaic"]
    assert found["outputs"][-1].markdown.startswith("Focus mosaic: of the maps' mass ")
