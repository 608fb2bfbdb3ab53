"""Run records: whole or not there, and the table of runs."""

import json
from pathlib import Path

import pytest

from senet_lib.errors import RecordError, UnknownNameError
from senet_lib.recipe import Recipe
from senet_lib.runs.records import (
    RunRecord,
    anchored,
    find_runs,
    list_runs,
    load_run,
    save_history,
    save_record,
)

FIELDS = {
    "status": "finished", "study": "s", "protocol": "p", "model": "resnet20", "overrides": {},
    "seed": 0, "recipe": {"epochs": 1}, "device": "cpu", "precision": "fp32",
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
    assert load_run(record.path) == record
    assert load_run(record.path / "record.json") == record
    assert load_run(str(record.path)).path == record.path


def test_what_is_no_record_is_refused(tmp_path):
    with pytest.raises(RecordError, match="holds no run"):
        load_run(tmp_path)
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(RecordError, match="unfinished"):
        load_run(tmp_path)
    (tmp_path / "record.json").write_text("{", encoding="utf-8")
    with pytest.raises(RecordError, match="not readable JSON"):
        load_run(tmp_path)
    part = {k: v for k, v in FIELDS.items() if k != "test_error"}
    (tmp_path / "record.json").write_text(json.dumps(part), encoding="utf-8")
    with pytest.raises(RecordError, match="lacks test_error"):
        load_run(tmp_path)


def test_missing_companions_are_named(tmp_path):
    record = write(tmp_path)
    with pytest.raises(RecordError, match=r"no test_logits\.npz"):
        record.test_logits()
    with pytest.raises(RecordError, match=r"no weights\.safetensors"):
        record.load_model()


def test_history_is_a_table(tmp_path):
    record = write(tmp_path)
    save_history(record.path, [{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": 0.01}])
    assert record.history.to_dict("list") == {"epoch": [1, 2], "lr": [0.1, 0.01]}


def test_the_table_shows_every_state(tmp_path):
    for seed in (0, 2, 10):
        write(tmp_path, seed)
    for seed, mark in ((11, "checkpoint.pt"), (12, "failed.json")):
        (tmp_path / "s" / "resnet20" / f"seed{seed}").mkdir()
        (tmp_path / "s" / "resnet20" / f"seed{seed}" / mark).touch()
    (tmp_path / "s" / "resnet20" / "seed13").mkdir()
    (tmp_path / "s" / "resnet20" / "seed13" / "record.json").write_text("{}", encoding="utf-8")
    runs = list_runs(tmp_path)
    assert list(runs.seed) == [0, 2, 10, 11, 12, 13]
    assert list(runs.status) == ["finished"] * 3 + ["unfinished", "failed", "unreadable"]
    assert list(list_runs(tmp_path, status="finished", seed=2).path) == [
        str(find_runs(tmp_path)[1])
    ]
    with pytest.raises(UnknownNameError, match="did you mean model"):
        list_runs(tmp_path, modl="resnet20")


def test_an_empty_root_is_an_empty_table(tmp_path):
    assert list_runs(tmp_path / "none").empty


def test_the_default_folders_are_those_of_the_clone(tmp_path, monkeypatch):
    """A kernel starts in notebooks/; its runs belong beside those of the workflow."""
    for folder in ("senet_lib", "notebooks/deeper"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "Snakefile").touch()
    write(tmp_path / "outputs" / "runs")
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
