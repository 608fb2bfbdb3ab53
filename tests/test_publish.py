"""Publishing: what is kept of a run, and that it still says the same."""

import json
import os
import re
import shutil
import socket

import numpy as np
import pytest
import torch
from fake_runs import make_run, save_network, settings

from senet_lib.data.datasets import load_data
from senet_lib.errors import DataError, RecordError, SenetError
from senet_lib.evaluation import predict, probabilities
from senet_lib.files import read_json, replacing_folder, write_json
from senet_lib.models import create_model
from senet_lib.report import publish
from senet_lib.report.publish import _rounded, publish_report, publish_study
from senet_lib.runs.records import load_run, save_logits
from senet_lib.runs.weights import load_network

IMAGES = ("x_train", "y_train", "x_test", "y_test")


@pytest.fixture
def study(tmp_path, shapes):
    """A study of one small and one large network, never trained."""
    path = tmp_path / "few.npz"
    np.savez(path, **{name: getattr(shapes, name)[:60] for name in IMAGES})
    data = {"data": str(path), "data_fingerprint": load_data(str(path)).fingerprint}
    about = {**data, "classes": list("abcdefghij"), "mean": [0.5] * 3, "std": [0.2] * 3}
    for name in ("se_resnet20", "resnet18"):
        model = create_model(name)
        size = {"num_params": sum(p.numel() for p in model.parameters())}
        run = make_run(tmp_path / "runs", name, 0, 0.25, study="mini", **about, **size)
        save_logits(run.path, np.eye(10, dtype=np.float32), np.arange(10))
        save_network(run, model)
        drawn = {"image/svg+xml": "<svg/>", "image/png": "x", "application/pdf": "y"}
        cells = [{"outputs": [{"data": drawn}, {"text": "é"}]}, {"source": "a"}]
        write_json(run.path / "train.ipynb", {"cells": cells})
    unfinished = tmp_path / "runs" / "mini" / "resnet20" / "seed0"
    unfinished.mkdir(parents=True)
    (unfinished / "checkpoint.pt").touch()
    return tmp_path


def test_the_weights_of_finished_runs_are_copied_in_half_precision(study):
    copies = publish_study("mini", study / "runs", study / "published")
    assert [copy.parent.name for copy in copies] == ["resnet18", "se_resnet20"]
    large, small = copies
    assert {path.name for path in small.iterdir()} == {
        "record.json", "history.csv", "test_logits.npz", "weights.safetensors", "train.ipynb",
    }  # fmt: skip
    assert not (large / "weights.safetensors").exists()
    origin, run = load_run(study / "runs" / "mini" / "se_resnet20" / "seed0"), load_run(small)
    assert run == origin
    figures, printed = read_json(small / "train.ipynb")["cells"][0]["outputs"]
    assert (figures, printed) == ({"data": {"image/png": "x"}}, {"text": "é"})
    (logits, labels), (kept, kept_labels) = origin.test_logits(), run.test_logits()
    assert np.array_equal(labels, kept_labels)
    assert np.array_equal(logits.argmax(1), kept.argmax(1))
    below = logits - logits.max(1, keepdims=True)
    np.testing.assert_allclose(kept, below, rtol=2**-5, atol=1e-4)
    model, spec = load_network(small)
    origin_model, origin_spec = load_network(origin.path)
    assert (spec.half_precision, origin_spec.half_precision) == (True, False)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), origin_model(x), rtol=0.05, atol=0.05)
    # The record says what error the rounded weights make.
    data = load_data(run.data)
    logits = predict(model, data.x_test, run.mean, run.std)
    assert run.weights_error == (logits.argmax(1).numpy() != data.y_test).mean()
    assert load_run(large).weights_error is None
    np.savez(study / "few.npz", **{name: getattr(data, name)[1:] for name in IMAGES})
    with pytest.raises(DataError, match="was changed"):
        publish_study("mini", study / "runs", study / "published")


