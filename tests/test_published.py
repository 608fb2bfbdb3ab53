"""What is published says what it is: records, logits, weights and the README's table agree."""

import math
import re
import runpy
import statistics
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

import senet_lib
from senet_lib.analysis.scores import read_scores
from senet_lib.files import read_json
from senet_lib.recipe import load_study
from senet_lib.runs.published import MAX_WEIGHTS_BYTES
from senet_lib.runs.records import find_runs, load_run
from senet_lib.runs.weights import WEIGHTS, load_network

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "outputs" / "published"
FOLDERS = find_runs(PUBLISHED / "runs")
assert FOLDERS  # else nothing below would be asked


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: "-".join(f.parts[-3:]))
def test_a_published_run_is_whole_and_its_logits_give_its_error(folder):
    record = load_run(folder)
    assert (record.study, record.model, f"seed{record.seed}") == folder.parts[-3:]
    logits, labels = record.test_logits()
    assert (logits.argmax(1) != labels).mean() == record.test_error
    assert len(record.history) == record.recipe["epochs"]
    assert record.history.test_error.iloc[-1] == record.test_error
    if (folder / WEIGHTS).is_file():
        assert (folder / WEIGHTS).stat().st_size <= MAX_WEIGHTS_BYTES
        model, spec = load_network(folder / WEIGHTS)
        assert spec.model == record.model
        assert spec.half_precision
        assert record.weights_error is not None
        assert all(p.isfinite().all() for p in model.parameters())
        assert sum(p.numel() for p in model.parameters()) == record.num_params
        kept = senet_lib.load_pretrained(record.model, seed=record.seed, study=record.study)
        assert all(value.equal(kept.state_dict()[k]) for k, value in model.state_dict().items())
        assert kept(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_published_scores_of_maps_and_summaries_of_gates_read():
    folders = sorted({path.parent for path in PUBLISHED.glob("reports/*/localisation-seed*.json")})
    assert folders
    for folder in folders:
        scores = read_scores(folder)
        assert len(scores.right) == len([*folder.glob("localisation-seed*.json")])
        found = scores.frame[scores.frame["metric"] == "iou_at_area"]["score"]
        assert len(found)
        assert found.between(0, 1).all()
    gates = sorted(PUBLISHED.glob("reports/*/gates-*.json"))
    assert gates
    for path in gates:
        found = read_json(path, ("model", "seed", "images", "layers", "error", "fixed_error"))
        assert found["model"] in path.name
        assert 0 <= found["error"] <= 1


def test_the_readmes_results_are_those_of_the_published_runs():
    runs = [load_run(folder) for folder in find_runs(PUBLISHED / "runs" / "laptop")]
    assert runs
    results = runpy.run_path(str(ROOT / "docs" / "results.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert results["table"](runs) in readme
    seeds = load_study(ROOT / "configs" / "laptop.yaml").seeds
    readme = readme.replace("\n", " ")
    assert results["answer"](runs, seeds) in readme
    short = [load_run(folder) for folder in find_runs(PUBLISHED / "runs" / "ablation")]
    assert results["settings"](short) in readme


def test_the_published_reports_stand_beside_their_runs_and_name_no_path_of_one_machine():
    studies = {folder.parts[-3] for folder in FOLDERS}
    assert all((PUBLISHED / "reports" / name / "index.html").is_file() for name in studies)
    absolute = re.compile(r"\b(?:runs_root|page_folder)=/")
    pages = sorted((PUBLISHED / "reports").rglob("*.html"))
    assert not [page for page in pages if absolute.search(page.read_text(encoding="utf-8"))]


def test_the_speeds_that_are_told_are_those_measured():
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    measured = sorted((ROOT / "benchmarks" / "results").glob("train_speed-*-cpu*.json"))
    assert measured
    for path in measured:
        ratios = {one["model"]: f"{one['ratio']:.1f}" for one in read_json(path)["results"]}
        names = ("se_res2net29", "se_resnet18", "resnet56")
        assert f" | {' | '.join(ratios[name] for name in names)} |" in text
    timed = sorted((ROOT / "benchmarks" / "results").glob("time_to_accuracy-*.json"))
    assert timed
    for path in timed:
        runs, threads = read_json(path)["runs"], read_json(path)["arguments"]["threads"]
        passed = [statistics.median(run["minutes"][mark] or math.inf for run in runs)
                  for mark in ("0.9", "0.92", "0.94")]  # fmt: skip
        passed += [statistics.median(run["total_minutes"] for run in runs)]
        cells = [str(threads), str(len(runs)), *(f"{m:.1f}".replace("inf", "–") for m in passed)]
        for split in ("val", "test"):
            shares = (statistics.mean(run[split][k] for run in runs) for k in (0, 1))
            cells.append(", ".join(f"{100 * share:.1f}" for share in shares))
        assert f" | {' | '.join(cells)} |" in text
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        said = re.search(
            r"after (\d+) minutes of one core.*, and on ([\d.]+) % after (\d+)", readme
        )
        views = statistics.mean(run["val"][1] for run in runs)
        assert said.groups() == (f"{passed[0]:.0f}", f"{100 * views:.1f}", f"{passed[-1]:.0f}")
    newest = read_json(max((ROOT / "benchmarks" / "results").glob("study_minutes-*.json")))
    for notebook, parts in newest["seconds"].items():
        cells = [f"{seconds:.0f}" if seconds else "–" for seconds in parts.values()]
        assert f"| {notebook} | {' | '.join(cells)} |" in text


@pytest.mark.parametrize("study", sorted({folder.parts[-3] for folder in FOLDERS}))
def test_a_published_report_is_that_of_the_published_runs(study):
    settings = load_study(ROOT / "configs" / f"{study}.yaml")
    runs = [load_run(folder) for folder in FOLDERS if folder.parts[-3] == study]
    assert {run.recipe_id for run in runs} == {settings.recipe.id}
    asked = set(settings.runs)
    finished = len(asked & {(run.model, run.seed) for run in runs})
    page = (PUBLISHED / "reports" / study / "index.html").read_text(encoding="utf-8")
    assert finished == len(asked) or f"{finished} of {len(asked)} runs" in page
    shown = set(re.findall(r"runs/(\w+)/([^/\"]+)/seed(\d+)/record.json", unquote(page)))
    assert shown == {(study, run.model, str(run.seed)) for run in runs}
