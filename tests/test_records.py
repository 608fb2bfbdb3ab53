"""Run records: whole or not there, and the table of runs."""

import json
import shutil
from pathlib import Path

import pytest
from fake_runs import make_run

from senet_lib.errors import RecordError, UnknownNameError
from senet_lib.recipe import Recipe
from senet_lib.runs.records import (
    RunRecord,
    _digest,
    anchored,
    list_runs,
    load_run,
    save_history,
    save_record,
)
from senet_lib.runs.weights import NetSpec, save_weights

FIELDS = {
    "status": "finished", "study": "s", "protocol": "p", "model": "resnet20", "overrides": {},
    "seed": 0, "recipe": Recipe(epochs=2).to_dict(), "device": "cpu", "precision": "fp32",
    "compile": False, "threads": 1, "evaluated_on": "test", "num_val": 0, "test_error": 0.25,
    "test_loss": 0.9, "train_loss": 1.0, "num_params": 3, "macs": 4, "images_per_second": 5.0,
    "wall_seconds": 6.0, "peak_memory_mib": 7.0, "data": "shapes", "classes": ["a", "b"],
    "mean": [0.5], "std": [0.25], "data_fingerprint": "f", "git_commit": None, "git_dirty": None,
    "versions": {}, "hardware": {}, "started": "t", "finished": "u",
}  # fmt: skip


def write(root, seed=0, **changes):
    folder = root / "s" / "resnet20" / f"seed{seed}"
    folder.mkdir(parents=True)
    record = RunRecord(path=folder, **{**FIELDS, "seed": seed, **changes})
    save_record(record)
    return record