def test_of_rounded_logits_the_highest_is_still_the_highest():
    step = np.float32(2**-12)
    logits = np.float32([[1, 1 + step], [-1, -1 + step], [1 + step, 1], [0, -3], [2, 2]])
    kept = _rounded(logits)
    assert kept.dtype == np.float16
    assert kept.argmax(1).tolist() == [1, 1, 0, 0, 0]
    least = np.float32([[1, np.nextafter(np.float32(1), np.float32(2))]])
    assert _rounded(least).argmax() == 1
    assert _rounded(np.float32([[5, 4.03, -7]])).tolist() == [[0, -0.96875, -12]]
    assert _rounded(np.float32([[5, 2.9, -8.4]])).tolist() == [[0, -2.125, -13.5]]
    assert _rounded(np.float32([[9e4, -9e4]])).tolist() == [[0, -65504]]
    broken = np.float32([[np.nan, 1]])
    assert _rounded(broken) is broken


def test_rounded_logits_move_no_probability_far():
    logits = np.random.default_rng(0).normal(0, 4, (2000, 10)).astype(np.float32)
    kept = _rounded(logits)
    moved = np.abs(probabilities(kept) - probabilities(logits))
    assert moved.max() < 0.02
    assert moved.mean() < 0.001
    assert np.array_equal(_rounded(kept), kept)


def test_publishing_again_replaces_what_was_there_and_keeps_weights_of_chosen_runs(study, capsys):
    (copy, _) = publish_study("mini", study / "runs", study / "published")
    (copy / "record.json").write_text("{", encoding="utf-8")
    copies = publish_study("mini", study / "runs", study / "published", ["resnet18/*"])
    assert load_run(copy).model == "resnet18"
    small = {path.name for path in copies[1].iterdir()}  # published whole before
    assert small == {"record.json", "history.csv", "test_logits.npz"}
    assert (copies[0] / "train.ipynb").is_file()
    assert "published and not in" not in capsys.readouterr().err
    withdrawn = shutil.copytree(copies[1], copies[1].with_name("seed7"))
    publish_study("mini", study / "runs", study / "published", ["resnet18/*"])
    assert f"{withdrawn} is published and not in" in capsys.readouterr().err


def test_what_cannot_be_published_is_refused_before_anything_is_touched(study):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    with pytest.raises(RecordError, match="no finished run"):
        publish_study("none", study / "runs", study / "published")
    with pytest.raises(RecordError, match=r"\*/sed0; they are as resnet18/seed0"):
        publish_study("mini", study / "runs", study / "published", ["resnet18/*", "*/sed0"])
    (study / "again").symlink_to(study)
    for root, target in (("runs", "."), ("again/runs", "."), ("runs", "again")):
        with pytest.raises(SenetError):  # onto itself
            publish_study("mini", study / root, study / target)
    (study / "again").unlink()
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


def test_folders_are_seen_from_the_top_of_the_clone(study, monkeypatch):
    (study / "senet_lib").mkdir()
    (study / "Snakefile").touch()
    (study / "notebooks").mkdir()
    monkeypatch.chdir(study / "notebooks")
    copies = publish_study("mini", "runs")
    there = study / "outputs" / "published" / "runs" / "mini"
    assert [copy.resolve().parent.parent for copy in copies] == [there, there]


def test_the_config_of_another_study_is_refused_before_anything_is_copied(study, says):
    config = study / "demo.yaml"
    config.write_text(json.dumps(settings()))
    words = ["publish", "mini", "--config", str(config), "--root", str(study / "runs")]
    says([*words, "--target", study / "published"], "of study demo, not mini")
    assert not (study / "published").exists()


