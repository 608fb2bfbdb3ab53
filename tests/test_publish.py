"""Publishing: what is kept of a run, and that it still says the same."""

import re

import numpy as np
import pytest
import torch
from fake_runs import make_run
from test_records import FIELDS

from senet_lib.data.datasets import load_data
from senet_lib.errors import RecordError, SenetError
from senet_lib.evaluation import predict
from senet_lib.models import create_model
from senet_lib.report import publish
from senet_lib.report.publish import publish_report, publish_study
from senet_lib.runs.records import RunRecord, load_run, save_history, save_logits, save_record
from senet_lib.runs.weights import NetSpec, load_network, save_weights

IMAGES = ("x_train", "y_train", "x_test", "y_test")


@pytest.fixture
def study(tmp_path, shapes):
    """A study of one small and one large network, never trained."""
    rng = np.random.default_rng(0)
    path = tmp_path / "few.npz"
    np.savez(path, **{name: getattr(shapes, name)[:60] for name in IMAGES})
    data = {"data": str(path), "data_fingerprint": load_data(str(path)).fingerprint}
    fields = {**FIELDS, **data, "classes": list("abcdefghij"), "mean": [0.5] * 3, "std": [0.2] * 3}
    for name in ("se_resnet20", "resnet18"):
        folder = tmp_path / "runs" / "mini" / name / "seed0"
        folder.mkdir(parents=True)
        model = create_model(name)
        spec = NetSpec(
            model=name, overrides={}, classes=tuple("abcdefghij"), mean=(0.5,) * 3, std=(0.2,) * 3
        )
        save_weights(folder / "weights.safetensors", model, spec)
        save_history(folder, [{"epoch": e, "test_error": 0.25} for e in (1, 2)])
        save_logits(folder, rng.normal(size=(12, 10)).astype(np.float32), np.arange(12) % 10)
        (folder / "train.ipynb").write_text("{}", encoding="utf-8")
        num_params = sum(p.numel() for p in model.parameters())
        save_record(RunRecord(path=folder, **{**fields, "model": name, "num_params": num_params}))
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
    origin = study / "runs" / "mini" / "se_resnet20" / "seed0"
    assert load_run(small) == load_run(origin)
    logits, labels = load_run(small).test_logits()
    wanted, wanted_labels = load_run(origin).test_logits()
    assert labels.tolist() == wanted_labels.tolist()
    assert logits.tolist() == wanted.tolist()
    model, spec = load_network(small)
    origin_model, origin_spec = load_network(origin)
    assert (spec.half_precision, origin_spec.half_precision) == (True, False)
    x = torch.randn(2, 3, 32, 32)
    assert next(model.parameters()).dtype == torch.float32
    torch.testing.assert_close(model(x), origin_model(x), rtol=0.05, atol=0.05)


def test_a_published_record_says_what_error_its_rounded_weights_make(study):
    large, small = publish_study("mini", study / "runs", study / "published")
    data, run = load_data(load_run(small).data), load_run(small)
    logits = predict(load_network(small)[0], data.x_test, run.mean, run.std)
    assert run.weights_error == (logits.argmax(1).numpy() != data.y_test).mean()
    assert load_run(large).weights_error is None
    np.savez(study / "few.npz", **{name: getattr(data, name)[1:] for name in IMAGES})
    with pytest.raises(RecordError, match="no longer what"):
        publish_study("mini", study / "runs", study / "published")


def test_weights_and_notebook_of_chosen_runs_alone_are_kept(study):
    publish_study("mini", study / "runs", study / "published")
    copies = publish_study("mini", study / "runs", study / "published", ["resnet18/*", "*/seed1"])
    small = {path.name for path in copies[1].iterdir()}  # published whole before
    assert small == {"record.json", "history.csv", "test_logits.npz"}
    assert (copies[0] / "train.ipynb").is_file()


def test_publishing_again_replaces_what_was_there(study):
    (copy, _) = publish_study("mini", study / "runs", study / "published")
    (copy / "record.json").write_text("{", encoding="utf-8")
    publish_study("mini", study / "runs", study / "published")
    assert load_run(copy).model == "resnet18"


def test_what_cannot_be_published_is_refused_before_anything_is_touched(study):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    with pytest.raises(RecordError, match="no finished run"):
        publish_study("none", study / "runs", study / "published")
    (study / "again").symlink_to(study)
    for root, target in (("runs", "."), ("again/runs", "."), ("runs", "again")):
        with pytest.raises(SenetError):  # onto itself
            publish_study("mini", study / root, study / target)
    (study / "again").unlink()
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


def test_links_of_the_published_report_lead_to_the_published_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_error_of", lambda weights, record: 0.4)
    for name in ("resnet20", "se_resnet20"):
        run = make_run(tmp_path / "runs", name, 0, 0.4)
        spec = NetSpec(
            model=name, overrides={}, classes=tuple("abcd"), mean=(0.5,) * 3, std=(0.2,) * 3
        )
        save_weights(run.path / "weights.safetensors", spec.build(), spec)
        (run.path / "train.ipynb").write_text("{}", encoding="utf-8")
    target = tmp_path / "published"
    made = tmp_path / "made" / "demo"
    (made / "gallery-resnet20-seed0").mkdir(parents=True)
    run_page, record = (
        "../../runs/demo/resnet20/seed0/train.html",
        "../../runs/demo/resnet20/seed0/record.json",
    )
    (made / "gradcam-seed0.html").write_text(
        f'<p><a href="{run_page}">the page</a> and <a href="{record}">the record</a> and '
        '<a href="gallery-resnet20-seed0/index.html">open</a></p>'
    )
    (made / "gradcam-seed0.ipynb").write_text("{}")
    (made / "localisation-seed0.partial.ipynb").write_text("{}")
    (made / "gallery-resnet20-seed0" / "index.html").write_text("<p>maps</p>")
    monkeypatch.setattr(publish, "REPORTS", tmp_path / "made")
    publish_study("demo", tmp_path / "runs", target)
    page = publish_report("demo", target=target)
    # What is copied is there, and its links to what is not published are no links any more.
    copied = page.with_name("gradcam-seed0.html").read_text()
    assert copied == (
        f'<p>the page and <a href="{record}">the record</a> and '
        '<a href="gallery-resnet20-seed0/index.html">open</a></p>'
    )
    assert not page.with_name("gradcam-seed0.ipynb").exists()
    assert page == target / "reports" / "demo" / "index.html"
    links = re.findall(r'href="([^"#:]+)"', page.read_text(encoding="utf-8"))
    assert "../../runs/demo/se_resnet20/seed0/train.ipynb" in links
    assert [link for link in links if not (page.parent / link).exists()] == []
