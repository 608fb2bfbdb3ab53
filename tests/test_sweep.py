"""Sweeps by a real Optuna: what is tried, what is pruned, what a kill costs."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fake_runs import save_shapes
from notebook_cells import run_cells
from torch import nn

from senet_lib import sweep
from senet_lib.cli import main
from senet_lib.data.datasets import load_data
from senet_lib.errors import BatchSizeError, OutOfMemoryError, RunExistsError, SenetError
from senet_lib.models import registry
from senet_lib.runs.records import load_run
from senet_lib.training import fit as fit_module

optuna = pytest.importorskip("optuna")

from senet_lib.sweep import _run, load_sweep, open_sweep, run_sweep  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FEW = {
    "study": "few", "num_val": 48, "models": ["resnet20", "se_resnet20"], "trials": 7, "seed": 0,
    "threads": 1, "device": "cpu", "precision": "fp32", "compile": "off",
    "space": {"lr": {"low": 1e-6, "high": 1.0, "log": True}, "batch_size": [16, 32]},
    "recipe": {"epochs": 3, "lr_policy": "one_cycle"},
}  # fmt: skip
DONE = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes the settings of a sweep over a few shapes into a folder."""
    data = save_shapes(tmp_path_factory.mktemp("data") / "few.npz", 112, 32)

    def write(folder, **changes):
        path = folder / "few.yaml"
        path.write_text(yaml.safe_dump({**FEW, "data": data, **changes}), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def whole(written, tmp_path_factory):
    """A sweep that nothing happened to: its root, and the study."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, run_sweep(load_sweep(written(folder)), folder)


def found(study):
    """What was tried and what came of it, in order."""
    done = study.get_trials(states=DONE)
    return [(t.state, t.params, t.value, t.intermediate_values) for t in done]


def test_trials_are_runs_judged_on_held_out_images(whole):
    folder, study = whole
    assert [trial.user_attrs["run"] for trial in study.trials] == [f"trial{k}" for k in range(7)]
    for trial in study.get_trials(states=DONE[:1]):
        record = load_run(folder / "few" / trial.user_attrs["run"])
        record.verify()
        assert (record.evaluated_on, record.num_val) == ("val", 48)
        assert len(record.test_logits()[1]) == 48
        assert trial.value == record.test_error == trial.intermediate_values[3]
        assert record.recipe["lr"] == trial.params["lr"]
        assert record.recipe["batch_size"] == trial.params["batch_size"]
        assert record.model == trial.params["model"] == trial.user_attrs["model"]
        assert record.num_params == trial.user_attrs["num_params"]
    pruned = study.get_trials(states=DONE[1:])
    assert pruned
    for trial in pruned:
        run = folder / "few" / trial.user_attrs["run"]
        assert [path.name for path in run.iterdir()] == ["history.csv"]
        assert len((run / "history.csv").read_text().splitlines()) - 1 < 3


@pytest.mark.slow
def test_a_sweep_that_is_killed_ends_as_it_would_have(whole, written, tmp_path):
    words = [sys.executable, "-m", "senet_lib", "sweep", str(written(tmp_path))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*words, "--root", str(tmp_path)], env=environment)
    while not (tmp_path / "few" / "trial2" / "history.csv").is_file():
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    study = run_sweep(load_sweep(tmp_path / "few.yaml"), tmp_path)
    assert found(study) == found(whole[1])
    states = [trial.state.name for trial in study.trials]
    assert states.count("FAIL") == len(states) - 7 == 1  # another took its values over


@pytest.mark.slow
def test_workers_share_the_trials_and_the_best_can_be_trained(written, tmp_path, capfd):
    path = written(tmp_path, trials=4, pruner="hyperband")
    assert main(["sweep", str(path), "--workers", "2", "--root", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    assert {"worker 1", "worker 2"} == {line.partition(": ")[0] for line in said.splitlines()}
    study = open_sweep(load_sweep(path), tmp_path)
    assert {trial.state for trial in study.trials} <= set(DONE)
    assert len({json.dumps(trial.params) for trial in study.trials}) == len(study.trials) == 4
    command = said.splitlines()[-1].partition("senet train ")[2].split()
    out = tmp_path / "all"
    assert main(["train", *command, "--progress", "none", "--out", str(out)]) == 0
    best = load_run(out)
    assert best.evaluated_on == "test"
    assert best.recipe["lr"] == study.best_params["lr"]


def test_the_notebook_shows_what_was_tried(whole):
    names = run_cells("sweep", sweep="few", root=str(whole[0]))
    done = names["done"]
    assert len(names["trials"]) == 7
    assert done["error"].iloc[0] == 100 * whole[1].best_value
    assert len(names["curves"]) == sum(len(t.intermediate_values) for t in whole[1].trials)
    assert set(names["shares"]) <= {"lr", "batch_size", "model"}
    cheapest = done[done["num_params"] == done["num_params"].min()]["error"].min()
    assert names["front"]["error"].iloc[0] == cheapest
    assert done["command"].iloc[0] in names["outputs"][0].markdown


def test_the_notebook_names_the_sweeps_and_costs_that_there_are(whole):
    with pytest.raises(SenetError, match="unknown sweep 'fewer'; did you mean few"):
        run_cells("sweep", sweep="fewer", root=str(whole[0]))
    with pytest.raises(SenetError, match="unknown cost 'params'; did you mean num_params"):
        run_cells("sweep", sweep="few", root=str(whole[0]), cost="params")


def test_a_trial_that_was_stopped_goes_on_with_its_own_precision(written, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("senet_lib.sweep.fit", lambda **about: asked.append(about["precision"]))
    sweep = replace(load_sweep(written(tmp_path)), precision="bf16")
    fixed = optuna.trial.FixedTrial({"lr": 0.1, "batch_size": 16, "model": sweep.models[0]})
    for name in ("trial0", "trial1"):
        (tmp_path / name).mkdir()
    (tmp_path / "trial1" / "checkpoint.pt").touch()
    for name in ("trial0", "trial1"):
        _run(fixed, sweep, tmp_path / name)
    assert asked == ["bf16", "auto"]


def test_more_trials_may_be_asked_for_and_nothing_else_may_change(
    whole, written, tmp_path, monkeypatch
):
    folder, study = whole
    sweep = load_sweep(written(tmp_path))
    assert len(run_sweep(sweep, folder).trials) == len(study.trials)

    def refused(what, **changes):
        with pytest.raises(RunExistsError, match=what):
            open_sweep(replace(sweep, **changes), folder)

    settings = study.user_attrs["settings"]
    older = {k: v for k, v in settings["recipe"].items() if k != "norm_bias_lr"}  # a younger field
    study.set_user_attr("settings", settings | {"recipe": older})
    open_sweep(sweep, folder)
    refused("num_val", num_val=50)
    refused("seed", seed=1)
    refused("space", space={"lr": [0.1, 0.2]})
    monkeypatch.setattr("senet_lib.sweep.behind", lambda *_: {"own.py": "another text"})
    refused("plugins")
    few = load_data(sweep.data)
    few = replace(few, x_train=255 - few.x_train)
    monkeypatch.setattr("senet_lib.sweep.load_data", lambda _: few)
    refused("data_fingerprint")


def test_a_rate_at_which_the_loss_diverges_is_given_up(written, tmp_path):
    space = {"lr": [0.1, 1e30]}
    study = run_sweep(load_sweep(written(tmp_path, space=space, trials=4)), tmp_path)
    states = {trial.params["lr"]: trial.state for trial in study.trials}
    assert states == {0.1: DONE[0], 1e30: DONE[1]}


@pytest.mark.parametrize(
    "error", [OutOfMemoryError("too little memory"), BatchSizeError("a step needs more images")]
)
def test_a_trial_whose_choice_cannot_be_trained_is_given_up(written, tmp_path, monkeypatch, error):
    def fit(**how):
        if how["recipe"].batch_size == 32:
            raise error
        return real(**how)

    real = sweep.fit
    monkeypatch.setattr(sweep, "fit", fit)
    path = written(tmp_path, space={"batch_size": [16, 32]}, trials=4, recipe={"epochs": 1})
    study = run_sweep(load_sweep(path), tmp_path)
    states = {trial.params["batch_size"]: trial.state for trial in study.trials}
    assert states == {16: DONE[0], 32: DONE[1]}


@pytest.mark.parametrize("pruned", [False, True])
def test_a_signal_at_a_trials_end_stops_the_sweep_once_that_is_told(
    written, tmp_path, monkeypatch, pruned
):
    def ends(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return pruned or real(*arguments)

    real = fit_module._finish
    where = (optuna.Trial, "should_prune") if pruned else (fit_module, "_finish")
    monkeypatch.setattr(*where, ends)
    words = ["sweep", str(written(tmp_path, trials=2, pruner="none")), "--root", str(tmp_path)]
    assert main(words) == 128 + signal.SIGTERM
    (trial,) = open_sweep(load_sweep(tmp_path / "few.yaml"), tmp_path).trials
    assert trial.state == DONE[pruned]
    assert ("command" in trial.user_attrs) != pruned


def test_a_sweep_with_nothing_to_choose_from_fails_in_a_folder_of_any_name(written, tmp_path):
    root, space = tmp_path / "a?b {0} %41 ü", {"lr": [1e29, 1e30]}
    words = ["sweep", str(written(tmp_path, space=space, trials=1)), "--root", str(root)]
    assert main(words) == 1
    assert (root / "few" / "optuna.db").is_file()
    assert not (tmp_path / "a").exists()
    assert main(words) == 1  # found again, and nothing is tried anew
    assert not (root / "few" / "trial1.lock").exists()


def test_a_device_that_is_missing_uses_up_no_trial(written, tmp_path, says):
    space = {"momentum": [0.0, 0.9]}
    path = written(tmp_path, space=space, models=["resnet20"], trials=1, recipe={"epochs": 1})
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(content | {"device": "xpu"}), encoding="utf-8")
    words = ["sweep", path, "--root", tmp_path]
    says(words, "no xpu device")
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    study = open_sweep(load_sweep(path), tmp_path)
    trial = study.get_trials()[0]
    # As a process leaves it that is killed between the two last things it does.
    study._storage.set_trial_user_attr(trial._trial_id, "command", "senet train")
    assert main([str(word) for word in words]) == 0
    assert [trial.state.name for trial in study.get_trials()] == ["FAIL", "COMPLETE"]


SPACES = (
    {"learning_rate": [0.1, 0.2]}, {"epochs": [1, 2]}, {"lr": [0.1]}, {"lr": [0.1, 0.1]},
    {"lr": [0.1, -1]}, {"lr": 0.1}, {"lr": {"low": 0.1}}, {"lr": {"low": 0.2, "high": 0.1}},
    {"lr": {"low": 0.1, "high": 0.2, "step": 0.1}}, {"lr": {"low": 0.1, "high": 0.2, "log": "yes"}},
    {"momentum": {"low": 0.0, "high": 0.9, "log": True}}, {"batch_size": {"low": 1.5, "high": 8}},
    {"nesterov": {"low": False, "high": True}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"trials": 0}, "trials"), ({"num_val": 0}, "num_val"), ({"num_val": 10**7}, "112"),
        ({"num_val": None}, "num_val"), ({"seeds": [0]}, "seeds"), ({"pruner": "best"}, "pruner"),
        ({"models": ["resnet21"]}, "resnet21"), ({"data": "nowhere.npz"}, "nowhere"),
        ({"space": {"train_images": [32, 65]}}, "cannot take 65 of 64 training images"),
        ({"recipe": {"epochs": 3, "train_images": 65}}, "cannot take 65"), ({"space": 3}, "space"),
        ({"space": {}, "models": ["resnet20"]}, "nothing to choose"),
        ({"models": ["resnet20", "large"]}, "does not run on an input of"),
        *(({"space": space}, next(iter(space))) for space in SPACES),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_meant_is_one_line(change, part, written, tmp_path, says):
    @registry.register_model("large", summary="of larger images", input_size=(3, 64, 64))
    def build(num_classes, in_channels):
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64 * 64, num_classes))

    says(["sweep", written(tmp_path, **change), "--root", tmp_path / "sweeps"], part)
    assert not (tmp_path / "sweeps").exists()
    del registry._MODELS["large"]


def test_what_lies_there_is_no_study_or_optuna_is_missing(written, tmp_path, says, monkeypatch):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "optuna.db").write_text("no database " * 100, encoding="utf-8")
    words = ["sweep", written(tmp_path), "--root", tmp_path]
    says(words, "optuna.db")
    says([*words, "--workers", "0"], "--workers")
    monkeypatch.setitem(sys.modules, "optuna", None)
    says(words, r"-e '.\[sweep\]'")


def test_the_repositorys_sweep_is_valid():
    sweep = load_sweep(ROOT / "configs" / "sweep.yaml")
    assert sweep.num_val > 0
    assert set(sweep.space) == {"lr", "weight_decay", "label_smoothing", "batch_size"}
