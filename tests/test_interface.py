"""The interface that others rely on: every name, every command, and all that is published."""

import inspect
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import senet_lib
from senet_lib.cli import main
from senet_lib.files import read_json

PUBLISHED = Path(__file__).resolve().parents[1] / "outputs" / "published"
RUNS = sorted(path.parent for path in PUBLISHED.glob("runs/**/record.json"))
WEIGHTS = sorted(path.parent for path in PUBLISHED.glob("runs/**/weights.safetensors"))
SCORES = sorted({path.parent for path in PUBLISHED.glob("reports/*/localisation-seed*.json")})
GATES = sorted(PUBLISHED.glob("reports/*/gates-*.json"))

# Every flag of the documents, as it stands there.
COMMANDS = (
    "data cifar10",
    "train --model se_res2net29 --epochs 300 --batch-size 128 --lr 0.1 --schedule 150 225"
    " --wd 1e-4 --seed 0 --data shapes --out x --max-minutes 5 --device cpu --precision fp32",
    "evaluate --checkpoint x",
    "gradcam --checkpoint x --out-dir x",
    "profile",
    "profile --model resnet20 se_resnet20",
    "export --checkpoint x --format onnx",
    "export --checkpoint x --format torchscript",
    "export --checkpoint x --format pt2",
    "models",
    "models se_*",
    "runs model=resnet20 seed=0",
    "claims --json",
    "notebook train --out x.ipynb -p seed=1 -p model=resnet20",
)


def short(path: Path) -> str:
    return path.relative_to(PUBLISHED).as_posix()


@pytest.mark.parametrize("line", COMMANDS)
def test_the_documented_flags_are_accepted(line, capsys):
    """A flag that is none is the only one refused, so nothing runs and all others are known."""
    with pytest.raises(SystemExit) as left:
        main([*shlex.split(line), "--no-such-flag"])
    assert left.value.code == 2
    assert "unrecognized arguments: --no-such-flag (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("models se_res2net29*", "se_res2net29_last"),
        ("profile --model resnet20", "272,474"),
        (f"runs --root {shlex.quote(str(PUBLISHED / 'runs'))} seed=0", "finished"),
        ("claims a-resnet18-params", "reproduced"),
        ("notebook train --help-parameters", "peak learning rate"),
    ],
)
def test_cheap_commands_do_what_they_say(line, says, capsys):
    assert main(shlex.split(line)) == 0
    assert says in capsys.readouterr().out


def test_create_model_takes_the_documented_arguments():
    parameters = inspect.signature(senet_lib.create_model).parameters
    assert list(parameters) == ["name", "num_classes", "in_channels", "overrides"]
    assert parameters["overrides"].kind is inspect.Parameter.VAR_KEYWORD
    model = senet_lib.create_model("se_resnet20", num_classes=7, in_channels=1, reduction=4)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_list_models_takes_a_pattern():
    assert {"resnet20", "se_res2net29", "densenet_bc100_12"} <= set(senet_lib.list_models())
    found = senet_lib.list_models("*res2net29")
    assert sorted(found) == ["res2net29", "se_res2net29"]


def test_profile_model_counts_and_says_what_it_left_out():
    cost = senet_lib.profiling.profile_model(senet_lib.create_model("resnet56"), (3, 32, 32))
    assert cost.num_params == 855_770
    assert cost.macs + cost.bias_adds == 125_747_850
    assert cost.uncounted


def test_load_data_and_load_claims_have_short_names(shapes):
    found = senet_lib.data.load_data("shapes")
    assert found.fingerprint == shapes.fingerprint
    assert len(senet_lib.claims.load_claims()) == 60


def test_list_runs_filters_by_column():
    table = senet_lib.list_runs(PUBLISHED / "runs")
    assert len(table) == len(RUNS) > 0
    assert set(table["status"]) == {"finished"}
    assert set(senet_lib.list_runs(PUBLISHED / "runs", seed=0)["seed"]) == {0}


@pytest.mark.parametrize("folder", RUNS or [None], ids=lambda path: path and short(path))
def test_published_run_reads_and_its_logits_give_its_error(folder):
    assert folder, "nothing is published"
    run = senet_lib.load_run(folder)
    assert run.status == "finished"
    assert list(run.history["epoch"]) == list(range(1, run.recipe["epochs"] + 1))
    logits, labels = run.test_logits()
    assert np.isfinite(logits).all()
    # Logits rounded to half precision decide a few near ties otherwise.
    assert np.mean(logits.argmax(1) != labels) == pytest.approx(run.test_error, abs=2.5e-3)


@pytest.mark.parametrize("folder", WEIGHTS or [None], ids=lambda path: path and short(path))
def test_published_weights_load(folder):
    assert folder, "no weights are published"
    run = senet_lib.load_run(folder)
    kept = senet_lib.load_pretrained(run.model, seed=run.seed, study=run.study)
    for name, value in run.load_model().state_dict().items():
        assert torch.equal(value, kept.state_dict()[name])
    assert sum(p.numel() for p in kept.parameters()) == run.num_params
    assert kept(torch.zeros(1, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize("folder", SCORES or [None], ids=lambda path: path and short(path))
def test_published_scores_of_maps_read(folder):
    from senet_lib.analysis.scores import read_scores

    assert folder, "no scores of maps are published"
    scores = read_scores(folder)
    assert len(scores.paths) == len(list(folder.glob("localisation-seed*.json")))
    for model in scores.models:
        found = scores.per_seed(model, scores.trials[0], "iou_at_area").values()
        assert 0 <= min(found) <= max(found) <= 1


@pytest.mark.parametrize("path", GATES or [None], ids=lambda path: path and short(path))
def test_published_summaries_of_gates_read(path):
    assert path, "no summaries of gates are published"
    found = read_json(path, ("model", "seed", "images", "layers", "error", "fixed_error"))
    assert found["model"] in path.name
    assert 0 <= found["error"] <= 1
