"""The command line: a mistake gets one line and exit code 2; the rest prints what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from senet_lib.cli import main
from senet_lib.data.datasets import make_shapes
from senet_lib.runs.records import list_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of one epoch on a few shapes, made by the command itself."""
    folder = tmp_path_factory.mktemp("cli")
    data, out = folder / "few.npz", folder / "runs" / "few" / "resnet20" / "seed0"
    _few_shapes(data)
    assert main(_train(data, out)) == 0
    return out


def _few_shapes(path):
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


STUDIES = ("../../x", "..", "a/b", "a\n", ".hidden", "", "a" * 200)
SETTINGS = (
    "num_classes=5", "in_channels=1", "reduction=0", "reduction=-", "reduction=1e400",
    "reduction=[1]", "gate={a: b}", "stages=2024-13-45", "a=[" + "[" * 5000,
    "reduction=" + "9" * 5000, "reduction=true", "shortcut=null", "width=3", "gate=[a", "reduction",
)  # fmt: skip
OUT_OF_RANGE = (
    ("lr", "1e300"), ("wd", "1e300"), ("padding", 1_000_000), ("threads", 2**31), ("lr", "nan"),
    ("threads", 99_999), ("epochs", 1_000_000_000), ("batch-size", 10**30), ("flip", "inf"),
    ("max-minutes", "nan"), ("checkpoint-minutes", "-inf"), ("seed", 2**64), ("val", -1),
    ("test-every", 0), ("cutout", 10**20), ("epochs", 0), ("epochs", "x"), ("seed", -1),
    ("val", 64), ("epoch", 3),
)  # fmt: skip


def test_mistakes_end_with_one_line_and_code_2(capsys, tmp_path, run):
    data, out = run.parents[3] / "few.npz", tmp_path / "new"

    def refused(*more, says_so="", **changes):
        says(capsys, [*_train(data, out, changes), *more], says_so)

    refused(model="se_resnet21", says_so="se_resnet20")
    refused(data="cifar11", says_so="cifar10")
    refused(data=tmp_path / "none.npz", says_so="none.npz")
    refused("--schedule", 225, 150, says_so="225 150")
    refused(device="cuda", says_so="no cuda device")
    refused("--set", "shortcut=A", "--set", "shortcut=B", says_so="twice")
    refused(config=tmp_path / "none.yaml", says_so="none.yaml")
    for study in STUDIES:
        several = ["train", "--model", "resnet20", "--study", study, "--seeds", 0, 1]
        for words in (_train(data, out, {"study": study}), several, ["publish", study]):
            says(capsys, words, "study is ")
    for name, value in OUT_OF_RANGE:
        refused(**{name: value})
    for word in SETTINGS:
        refused("--set", word, model="se_resnet20")
    (tmp_path / "file").touch()
    says(capsys, _train(data, tmp_path / "file"), "file: File exists")
    says(capsys, ["frobnicate"], "invalid choice")
    says(capsys, ["models", "vgg*"], "vgg")
    for asked, configs, right in (("study", "sweep", "sweep"), ("sweep", "smoke", "study")):
        path = Path(__file__).parents[1] / "configs" / f"{configs}.yaml"
        says(capsys, [asked, path], re.escape(f"`senet {right} {shlex.quote(str(path))}`"))
    notebook = ["notebook", "train", "--out", out]
    for wrong in ([*notebook, "-p", "sede=1"], [*notebook, "-p", "seed"], notebook[:2],
                  ["notebook", "trian", "--out", out]):  # fmt: skip
        says(capsys, wrong, "seed|name=value|--out|train")
    assert not out.exists()


def test_another_recipes_run_and_checkpoints_that_are_none(capsys, tmp_path, run):
    data = run.parents[3] / "few.npz"
    says(capsys, _train(data, run, {"epochs": 2}), "epochs: 1 there, 2 asked")
    for folder in ("empty", "cut"):
        (tmp_path / folder).mkdir()
    (tmp_path / "text.pth").write_text("not a checkpoint", encoding="utf-8")
    whole = (run / "weights.safetensors").read_bytes()
    (tmp_path / "cut" / "weights.safetensors").write_bytes(whole[:-1000])
    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    for name in ("none.pt", "empty", "text.pth", "other.pth", "cut/weights.safetensors",
                 "other.safetensors"):  # fmt: skip
        says(capsys, ["evaluate", "--checkpoint", tmp_path / name], name)


def test_evaluate_agrees_with_the_record_or_says_not(capsys, run, tmp_path):
    for path in (run, run / "weights.safetensors"):
        assert main(["evaluate", "--checkpoint", str(path)]) == 0
        assert "they agree" in capsys.readouterr().out
    copy = tmp_path / "run"  # with the record of before checksums, whose error was changed
    shutil.copytree(run, copy)
    record = json.loads((copy / "record.json").read_text(encoding="utf-8")) | {"test_error": 0.0}
    del record["sha256"], record["files"]
    (copy / "record.json").write_text(json.dumps(record), encoding="utf-8")
    assert main(["evaluate", "--checkpoint", str(copy)]) == 1
    assert "they do not agree" in capsys.readouterr().out


