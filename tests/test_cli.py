"""The command line: a mistake gets one line and exit code 2; the rest prints what it says."""

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from senet_lib import cli
from senet_lib.cli import main
from senet_lib.options import make_parser
from senet_lib.recipe import Recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of one epoch on a few shapes, made by the command itself."""
    folder = tmp_path_factory.mktemp("cli")
    data, out = folder / "few.npz", folder / "runs" / "few" / "resnet20" / "seed0"
    _few_shapes(data)
    assert main(_train(data, out)) == 0
    return out


def _few_shapes(path):
    from senet_lib.data.datasets import make_shapes

    few = make_shapes(num_train=64, num_test=32)
    np.savez(
        path,
        x_train=few.x_train,
        y_train=few.y_train.astype(np.uint8),
        x_test=few.x_test,
        y_test=few.y_test.astype(np.uint8),
        classes=np.array(few.classes),
    )


def _train(data, out, changes=()):
    options = {"model": "resnet20", "epochs": 1, "batch-size": 32, "seed": 0, "precision": "fp32"}
    options |= {"data": data, "out": out, **dict(changes)}
    return ["train", *(word for k, v in options.items() for word in (f"--{k}", str(v)))]


def says(capsys, argv, *patterns, code=2):
    """Run a command that must fail with one line matching every pattern; returns the line."""
    try:
        found = main([str(word) for word in argv])
    except SystemExit as left:
        found = left.code
    error = capsys.readouterr().err
    assert found == code
    assert len(error.strip().splitlines()) == 1, error
    assert error.startswith("error: ")
    for pattern in patterns:
        assert re.search(pattern, error), error
    return error


def test_mistakes_end_with_one_line_and_code_2(capsys, tmp_path, run):
    data, out = run.parents[3] / "few.npz", tmp_path / "new"
    train = lambda **changes: _train(data, out, changes)  # noqa: E731
    says(capsys, train(model="se_resnet21"), "unknown model", "se_resnet20")
    says(capsys, train(data="cifar11"), "unknown dataset", "cifar10")
    says(capsys, train(data=tmp_path / "none.npz"), "none.npz")
    says(capsys, train(epochs=0), "epochs is 0", "whole number")
    says(capsys, [*train(), "--schedule", 225, 150], "schedule is 225 150")
    says(capsys, train(epochs="x"), "--epochs", "invalid int")
    says(capsys, train(lr="nan"), "lr is nan")
    says(capsys, train(seed=-1), "seed is -1")
    says(capsys, train(val=64), "64")
    says(capsys, train(device="cuda"), "no CUDA device")
    says(capsys, [*train(), "--set", "reduction"], "key=value")
    says(capsys, [*train(), "--set", "width=3"], "width")
    says(capsys, [*train(), "--epoch", 3], "unrecognized")
    says(capsys, [*train(), "--set", "gate=[a"], "not valid YAML")
    for study in ("../../x", "..", "a/b", "a\n", ".hidden", "", "a" * 200):
        says(capsys, train(study=study), "study is ")
        several = ["train", "--model", "resnet20", "--study", study, "--seeds", 0, 1]
        says(capsys, several, "study is ")
        says(capsys, ["publish", study], "study is ")
    for name, value in (
        ("lr", "1e300"), ("wd", "1e300"), ("padding", 1_000_000), ("threads", 2**31),
        ("threads", 99_999), ("epochs", 1_000_000_000), ("batch-size", 10**30), ("flip", "inf"),
        ("max-minutes", "nan"), ("checkpoint-minutes", "-inf"), ("seed", 2**64), ("val", -1),
        ("test-every", 0), ("cutout", 10**20),
    ):  # fmt: skip
        says(capsys, train(**{name: value}))
    for word in ("num_classes=5", "in_channels=1", "reduction=0", "reduction=-", "reduction=1e400",
                 "reduction=[1]", "gate={a: b}", "stages=2024-13-45", "a=[" + "[" * 5000,
                 "reduction=" + "9" * 5000, "reduction=true", "shortcut=null"):  # fmt: skip
        says(capsys, [*train(model="se_resnet20"), "--set", word])
    says(capsys, [*train(), "--set", "shortcut=A", "--set", "shortcut=B"], "given twice")
    (tmp_path / "file").touch()
    says(capsys, _train(data, tmp_path / "file"), "file: File exists")
    says(capsys, train(config=tmp_path / "none.yaml"), "none.yaml")
    says(capsys, ["frobnicate"], "invalid choice")
    assert not out.exists()


def test_another_recipes_run_is_refused(capsys, run):
    data = run.parents[3] / "few.npz"
    says(capsys, _train(data, run, {"epochs": 2}), "holds another run", "epochs: 1 there, 2 asked")


def test_checkpoints_that_are_none(capsys, tmp_path, run):
    evaluate = ["evaluate", "--checkpoint"]
    says(capsys, [*evaluate, tmp_path / "none.pt"], "no such checkpoint")
    says(capsys, [*evaluate, tmp_path], "holds neither")
    text = tmp_path / "text.pth"
    text.write_text("not a checkpoint", encoding="utf-8")
    says(capsys, [*evaluate, text], "not a checkpoint")
    cut = tmp_path / "weights.safetensors"
    cut.write_bytes((run / "weights.safetensors").read_bytes()[:-1000])
    says(capsys, [*evaluate, cut], "not a whole safetensors file")
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, cut)
    says(capsys, [*evaluate, cut], "not written by senet_lib")
    import torch

    torch.save({"state_dict": {}}, text)
    says(capsys, [*evaluate, text], "not a checkpoint of senet_lib")


def test_evaluate_agrees_with_the_record(capsys, run):
    assert main(["evaluate", "--checkpoint", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "resnet20: error" in printed
    assert "they agree" in printed
    assert main(["evaluate", "--checkpoint", str(run / "weights.safetensors")]) == 0


def test_evaluate_says_so_when_the_weights_are_not_the_records(capsys, run, tmp_path):
    """A record of before checksums, whose error was changed."""
    import json
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = json.loads((copy / "record.json").read_text(encoding="utf-8"))
    record["test_error"] = 0.0
    del record["sha256"]
    del record["files"]
    (copy / "record.json").write_text(json.dumps(record), encoding="utf-8")
    assert main(["evaluate", "--checkpoint", str(copy)]) == 1
    assert "they do not agree" in capsys.readouterr().out


def test_evaluate_refuses_data_of_other_classes(capsys, run, tmp_path):
    few = tmp_path / "two.npz"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    labels = np.array([0, 1] * 4, dtype=np.uint8)
    np.savez(few, x_train=images[:4], y_train=labels[:4], x_test=images[4:], y_test=labels[4:])
    says(
        capsys,
        ["evaluate", "--checkpoint", run, "--data", few],
        "tells 10 apart",
        "has 2 .0, 1. that",
    )


def test_evaluate_maps_classes_by_name(capsys, run, tmp_path):
    """The same images with classes in another order: the same error, not that of other labels."""
    with np.load(run.parents[3] / "few.npz") as content:
        few = dict(content)
    order = np.random.default_rng(0).permutation(10)
    back = np.argsort(order)
    few |= {"classes": few["classes"][order]}
    few |= {name: back[few[name]] for name in ("y_train", "y_test")}
    np.savez(tmp_path / "other.npz", **few)
    assert main(["evaluate", "--checkpoint", str(run)]) == 0
    own = re.search(r"error [\d.]+ %", capsys.readouterr().out)[0]
    assert main(["evaluate", "--checkpoint", str(run), "--data", str(tmp_path / "other.npz")]) == 0
    assert own in capsys.readouterr().out


def test_data_that_was_replaced_after_the_training_is_refused(capsys, run, tmp_path):
    path = run.parents[3] / "few.npz"
    with np.load(path) as content:
        few = dict(content)
    few["x_train"][0, 0, 0, 0] ^= 1
    kept = path.rename(tmp_path / "kept.npz")
    np.savez(path, **few)
    try:
        for words in (["evaluate"], ["gradcam", "--out-dir", tmp_path / "maps"]):
            says(capsys, [*words, "--checkpoint", run], "was changed since", "the record says")
    finally:
        kept.replace(path)


def test_runs_lists_what_is_there(capsys, run):
    root = str(run.parents[2])
    assert main(["runs", "--root", root]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["study", "model", "seed", "status"]
    assert "resnet20" in line
    assert "finished" in line
    assert main(["runs", "--root", root, "model=resnet56"]) == 0
    assert "no run with model=resnet56" in capsys.readouterr().out
    says(capsys, ["runs", "--root", root, "modle=resnet56"], "unknown column", "model")
    for odd in (
        "overrides=-",
        "overrides=[",
        "classes=[a]",
        "seed={}",
        "recipe={a: 1}",
        "seed=",
    ):
        if main(["runs", "--root", root, odd]):
            assert len(capsys.readouterr().err.splitlines()) == 1
        else:
            assert "no run with" in capsys.readouterr().out
    assert main(["runs", "--root", root, "overrides={}", "seed=0"]) == 0
    assert "finished" in capsys.readouterr().out


def test_what_is_printed_suits_a_terminal_of_ascii(run):
    """And `python -m senet_lib` is the command."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for words in (["claims"], ["claims", "--json"], ["models"], ["--help"], ["train", "--help"]):
        command = [sys.executable, "-m", "senet_lib", *words]
        done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        if "--json" in words:
            assert len(json.loads(done.stdout)) > 50
        done.stdout.decode("ascii")


