"""What is published says what it is: records, logits, weights and the README's table agree."""

import json
import runpy
from pathlib import Path

import pytest

from senet_lib.runs.published import MAX_WEIGHTS_BYTES
from senet_lib.runs.records import find_runs, load_run
from senet_lib.runs.weights import WEIGHTS, load_network

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "outputs" / "published"
FOLDERS = find_runs(PUBLISHED / "runs")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: "-".join(f.parts[-3:]))
def test_a_published_run_is_whole_and_its_logits_give_its_error(folder):
    record = load_run(folder)
    assert (record.study, record.model, f"seed{record.seed}") == folder.parts[-3:]
    logits, labels = record.test_logits()
    wrong = (logits.argmax(1) != labels).mean()
    # Records without checksums are older, and their logits in half precision, which makes ties.
    few = 0 if record.files else max(5e-4, 2.5 / len(labels))
    assert wrong == pytest.approx(record.test_error, abs=few, rel=0)
    assert len(record.history) == record.recipe["epochs"]
    assert record.history.test_error.iloc[-1] == record.test_error
    if (folder / WEIGHTS).is_file():
        assert (folder / WEIGHTS).stat().st_size <= MAX_WEIGHTS_BYTES
        model, spec = load_network(folder / WEIGHTS)
        assert spec.model == record.model
        assert spec.half_precision
        assert (record.weights_error is None) == (not record.files)
        assert all(p.isfinite().all() for p in model.parameters())


def test_the_readmes_table_is_that_of_the_published_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    runs = [load_run(folder) for folder in find_runs(PUBLISHED / "runs" / "laptop")]
    if not runs:
        pytest.skip("no run of laptop is published here")
    table = runpy.run_path(str(ROOT / "docs" / "picture.py"))["table"]
    assert table(runs) in readme


def test_the_published_reports_stand_beside_their_runs():
    studies = {folder.parts[-3] for folder in FOLDERS}
    assert studies
    assert all((PUBLISHED / "reports" / name / "index.html").is_file() for name in studies)


def test_the_speeds_that_are_told_are_those_last_measured():
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    newest = max((ROOT / "benchmarks" / "results").glob("train_speed-*-cpu.json"))
    results = json.loads(newest.read_text(encoding="utf-8"))["results"]
    ratios = {result["model"]: f"{result['ratio']:.1f}" for result in results}
    text = " ".join(page.split())
    assert f"{ratios['se_res2net29']} times as fast for `se_res2net29`" in text
    assert f"{ratios['se_resnet18']} for `se_resnet18`" in text
    assert f"{ratios['resnet56']} for `resnet56`" in text