def test_a_record_survives_the_disk(tmp_path):
    record = write(tmp_path)
    assert load_run(record.path) == load_run(record.path / "record.json") == record
    assert load_run(str(record.path)).path == record.path
    with pytest.raises(RecordError, match=r"no test_logits\.npz"):
        record.test_logits()
    with pytest.raises(RecordError, match=r"no weights\.safetensors"):
        record.load_model()
    save_history(record.path, [{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": 0.01}])
    assert record.history.to_dict("list") == {"epoch": [1, 2], "lr": [0.1, 0.01]}


def test_what_is_no_record_is_refused(tmp_path):
    part = {k: v for k, v in FIELDS.items() if k != "test_error"}
    for name, text, message in (
        ("history.csv", "", "holds no run"),
        ("checkpoint.pt", "", "unfinished"),
        ("record.json", "{", "not readable JSON"),
        ("record.json", json.dumps(part), "lacks test_error"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(RecordError, match=message):
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
    with pytest.raises(UnknownNameError, match="did you mean model"):
        list_runs(tmp_path, modl="resnet20")


DAMAGE = {
    "a wrong type": {"model": 3},
    "a null recipe": {"recipe": None},
    "an unknown key": {"recipe": {**Recipe(epochs=2).to_dict(), "epoch": 2}},
    "a key that is missing": {"recipe": {"epochs": 2}},
    "an error as text": {"test_error": "0.25"},
    "an error that is no number": {"test_error": float("nan")},
    "an error above 1": {"test_error": 7.0},
    "an error below 0": {"test_error": -0.1},
    "a truth value for a number": {"macs": True},
    "a seed that is too large": {"seed": 2**70},
    "a class that is no name": {"classes": ["a", 1]},
    "another status": {"status": "running"},
    "a deviation of 0": {"std": [0.0]},
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("known", [True, False], ids=["with", "without"])
def test_a_record_with_a_wrong_value_is_named_and_costs_nothing_else(tmp_path, change, known):
    """Whether the checksum fits, as when a tool of one's own wrote it, or there is none."""
    make_run(tmp_path, "resnet20", 0, 0.4, study="s")
    path = make_run(tmp_path, "resnet20", 1, 0.4, study="s").path / "record.json"
    fields = json.loads(path.read_text(encoding="utf-8")) | change
    fields = {k: v for k, v in fields.items() if k not in ("files", "sha256")}
    fields |= {"files": {}, "sha256": _digest({**fields, "files": {}})} if known else {}
    path.write_text(json.dumps(fields), encoding="utf-8")
    (name,) = change
    with pytest.raises(RecordError, match=name):
        load_run(path)
    runs = list_runs(tmp_path)
    assert list(runs.status) == ["finished", "damaged"]
    assert name in runs.problem[1]


def test_files_of_records_without_checksums_are_looked_at_too(tmp_path):
    for name, harm in (
        ("history.csv", lambda data: data[: len(data) // 2]),
        ("history.csv", lambda data: data.replace(b"0.05", b"fast")),
        ("history.csv", lambda data: b""),
        ("test_logits.npz", lambda data: data[: len(data) // 2]),
        ("test_logits.npz", lambda data: b""),
    ):
        run = make_run(tmp_path, "resnet20", 0, 0.4)
        path = run.path / "record.json"
        fields = json.loads(path.read_text(encoding="utf-8"))
        del fields["files"], fields["sha256"]
        path.write_text(json.dumps(fields), encoding="utf-8")
        load_run(path).verify()
        (run.path / name).write_bytes(harm((run.path / name).read_bytes()))
        with pytest.raises(RecordError, match=name):
            load_run(path).verify()
        shutil.rmtree(run.path)


def test_the_default_folders_are_those_of_the_clone(tmp_path, monkeypatch):
    """A kernel starts in notebooks/; its runs belong beside those of the workflow."""
    for folder in ("senet_lib", "notebooks/deeper"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "Snakefile").touch()
    make_run(tmp_path / "outputs" / "runs", "resnet20", 0, 0.4)
    monkeypatch.chdir(tmp_path)
    assert anchored("outputs/runs") == Path("outputs/runs")
    monkeypatch.chdir(tmp_path / "notebooks" / "deeper")
    assert anchored("outputs/runs") == Path("../../outputs/runs")
    assert anchored(tmp_path / "x") == tmp_path / "x"
    assert len(list_runs()) == 1
    monkeypatch.chdir(tmp_path.parent)
    assert anchored("outputs/runs") == Path("outputs/runs")
    assert list_runs().empty


def test_a_record_from_before_a_field_was_added_has_the_same_recipe(tmp_path):
    old, new = Recipe(epochs=1).to_dict(), Recipe(epochs=1)
    del old["train_images"]
    record = write(tmp_path, recipe=old)
    assert load_run(record.path).recipe_id == new.id
    assert write(tmp_path, 1, recipe=Recipe(epochs=1, train_images=9).to_dict()).recipe_id != new.id


def test_a_changed_byte_in_any_file_of_a_run_is_noticed(tmp_path):
    record = make_run(tmp_path, "resnet20", 0, 0.4)
    spec = NetSpec(model="resnet20", overrides={}, classes=tuple("abcd"), mean=(0.5,), std=(0.2,))
    save_weights(record.path / "weights.safetensors", spec.build(), spec)
    save_record(record)
    readers = {
        "history.csv": lambda run: run.history,
        "test_logits.npz": lambda run: run.test_logits(),
        "weights.safetensors": lambda run: run.load_model(),
    }
    assert set(load_run(record.path).files) == set(readers)
    for name, read in readers.items():
        path = record.path / name
        whole = path.read_bytes()
        read(load_run(record.path))
        for at in range(0, len(whole), len(whole) // 7):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(RecordError, match=name):
                read(load_run(record.path))
        path.write_bytes(whole)


def test_a_record_that_was_changed_is_refused(tmp_path):
    path = make_run(tmp_path, "resnet20", 0, 0.4).path / "record.json"
    text = path.read_text(encoding="utf-8")
    fields = json.loads(text)
    for change in ({"test_error": 0.3}, {"sha256": "0" * 64}, {"files": {}}):
        path.write_text(json.dumps(fields | change), encoding="utf-8")
        with pytest.raises(RecordError, match="checksum"):
            load_run(path)
    path.write_text(text.replace('"sha256"', '"sha257"'), encoding="utf-8")
    with pytest.raises(RecordError, match="checksum"):
        load_run(path)
    path.write_text(json.dumps(fields, sort_keys=True), encoding="utf-8")  # another layout
    assert load_run(path).test_error == 0.4
    old = {k: v for k, v in fields.items() if k not in ("files", "sha256", "weights_error")}
    path.write_text(json.dumps(old), encoding="utf-8")
    assert load_run(path).files == {}