@pytest.mark.slow
def test_links_of_the_published_report_lead_to_the_published_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_error_of", lambda weights, record: 0.4)
    for name in ("resnet20", "se_resnet20"):
        run = make_run(tmp_path / "runs", name, 3, 0.4, mean=[0.5] * 3, std=[0.2] * 3)
        save_network(run, create_model(name, num_classes=4))
        (run.path / "train.ipynb").write_text("{}", encoding="utf-8")
    target, made = tmp_path / "published", tmp_path / "reports" / "demo"
    (made / "gallery-resnet20-seed3").mkdir(parents=True)
    run_folder = "../../runs/demo/resnet20/seed3"
    kept = (
        f'<a href="{run_folder}/record.json">the record</a> and '
        '<a href="gallery-resnet20-seed3/index.html">open</a></p>'
    )
    text = f'<p><a href="{run_folder}/train.html">the page</a> and {kept}'
    (made / "gradcam-seed3.html").write_text(text)
    (made / "gradcam-seed10.html").write_text("of a later seed")
    (made / "gradcam-seed3.ipynb").write_text("{}")
    (made / "gallery-resnet20-seed3" / "index.html").write_text("<p>maps</p>")
    publish_study("demo", tmp_path / "runs", target)
    page = publish_report("demo", target=target, root=tmp_path / "runs")
    # What is copied is there, and its links to what is not published are no links any more.
    assert page.with_name("gradcam-seed3.html").read_text() == f"<p>the page and {kept}"
    assert [path.name for path in page.parent.glob("gradcam*")] == ["gradcam-seed3.html"]
    assert page == target / "reports" / "demo" / "index.html"
    links = re.findall(r'href="([^"#:]+)"', page.read_text(encoding="utf-8"))
    assert "../../runs/demo/se_resnet20/seed3/train.ipynb" in links
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert "application/pdf" not in page.read_text(encoding="utf-8")


def test_an_axis_has_a_page_once_its_runs_can_be_compared(tmp_path, monkeypatch):
    made = []

    def execute(name, notebook, parameters, html):
        made.append((name, parameters.get("axis")))
        notebook.write_text("{}", encoding="utf-8")
        html.write_text("<p></p>", encoding="utf-8")
        return notebook

    monkeypatch.setattr("senet_lib.report.batch.execute", execute)
    models = ["resnet20", "se_resnet20", "se_resnet20+reduction=4"]
    for name in models:
        make_run(tmp_path / "published" / "runs", name, 0, 0.4)
    damaged = make_run(tmp_path / "published" / "runs", "resnet20", 1, 0.4)
    (damaged.path / "record.json").write_text("{", encoding="utf-8")  # left to the report to say
    config = tmp_path / "demo.yaml"
    config.write_text(json.dumps(settings(models=models, axes=["reduction", "gate"])))
    folder = tmp_path / "published" / "reports" / "demo"
    folder.mkdir(parents=True)
    (folder / "ablation-gate.html").write_text("of earlier runs", encoding="utf-8")
    publish_report("demo", str(config), tmp_path / "published")
    assert made == [("ablation", "reduction"), ("report", None)]
    assert {path.name for path in folder.iterdir()} == {"ablation-reduction.html", "index.html"}


def test_a_folder_behind_a_link_is_replaced_where_it_lies(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "study").symlink_to("disk")
    for text in ("one", "two"):
        with replacing_folder(tmp_path / "study") as partial:
            (partial / "new").write_text(text)
        assert (tmp_path / "disk" / "new").read_text() == text
        assert (tmp_path / "study").is_symlink()
        assert {path.name for path in tmp_path.iterdir()} == {"disk", "study"}


def test_of_temporary_copies_those_of_dead_processes_and_of_this_name_alone_are_removed(tmp_path):
    host, dead, living = socket.gethostname(), 2**22 + 1, os.getppid()
    left = [f".laptop.{host}.{dead}.partial", f".laptop.{host}.{dead}.old.partial"]
    left += [f".laptop.{host}.{os.getpid()}.old.partial"]  # of an earlier process of this number
    others = [f".laptop.{host}.{living}.partial", f".laptop.v2.{host}.{dead}.partial",
              f".laptop.{host}.v2.{host}.{dead}.partial", f".laptop.elsewhere.{dead}.partial",
              f".laptop.{host}.{'9' * 30}.partial"]  # fmt: skip
    for name in (*left, *others, "laptop"):
        (tmp_path / name / "inside").mkdir(parents=True)
    with replacing_folder(tmp_path / "laptop") as partial:
        (partial / "new").touch()
    assert {path.name for path in tmp_path.iterdir()} == {*others, "laptop"}
    assert (tmp_path / "laptop" / "new").is_file()