def test_evaluate_maps_classes_by_name_and_refuses_other_classes_and_images(capsys, run, tmp_path):
    """The same images with classes in another order: the same error, not that of other labels."""
    path = run.parents[3] / "few.npz"
    with np.load(path) as content:
        few = dict(content)
    order = np.random.default_rng(0).permutation(10)
    back = np.argsort(order)
    other = {name: back[few[name]] for name in ("y_train", "y_test")}
    np.savez(tmp_path / "other.npz", **few | other | {"classes": few["classes"][order]})
    errors = []
    for words in ([], ["--data", str(tmp_path / "other.npz")]):
        assert main(["evaluate", "--checkpoint", str(run), *words]) == 0
        errors.append(re.search(r"error [\d.]+ %", capsys.readouterr().out)[0])
    assert errors[0] == errors[1]
    two = {name: few[name] % 2 for name in ("y_train", "y_test")}
    images = {name: few[name] for name in ("x_train", "x_test")}
    np.savez(tmp_path / "two.npz", **images, **two)
    says(capsys, ["evaluate", "--checkpoint", run, "--data", tmp_path / "two.npz"], "10", "2 .0, 1")
    kept = shutil.copy(path, tmp_path / "kept.npz")
    np.savez(path, **{**few, "x_train": 255 - few["x_train"]})
    try:
        for words in (["evaluate"], ["gradcam", "--out-dir", tmp_path / "maps"]):
            says(capsys, [*words, "--checkpoint", run], "was changed since")
    finally:
        shutil.copy(kept, path)


def test_runs_lists_what_is_there(capsys, run, monkeypatch):
    root = str(run.parents[2])
    assert main(["runs", "--root", root]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["study", "model", "seed", "status"]
    assert "resnet20" in line
    assert "finished" in line
    says(capsys, ["runs", "--root", root, "modle=resnet56"], "model")
    for odd in ("overrides=-", "overrides=[", "classes=[a]", "seed={}", "recipe={a: 1}", "seed=",
                "model=resnet56"):  # fmt: skip
        if main(["runs", "--root", root, odd]):
            assert len(capsys.readouterr().err.splitlines()) == 1
        else:
            assert "no run with" in capsys.readouterr().out
    assert main(["runs", "--root", root, "overrides={}", "seed=0"]) == 0
    assert "finished" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "pandas", None)
    says(capsys, ["runs", "--root", root], "needs the package pandas")


def test_what_is_printed_suits_a_terminal_of_ascii(run):
    """And `python -m senet_lib` is the command."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for words in (["claims", "--json"], ["train", "--help"]):
        command = [sys.executable, "-m", "senet_lib", *words]
        done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        if "--json" in words:
            assert len(json.loads(done.stdout)) > 50
        done.stdout.decode("ascii")


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
    runs = list_runs(tmp_path / "outputs/runs")
    assert sorted(runs.protocol) == ["custom", "tiny"]
    assert runs.study.nunique() == 2


def test_open_takes_the_newest_report_and_ones_own_first(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.chdir(tmp_path)
    says(capsys, ["open"], "make study")
    for age, folder in enumerate(("published/reports/a", "reports/a", "reports/b")):
        page = tmp_path / "outputs" / folder / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text("")
        os.utime(page, (age, age))
    for words in ([], ["a"]):
        assert main(["open", *words]) == 0
    assert [Path(url).parent.name for url in opened] == ["b", "a"]
    assert "published" not in opened[1]
    says(capsys, ["open", "c"], "unknown report 'c'")


@pytest.mark.parametrize("normalised", [False, True])
def test_predict_says_the_same_of_a_run_and_of_what_was_exported_from_it(
    run, tmp_path, capsys, monkeypatch, normalised
):
    from PIL import Image

    from senet_lib import load_run

    picture, out = tmp_path / "picture.png", tmp_path / "network.pt2"
    Image.new("RGB", (50, 40), (200, 30, 90)).save(picture)
    words = ["export", "--checkpoint", run, "--format", "pt2", "--out", out]
    words += ["--normalised"] if normalised else []
    assert main([str(word) for word in words]) == 0
    assert str(out) in capsys.readouterr().out
    lines = []
    for source in (run, out):
        assert main(["predict", "--model", str(source), str(picture), "--top", "2"]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    assert any(name in lines[0] for name in load_run(run).classes)
    monkeypatch.setattr("senet_lib.runs.evaluate.PICTURES_AT_ONCE", 2)
    assert main(["predict", "--model", str(run), *[str(picture)] * 5, "--top", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-5:] == lines[0].splitlines()[-1:] * 5
    for source, image in ((run, tmp_path / "no.png"), ("nonsense", picture),
                          (tmp_path / "no.onnx", picture)):  # fmt: skip
        says(capsys, ["predict", "--model", source, image], "no")
