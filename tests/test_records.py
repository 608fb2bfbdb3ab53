"""Records and weights: whole or not there, a changed byte is noticed; the table of runs."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_runs import data_fields, make_run, save_shapes
from PIL import Image
from safetensors.torch import load_file, save_file

from senet_lib.data.datasets import load_data
from senet_lib.errors import CheckpointError, RecordError, UnknownNameError
from senet_lib.files import anchored
from senet_lib.models import create_model, split_name
from senet_lib.runs import provenance
from senet_lib.runs.evaluate import runs_on_other_images
from senet_lib.runs.records import RECORD, find_runs, full_name, list_runs, load_run, save_history
from senet_lib.runs.study import collect
from senet_lib.runs.weights import NetSpec, _digest, load_network, save_weights


def test_a_record_survives_the_disk(tmp_path):
    record = make_run(tmp_path, "resnet20", 0, 0.25)
    assert load_run(record.path) == load_run(record.path / "record.json") == record
    assert load_run(str(record.path)).path == record.path
    (record.path / "test_logits.npz").unlink()
    with pytest.raises(RecordError, match=r"no test_logits\.npz"):
        record.test_logits()
    with pytest.raises(RecordError, match=r"no weights\.safetensors"):
        record.load_model()
    save_history(record.path, [{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": 0.01}])
    assert record.history.to_dict("list") == {"epoch": [1, 2], "lr": [0.1, 0.01]}


def test_what_is_known_of_the_machine_is_said(tmp_path):
    record = make_run(tmp_path, "resnet20", 0, 0.25)
    for hardware, said in (
        ({"system": "Linux", "cpu": "A", "gpu": "B", "cores": 2}, "B, A, Linux, 2 cores"),
        ({"cpu": "A", "cores": 1}, "A, 1 core"),
        ({"cpu": "A", "cores": "many"}, "A"),
        ({}, ""),
    ):
        assert replace(record, hardware=hardware).machine == said


def test_what_is_no_record_is_refused(tmp_path):
    path = make_run(tmp_path, "resnet20", 0, 0.25).path / "record.json"
    part = {k: v for k, v in json.loads(path.read_text()).items() if k != "test_error"}
    for name, text, says in (
        ("history.csv", "", "no run"),
        ("checkpoint.pt", "", "unfinished"),
        ("record.json", "{", "JSON"),
        ("record.json", json.dumps(part), "test_error"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(RecordError, match=says):
            load_run(tmp_path)


def test_the_table_shows_every_state(tmp_path):
    assert list_runs(tmp_path / "none").empty
    folder = tmp_path / "s/resnet20"
    for seed in (0, 2, 10):
        make_run(tmp_path, "resnet20", seed, 0.4, study="s")
    for seed, mark in ((11, "checkpoint.pt"), (12, "failed.json"), (13, "record.json"),
                       (14, "checkpoint.previous.pt")):  # fmt: skip
        (folder / f"seed{seed}").mkdir()
        (folder / f"seed{seed}" / mark).write_text("{}", encoding="utf-8")
    shutil.copytree(folder / "seed2", folder / ".seed2.host.1.partial")
    shutil.copytree(folder / "seed2", folder / "seed2_old")
    (folder / "1²2").mkdir()  # a digit, but no number
    (folder / "1²2" / "failed.json").touch()
    runs = list_runs(tmp_path)
    assert list(runs.seed)[1:] == [0, 2, 2, 10, 11, 12, 13, 14]
    states = ["unfinished", "failed", "damaged", "unfinished"]
    assert list(runs.status) == ["failed"] + ["finished"] * 4 + states
    problems = runs.set_index("path").problem
    assert str(folder / "seed2") in problems[str(folder / "seed2_old")]
    assert "lacks" in problems[str(folder / "seed13")]
    assert (problems != "").sum() == 2
    whole = list_runs(tmp_path, status="finished", seed=0)
    assert list(whole.path) == [str(folder / "seed0")]
    (seed,) = whole.seed.unique()  # of NumPy
    assert list_runs(tmp_path, status="finished", seed=seed).path.tolist() == list(whole.path)
    assert list_runs(tmp_path, seed=True).empty
    with pytest.raises(UnknownNameError, match="did you mean model"):
        list_runs(tmp_path, modl="resnet20")


def test_a_study_or_run_that_is_published_is_said_to_be(tmp_path, monkeypatch):
    """By a path that holds from where one stands."""
    (tmp_path / "Snakefile").touch()
    for name in ("senet_lib", "notebooks", "outputs/runs/other"):
        (tmp_path / name).mkdir(parents=True)
    make_run(tmp_path / "outputs/published/runs", "resnet20", 0, 0.5)
    for place in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(place)
        for seed, look in (
            (0, lambda: collect("demo", runs_root=tmp_path / "outputs/runs")),
            (0, lambda: load_run(anchored("outputs/runs/demo/resnet20/seed0"))),
            (1, lambda: load_run(anchored("outputs/runs/demo/resnet20/seed1"))),
            (1, lambda: collect("dem")),
            (1, lambda: load_run(tmp_path)),
        ):
            with pytest.raises((RecordError, UnknownNameError)) as caught:
                look()
            said, found, root = str(caught.value).partition("; published: runs_root=")
            assert bool(found) == (seed == 0), said
            root = ast.literal_eval(root or "''")  # as Python takes it
            assert not found or len(collect("demo", runs_root=root).runs) == 1
        assert len(collect("demo", runs_root="outputs/published/runs").runs) == 1
        assert load_run("outputs/published/runs/demo/resnet20/seed0").seed == 0
        assert len(list_runs("outputs/published/runs")) == 1


def test_the_published_runs_stand_in_for_a_study_that_has_none_here_and_for_no_other(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "senet_lib").mkdir()
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "outputs/published/runs", "resnet20", 0, 0.5)
    found = collect("demo")
    assert found.runs[0].test_error == 0.5
    scores = Path("outputs/published/reports/demo")
    assert (found.page_folder, found.scores_folder) == (Path("outputs/reports/demo"), scores)
    assert collect("demo", page_folder="x").scores_folder == Path("x")
    assert "note: no run of demo in outputs/runs; shown are those of" in capsys.readouterr().err
    settings = "{study: demo, protocol: demo, models: [resnet20], seeds: [0], data: shapes, "
    settings += "recipe: {epochs: 1}}"
    assert not collect(config=settings).runs  # a batch is about its own runs
    (tmp_path / "outputs/runs/demo").mkdir(parents=True)
    assert not (found := collect("demo")).runs
    assert found.scores_folder == found.page_folder
    assert not capsys.readouterr().err


def test_what_is_known_of_a_gpu_is_kept_and_no_total_called_a_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A Card")
    monkeypatch.setattr(torch.version, "hip", "7.0")
    known = provenance.hardware(torch.device("cuda"))
    assert (known["gpu"], known["rocm"]) == ("A Card", "7.0")
    assert known.keys() >= {"cuda", "cudnn"}
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2**20)
    assert provenance.peak_memory_mib(torch.device("mps")) is None


def test_what_is_made_from_a_commit_does_not_change_it(tmp_path, monkeypatch):
    """A page being published, say, which would call its own commit a changed one."""
    files = [tmp_path / name for name in ("senet_lib/provenance.py", "outputs/page.html")]
    for path in files:
        path.parent.mkdir()
        path.touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(files[0]))
    for path, dirty in ((files[1], False), (files[0], True)):
        path.write_text("x")
        assert provenance.git_state()[1] is dirty


def test_a_mistake_is_one_line_in_a_notebook():
    code = "import senet_lib; senet_lib.load_run('nowhere')"
    command = [sys.executable, "-m", "IPython", "--colors=nocolor", "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert said.strip() == "RecordError: nowhere holds no run: there is no record.json"


def test_runs_behind_links_are_found_and_each_once(tmp_path):
    run = make_run(tmp_path / "disk", "resnet20", 0, 0.1)
    (tmp_path / "runs").mkdir()
    for name in ("demo", "twice"):
        (tmp_path / "runs" / name).symlink_to(tmp_path / "disk" / "demo")
    (run.path / "round").symlink_to(tmp_path / "runs")
    assert find_runs(tmp_path / "runs") == [tmp_path / "runs" / "demo" / "resnet20" / "seed0"]


def test_a_record_that_was_changed_is_refused_and_an_old_one_read(tmp_path):
    path = make_run(tmp_path, "resnet20", 0, 0.4).path / "record.json"
    text = path.read_text(encoding="utf-8")
    fields = json.loads(text)
    changed = [fields | c for c in ({"test_error": 0.3}, {"sha256": "0" * 64}, {"files": {}})]
    for wrong in (*map(json.dumps, changed), text.replace('"sha256"', '"sha257"')):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(RecordError, match="checksum"):
            load_run(path)
    path.write_text(json.dumps(fields, sort_keys=True), encoding="utf-8")  # another layout
    assert load_run(path).test_error == 0.4
    new = load_run(path).recipe_id
    old = {k: v for k, v in fields.items() if k not in ("files", "sha256", "weights_error")}
    del old["recipe"]["train_images"]  # a field that was added later
    path.write_text(json.dumps(old), encoding="utf-8")
    assert (load_run(path).files, load_run(path).recipe_id) == ({}, new)
    for name, harm in (
        ("history.csv", lambda data: data[: len(data) // 2]),
        ("history.csv", lambda data: data.replace(b"0.05", b"fast")),
        ("history.csv", lambda data: b""),
        ("history.csv", lambda data: data.replace(b"0.05", b"0.05,1")),
        ("history.csv", lambda data: data.replace(b"\n", b"\xff\n")),
        ("test_logits.npz", lambda data: data[: len(data) // 2]),
        ("test_logits.npz", lambda data: b""),
    ):
        whole = (path.parent / name).read_bytes()
        load_run(path).verify()
        (path.parent / name).write_bytes(harm(whole))
        with pytest.raises(RecordError, match=name):
            load_run(path).verify()
        (path.parent / name).write_bytes(whole)


SPEC = NetSpec(
    model="resnet20", overrides={}, classes=("a", "b"), mean=(0.5,) * 3, std=(0.2,) * 3, data="d"
)


def test_weights_are_as_readable_as_the_umask_says(tmp_path):
    for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            save_weights(tmp_path / "w.safetensors", SPEC.build(), SPEC)
        finally:
            os.umask(before)
        assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == mode


def test_weights_of_before_the_checksum_are_read_and_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, SPEC.build(), SPEC)
    whole = path.read_bytes()
    for at in (8, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=r"w\.safetensors"):
            load_network(path)
    path.write_bytes(whole)
    metadata = {"format": "senet_lib/1", "spec": json.dumps(SPEC.to_dict())}
    save_file(load_file(path), path, metadata=metadata)
    assert load_network(path)[1] == SPEC


def test_a_name_with_overrides_builds_the_same_network():
    overrides = {"stages": (1, 3), "reduction": 8, "gate_bias": True}
    name = full_name("se_resnet20+squeeze=max", overrides)
    assert name == "se_resnet20+gate_bias=true+reduction=8+squeeze=max+stages=1,3"
    assert split_name(name)[1] == overrides | {"squeeze": "max"}


def test_other_images_are_noticed_behind_links_and_whatever_the_clock_said(tmp_path):
    first, second = (save_shapes(tmp_path / f"{k}.npz", 20, 10, seed=k) for k in (0, 1))
    source, about = tmp_path / "own.npz", data_fields(load_data(first))
    source.symlink_to(first)
    run = make_run(tmp_path, "resnet20", 0, 0.5, data=str(source), **about)
    assert runs_on_other_images([run.path], str(source)) == []
    source.unlink()
    source.symlink_to(second)  # written before the run
    assert runs_on_other_images([run.path], str(source)) == [run]
    ahead = time.time() + 3600
    shutil.copy(second, first)
    os.utime(run.path / RECORD, (ahead, ahead))
    assert runs_on_other_images([run.path], first) == [run]


def test_other_pictures_in_a_linked_folder_are_noticed(tmp_path):
    pictures = [tmp_path / "real" / name / "a.png" for name in ("cat", "dog")]
    for shade, path in enumerate(pictures):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), (shade, 0, 0)).save(path)
    (tmp_path / "own").mkdir()
    for split in ("train", "test"):
        (tmp_path / "own" / split).symlink_to(tmp_path / "real")
    source = str(tmp_path / "own")
    run = make_run(tmp_path, "resnet20", 0, 0.5, data=source, **data_fields(load_data(source)))
    assert runs_on_other_images([run.path], source) == []
    time.sleep(0.05)
    Image.new("RGB", (32, 32), (9, 9, 9)).save(pictures[0])
    assert runs_on_other_images([run.path], source) == [run]


def test_weights_of_every_type_have_a_digest():
    values = torch.ones(3, dtype=torch.bfloat16), torch.ones(()), torch.ones(2, dtype=torch.bool)
    digests = {_digest({}, {"x": value}) for value in (*values, torch.zeros(()))}
    assert len(digests) == 4
    plain = hashlib.sha256(b"{}x torch.float32 [2]" + np.float32([1, 2]).tobytes())
    assert _digest({}, {"x": torch.tensor([1.0, 2.0])}) == plain.hexdigest()


def test_a_layer_that_a_network_uses_twice_is_saved_in_both_places(tmp_path):
    network = create_model("resnet20", 4)
    network.stages[0][1].conv1 = network.stages[0][0].conv1
    spec = NetSpec(
        model="resnet20",
        overrides={},
        classes=("a", "b", "c", "d"),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
    )
    save_weights(tmp_path / "weights.safetensors", network, spec)
    found, _ = load_network(tmp_path / "weights.safetensors")
    ours, theirs = network.state_dict(), found.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