def test_every_setting_is_an_option_and_each_command_is_short():
    words = make_parser().parse_args(["train", "--model", "resnet20"])
    for spec in dataclasses.fields(Recipe):
        assert getattr(words, spec.name) is None, spec.name
    tree = ast.parse(Path(cli.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            assert node.end_lineno - node.lineno <= 22, node.name


def test_models_lists_by_pattern(capsys):
    assert main(["models", "se_res2net*"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert sorted(names) == ["se_res2net29", "se_res2net29_first2", "se_res2net29_last"]
    says(capsys, ["models", "vgg*"], "no model matches")


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [  # published totals; those of the CIFAR ResNets count the classifier's ten additions too
        ("resnet56", 855_770, 125_747_850),
        ("resnet110", 1_730_714, 253_149_834),
        ("densenet_bc100_12", 769_162, 287_929_692),
        ("resnet18", 11_173_962, 555_422_720),
        ("res2net29", 636_421, 99_578_912),
        ("se_res2net29", 657_325, 99_599_816),
    ],
)
def test_profile_prints_the_known_counts(capsys, name, parameters, macs):
    assert main(["profile", "--model", name]) == 0
    cells = capsys.readouterr().out.splitlines()[1].split()
    assert cells[:2] == [name, f"{parameters:,}"]
    assert f"{macs:,}" in cells[2:4]


def test_a_config_gives_recipe_data_and_study(capsys, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = run.parents[3] / "few.npz"
    config = tmp_path / "mini.yaml"
    config.write_text(
        f"study: mini\nprotocol: tiny\ndata: {data}\nmodels: [resnet20]\nseeds: [0]\n"
        "precision: fp32\nrecipe: {epochs: 1, batch_size: 32}\n",
        encoding="utf-8",
    )
    command = ["train", "--model", "resnet20", "--config", str(config)]
    assert main(command) == 0
    assert (tmp_path / "outputs/runs/mini/resnet20/seed0/record.json").is_file()
    assert main([*command, "--lr", "0.05"]) == 0
    from senet_lib.runs.records import list_runs

    runs = list_runs(tmp_path / "outputs/runs")
    assert sorted(runs.protocol) == ["custom", "tiny"]
    assert runs.study.nunique() == 2


def test_a_time_limit_is_a_clean_stop(capsys, run, tmp_path):
    data = run.parents[3] / "few.npz"
    command = _train(data, tmp_path / "run", {"max-minutes": 1e-6})
    assert main(command) == 0
    assert "run the same again to go on" in capsys.readouterr().out
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_export_writes_what_it_says(capsys, run, tmp_path):
    out = tmp_path / "net.pt2"
    assert main(["export", "--checkpoint", str(run), "--format", "pt2", "--out", str(out)]) == 0
    assert out.is_file()
    assert str(out) in capsys.readouterr().out
    import torch

    logits = torch.export.load(out).module()(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 10)


def test_a_bad_notebook_parameter_is_one_line(capsys, tmp_path):
    out = tmp_path / "out.ipynb"
    says(capsys, ["notebook", "train", "--out", out, "-p", "sede=1"], "sede", "seed")
    says(capsys, ["notebook", "train", "--out", out, "-p", "seed"], "name=value")
    says(capsys, ["notebook", "trian", "--out", out], "train")
    says(capsys, ["notebook", "train"], "--out PATH.ipynb")
    assert not out.exists()


def test_a_notebooks_parameters_are_listed(capsys):
    assert main(["notebook", "train", "--help-parameters"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "float" in rows["lr"]
    assert "peak learning rate" in rows["lr"]


def test_a_missing_package_is_one_line(capsys, run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    says(capsys, ["runs", "--root", run.parents[2]], "needs the package pandas")
