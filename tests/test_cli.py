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
from fake_runs import save_shapes
from PIL import Image
from safetensors.numpy import save_file

from senet_lib.cli import main
from senet_lib.export import load_exported
from senet_lib.runs.evaluate import saved_at
from senet_lib.runs.records import list_runs, load_run
from senet_lib.runs.weights import NetSpec, save_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of one epoch on a few shapes, made by the command itself."""
    folder = tmp_path_factory.mktemp("cli")
    data, out = folder / "few.npz", folder / "runs" / "few" / "resnet20" / "seed0"
    save_shapes(data, 64, 32)
    assert main(_train(data, out)) == 0
    return out


def _train(data, out, changes=()):
    options = {"model": "resnet20", "epochs": 1, "batch-size": 32, "seed": 0, "precision": "fp32"}
    options |= {"data": data, "out": out, **dict(changes)}
    return ["train", *(word for k, v in options.items() for word in (f"--{k}", str(v)))]


STUDIES = ("../../x", "..", "a/b", "a\n", ".hidden", "a" * 200)
SETTINGS = {
    "num_classes=5": "cannot be set", "in_channels=1": "cannot be set", "name=x": "cannot be set",
    "reduction=0": "whole number from 1, not 0", "reduction=-": "must be one value",
    "reduction=1e400": "whole number from 1", "reduction=[1]": "must be one value",
    "gate={a: b}": "must be one value", "stages=2024-13-45": "not valid YAML",
    "stages=!!map x": "not valid YAML",
    "a=[" + "[" * 5000: "nested too deeply", "reduction=" + "9" * 5000: "not valid YAML",
    "reduction=true": "whole number from 1, not True", "shortcut=null": "known: A, B",
    "width=3": "has no setting 'width'", "gate=[a": "not valid YAML", "reduction": "key=value",
}  # fmt: skip
OUT_OF_RANGE = (
    ("lr=nan", "must be a number in"), ("wd=1e300", "must be a number in"),
    ("epochs=x", "invalid int"), ("epoch=3", "unrecognized"), ("threads=99999", "whole number in"),
    ("max-minutes=nan", "above 0"), ("checkpoint-minutes=-inf", "0 or above"),
    ("seed=-1", "from 0 to"), (f"seed={2**63}", "from 0 to"), ("val=-1", "cannot hold out -1 of"),
    ("val=64", "cannot hold out 64 of"), ("test-every=0", "whole number in"),
)  # fmt: skip


def test_mistakes_end_with_one_line_and_code_2(says, tmp_path, run):
    data, out = run.parents[3] / "few.npz", tmp_path / "new"

    def refused(*more, says_so="", **changes):
        says([*_train(data, out, changes), *more], says_so)

    refused(model="se_resnet21", says_so="se_resnet20")
    refused(data="cifar11", says_so="cifar10")
    refused(data=tmp_path / "none.npz", says_so="none.npz")
    refused(data="~no one/none", says_so="~no one/none")
    refused("--schedule", 225, 150, says_so="225 150")
    refused(device="cuda", says_so="no cuda device")
    refused("--at-once", 2, says_so="name them with --seeds")
    refused("--set", "shortcut=A", "--set", "shortcut=B", says_so="twice")
    refused(config=tmp_path / "none.yaml", says_so="none.yaml")
    for study in STUDIES:
        several = ["train", "--model", "resnet20", "--study", study, "--seeds", 0, 1]
        for words in (_train(data, out, {"study": study}), several, ["publish", study]):
            says(words, "study is ")
    for option, reason in OUT_OF_RANGE:
        refused(f"--{option}", says_so=reason)
    for word, reason in SETTINGS.items():
        refused("--set", word, model="se_resnet20", says_so=reason)
    (tmp_path / "file").touch()
    says(_train(data, tmp_path / "file"), "file: File exists")
    says(_train(data, tmp_path / "file" / "run"), re.escape(str(tmp_path / "file")))
    says(["frobnicate"], "invalid choice")
    says(["profile", "--model", "resnet20+attention=own"], "'own'.*; one of your own.*--plugin")
    for asked, configs, right in (("study", "sweep", "sweep"), ("sweep", "smoke", "study")):
        path = Path(__file__).parents[1] / "configs" / f"{configs}.yaml"
        says([asked, path], re.escape(f"`senet {right} {shlex.quote(str(path))}`"))
    executed = tmp_path / "new.ipynb"
    notebook = ["notebook", "train", "--out", executed]
    for wrong, reason in ((["-p", "sede=1"], "sede.*seed"), (["-p", "seed"], "key=value"),
                          (["--out", out], "must end in .ipynb")):  # fmt: skip
        says([*notebook, *wrong], reason)
    says(notebook[:2], "--out PATH.ipynb")
    says(["notebook", "trian", *notebook[2:]], "did you mean train")
    assert not out.exists()
    assert not executed.exists()


def test_another_recipes_run_and_checkpoints_that_are_none(says, tmp_path, run):
    data = run.parents[3] / "few.npz"
    says(_train(data, run, {"epochs": 2}), "epochs: 1 there, 2 asked")
    for folder in ("empty", "cut"):
        (tmp_path / folder).mkdir()
    (tmp_path / "text.pth").write_text("not a checkpoint", encoding="utf-8")
    whole = (run / "weights.safetensors").read_bytes()
    (tmp_path / "cut" / "weights.safetensors").write_bytes(whole[:-1000])
    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    for name in ("none.pt", "empty", "text.pth", "other.pth", "cut/weights.safetensors",
                 "other.safetensors"):  # fmt: skip
        says(["evaluate", "--checkpoint", tmp_path / name], name)


def test_evaluate_agrees_with_the_record_or_says_not(capsys, prints, run, tmp_path):
    for path in (run, run / "weights.safetensors"):
        assert "they agree" in prints("evaluate", "--checkpoint", path)
    copy = shutil.copytree(run, tmp_path / "run")  # with a record of before checksums, changed
    record = json.loads((copy / "record.json").read_text(encoding="utf-8")) | {"test_error": 0.0}
    del record["sha256"], record["files"]
    (copy / "record.json").write_text(json.dumps(record), encoding="utf-8")
    assert main(["evaluate", "--checkpoint", str(copy)]) == 1
    assert "they do not agree" in capsys.readouterr().out


def test_evaluate_maps_classes_by_name_and_refuses_other_images(prints, says, run, tmp_path):
    """The same images with classes in another order: the same error, not that of other labels."""
    path = run.parents[3] / "few.npz"
    with np.load(path) as content:
        few = dict(content)
    order = np.random.default_rng(0).permutation(10)
    back = np.argsort(order)
    other = {name: back[few[name]] for name in ("y_train", "y_test")}
    np.savez(tmp_path / "other.npz", **few | other | {"classes": few["classes"][order]})
    said = prints("evaluate", "--checkpoint", run)
    mapped = prints("evaluate", "--checkpoint", run, "--data", tmp_path / "other.npz")
    assert len({re.search(r"error [\d.]+ %", text)[0] for text in (said, mapped)}) == 1
    two = {
        name: few[name] % 2 if name[0] == "y" else few[name] for name in few.keys() - {"classes"}
    }
    np.savez(tmp_path / "two.npz", **two)
    says(["evaluate", "--checkpoint", run, "--data", tmp_path / "two.npz"], "10", "2 .0, 1")
    kept = shutil.copy(path, tmp_path / "kept.npz")
    np.savez(path, **{**few, "x_train": 255 - few["x_train"]})
    try:
        for words in (["evaluate"], ["gradcam", "--out-dir", tmp_path / "maps"]):
            says([*words, "--checkpoint", run], "was changed since")
    finally:
        shutil.copy(kept, path)


def test_runs_lists_what_is_there(capsys, prints, says, run, monkeypatch):
    root = str(run.parents[2])
    head, line = prints("runs", "--root", root).splitlines()
    assert head.split()[:4] == ["study", "network", "seed", "status"]
    assert "resnet20" in line
    assert "finished" in line
    for column in ("modle", "root"):
        says(["runs", "--root", root, f"{column}=resnet56"], f"'{column}'")
    assert "no run with" in prints("runs", "--root", root, "study=x", "model=y", "seed=0")
    for odd in ("overrides=-", "overrides=[", "classes=[a]", "seed={}", "recipe={a: 1}", "seed=",
                "model=resnet56"):  # fmt: skip
        if main(["runs", "--root", root, odd]):
            assert len(capsys.readouterr().err.splitlines()) == 1
        else:
            assert "no run with" in capsys.readouterr().out
    assert "finished" in prints("runs", "--root", root, "overrides={}", "seed=0")
    monkeypatch.setitem(sys.modules, "pandas", None)
    says(["runs", "--root", root], "needs the package pandas")


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


def test_a_config_gives_recipe_data_and_study(run, tmp_path, monkeypatch):
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
    assert load_run("outputs/runs/mini/resnet20/seed0").protocol == "tiny"
    assert main([*command, "--lr", "0.05"]) == 0
    runs = list_runs("outputs/runs")
    assert sorted(runs.protocol) == ["custom", "tiny"]
    assert runs.study.nunique() == 2


def test_open_takes_the_newest_report_and_ones_own_first(tmp_path, monkeypatch, says):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.chdir(tmp_path)
    says(["open"], "make study")
    for age, folder in enumerate(("published/reports/a", "reports/a", "reports/b")):
        page = tmp_path / "outputs" / folder / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text("")
        os.utime(page, (age, age))
    assert [main(["open", *words]) for words in ([], ["a"])] == [0, 0]
    assert [Path(url).parent.name for url in opened] == ["b", "a"]
    assert "published" not in opened[1]
    says(["open", "c"], "unknown report 'c'")


@pytest.mark.parametrize("normalised", [False, True])
def test_predict_says_the_same_of_a_run_and_of_what_was_exported_from_it(
    run, tmp_path, prints, says, monkeypatch, normalised
):
    picture, out = tmp_path / "picture.png", tmp_path / "network.pt2"
    Image.new("RGB", (50, 40), (200, 30, 90)).save(picture)
    words = ["export", "--checkpoint", run, "--format", "pt2", "--out", out]
    assert str(out) in prints(*words, *["--normalised"] * normalised)
    said = prints("predict", "--model", run, picture, "--top", "2")
    assert said == prints("predict", "--model", out, picture, "--top", "2")
    assert any(name in said for name in load_run(run).classes)
    monkeypatch.setattr("senet_lib.runs.evaluate.PICTURES_AT_ONCE", 2)
    many = prints("predict", "--model", run, *[picture] * 5, "--top", "2").splitlines()
    assert many[-5:] == said.splitlines()[-1:] * 5
    for source, image, reason in (
        (run, tmp_path / "no.png", "no.png is not a readable image"),
        ("nonsense", picture, "'nonsense'"),
        (tmp_path / "no.onnx", picture, "there is no file .*no.onnx"),
    ):
        says(["predict", "--model", source, image], reason)


def test_a_checkpoint_may_be_a_published_networks_name(says, tmp_path, monkeypatch):
    assert saved_at("se_resnet20").parts[-2:] == ("se_resnet20", "seed0")
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "se_resnet20"
    own.mkdir()
    assert saved_at("se_resnet20").resolve() == own
    for command in (["evaluate"], ["gradcam", "--out-dir", "maps"], ["export", "--format", "onnx"]):
        says([*command, "--checkpoint", "se_resnet21"], "published network.*did you mean")
        says([*command, "--checkpoint", "weights.safetensors"], "no such checkpoint")


def test_settings_of_a_network_are_part_of_its_name(run, tmp_path, prints):
    record, own = load_run(run), {"reduction": 4, "stages": (1, 3)}
    spec = NetSpec(
        model="se_resnet20", overrides=own, classes=tuple(record.classes),
        mean=tuple(record.mean), std=tuple(record.std), data=record.data,
    )  # fmt: skip
    save_weights(tmp_path / "weights.safetensors", spec.build(), spec)
    name = "se_resnet20+reduction=4+stages=1,3"
    assert prints("evaluate", "--checkpoint", tmp_path).startswith(f"{name}: error ")
    prints("export", "--checkpoint", tmp_path, "--format", "torchscript")
    assert load_exported(tmp_path / f"{name}.ts")[1]["model"] == name
    prints("gradcam", "--checkpoint", tmp_path, "--out-dir", tmp_path / "g", "--per-class", "1")
    assert name in (tmp_path / "g" / "index.html").read_text(encoding="utf-8")


def test_a_prediction_is_never_rounded_up_to_certainty(monkeypatch, prints):
    found = np.array([[0.9997, 0.0003]]), ("cat", "dog")
    monkeypatch.setattr("senet_lib.runs.evaluate.classify", lambda *_: found)
    assert "cat over 99.9 %" in prints("predict", "--model", "net", "a.png")


def test_a_path_may_begin_at_home(run, tmp_path, monkeypatch, prints):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs").symlink_to(run.parents[2])
    assert "resnet20" in prints("runs", "--root=~/runs")
    assert "resnet20" in prints("runs", "--root=~")


def test_a_command_whose_reader_has_gone_has_not_done_all_it_was_to_do():
    """So that a training behind `| head -1` does not look like one that has come to its end."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "senet_lib", "models"]
    assert subprocess.run(command, stdout=writer, timeout=60).returncode == 141
    os.close(writer)


def test_an_empty_word_is_one_line(says, run):
    """As of a shell's variable that is not set, which would train by the paper's protocol."""
    for words in (("--config", ""), ("--study", ""), ("--config=",), ("--out=",)):
        says([*_train("shapes", run), *words], "shell variable")


def test_a_config_is_a_path_or_a_name_and_a_misspelt_one_has_neighbours(says, run):
    says(["study", "labtop"], "did you mean laptop")
    says([*_train("shapes", run), "--config", "labtop"], "did you mean laptop")
    says([*_train("shapes", run), "--config", "laptop"], "0.2 asked")


def test_commands_run_where_nobody_listens(monkeypatch, tmp_path):
    """As behind `>&-`, where Python has no stream."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "s.yaml").write_text("study: [")
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["models"]) == 0
    assert main(["study", "s"]) == 2
