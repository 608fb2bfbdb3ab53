"""The report: numbers by hand, runs that are missing, and a page that needs nothing but itself."""

import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from fake_runs import RECIPE, make_run, settings
from notebook_cells import run_cells

from senet_lib.analysis.scores import IOU_METRICS, SHARED
from senet_lib.cli import make_parser, train_settings
from senet_lib.errors import RecordError, UnknownNameError
from senet_lib.files import write_json
from senet_lib.recipe import Recipe, load_study
from senet_lib.report.batch import execute
from senet_lib.report.page import way_back
from senet_lib.report.table import Markup, Text, escape, folded, table
from senet_lib.runs.records import LOGITS, RECORD
from senet_lib.runs.study import collect, train_command

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"

# Which runs are compared


def test_every_run_that_is_not_compared_is_named_with_its_state_command_and_links(tmp_path):
    """Of a study of 2 models and 3 seeds one run is finished, and one of each way not to be."""
    root, config = tmp_path / "runs", str(tmp_path / "demo.yaml")
    make_run(root, "resnet20", 0, 0.5)
    make_run(root, "se_resnet20", 0, 0.4, recipe=Recipe(epochs=9, batch_size=32, lr=0.05))
    failed, unfinished = root / "demo/resnet20/seed1", root / "demo/se_resnet20/seed1"
    for folder in (failed, unfinished):
        folder.mkdir(parents=True)
    failure = {"error": "NonFiniteLossError", "message": "the <loss> is not finite", "cell": 3}
    (failed / "failed.json").write_text(json.dumps(failure))
    (failed / "train.partial.ipynb").write_text("{}")
    (unfinished / "checkpoint.pt").write_bytes(b"")
    unreadable = root / "demo/se_resnet20/seed2"
    unreadable.mkdir()
    (unreadable / "record.json").write_text('{"status": "finished"')
    logs = tmp_path / "logs/demo"
    logs.mkdir(parents=True)
    (logs / "resnet20-seed1.log").write_text("what was printed")
    Path(config).write_text(yaml.safe_dump(settings(seeds=[0, 1, 2])))

    rows = [
        {"model": model, "trial": "grid2", "metric": metric, "score": 0.5, "chance": 0.25,
         "cases": 4, "zero": 0}
        for metric in ("energy", *IOU_METRICS)
        for model in ("resnet20", "resnet44")  # of the latter there is no run
    ]  # fmt: skip
    scored = dict.fromkeys(SHARED, "") | {"seed": 0, "right": 200, "rows": rows}
    scored |= {"recipe_id": RECIPE.id, "fingerprint": "ab" * 32}
    write_json(tmp_path / "page/localisation-seed0.json", scored)
    seen = {"seed": 0, "images": 9, "layers": 9, "first": None, "last": None, "error": 0.1}
    seen |= {"model": "resnet20", "varying": 2, "fixed_error": 0.2}
    for number, (recipe, data) in enumerate(
        ((RECIPE.id, "ab" * 32), ("of another", "ab" * 32), (RECIPE.id, "cd" * 32))
    ):
        gates = seen | {"recipe_id": recipe, "data_fingerprint": data}
        write_json(tmp_path / f"page/gates-{number}.json", gates)
    options = {"study": "demo", "config": config, "runs_root": root}
    options |= {"page_folder": tmp_path / "page", "logs_root": tmp_path / "logs"}
    found = run_cells("report", **options)
    study = found["runs"]
    assert [(r.model, r.seed) for r in study.runs] == [("resnet20", 0)]
    assert {(p.model, *p.seeds, p.state) for p in study.problems} == {
        ("resnet20", 1, "failed"), ("resnet20", 2, "missing"), ("se_resnet20", 0, "set aside"),
        ("se_resnet20", 1, "unfinished"), ("se_resnet20", 2, "damaged"),
    }  # fmt: skip
    assert study.num_wanted == 6
    tables = [t.to_html() for t in found["outputs"] if hasattr(t, "caption")]
    assert found["vary"] == ["2 of 9"]  # not the gates of another recipe or of other images
    (html,) = (text for text in tables if "NonFiniteLossError" in text)
    for part in (
        "epochs 9, not 2", "the &lt;loss&gt; is not finite",
        'href="../runs/demo/resnet20/seed1/train.partial.ipynb"',
        'href="../logs/demo/resnet20-seed1.log"',
        f"senet train --config {config} --model resnet20 --seed 2",
    ):  # fmt: skip
        assert part in html
    assert len(found["falls"]) == 0  # no network whose IoU is claimed has maps


def test_of_ten_runs_nine_damaged_ones_are_named_and_the_tenth_is_right(tmp_path, prints):
    """In nine ways, with and without a fitting checksum."""
    seen = [make_run(tmp_path, "resnet20", s, 0.10 + s / 100).path for s in range(10)]
    changes = {"recipe": None}, {"test_error": "0.12"}, {"test_error": math.nan}
    changes += {"test_error": 7.0}, {"data_fingerprint": "cd" * 32}
    for folder, change in zip(seen[1:6], changes, strict=True):
        content = json.loads((folder / RECORD).read_text()) | change
        del content["sha256"], content["files"]
        (folder / RECORD).write_text(json.dumps(content))
    (seen[6] / LOGITS).write_bytes((seen[6] / LOGITS).read_bytes()[:-40])
    (seen[7] / "history.csv").unlink()
    (seen[8] / RECORD).write_text("{")
    logits = bytearray((seen[9] / LOGITS).read_bytes())
    logits[len(logits) // 2] ^= 1
    (seen[9] / LOGITS).write_bytes(logits)
    make_run(tmp_path / "other", "resnet20", 0, 0.5)
    shutil.copytree(tmp_path / "other/demo/resnet20/seed0", seen[0].with_name("seed0_old"))

    config = settings(models=["resnet20"], seeds=list(range(9)))
    config |= {"more_seeds": [9, 10], "more_seeds_of": ["resnet20"]}
    make_run(tmp_path, "resnet20", 10, 0.3)  # so that most runs have the same images
    study = collect(config=json.dumps(config), runs_root=tmp_path)
    assert {run.seed: run.test_error for run in study.runs} == {0: 0.10, 10: 0.3}
    reasons = {(*p.seeds, p.state): p.reason for p in study.problems}
    expected = {
        (1, "damaged"): "recipe", (2, "damaged"): "test_error", (3, "damaged"): "test_error",
        (4, "damaged"): "test_error", (5, "set aside"): "other images", (6, "damaged"): LOGITS,
        (7, "damaged"): "history.csv", (8, "damaged"): RECORD, (9, "damaged"): LOGITS,
        (0, "set aside"): str(seen[0]),  # the copy
    }  # fmt: skip
    assert reasons.keys() == expected.keys()
    assert all(words in reasons[key] for key, words in expected.items())

    said = prints("runs", "--root", tmp_path / "demo")
    assert all(f"seed{seed}" in said.partition("\n\n")[0] for seed in range(11))
    lines = [line for line in said.splitlines() if line.startswith(str(tmp_path))]
    assert len(lines) == 9  # eight that are damaged, and the copy


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": "cifar10"}, "cifar10"),
        ({"num_val": 50, "evaluated_on": "val"}, "50 held-out"),
        ({"overrides": {"reduction": 8}}, "reduction=8"),
    ],
)
def test_runs_of_other_data_splits_and_networks_are_set_aside(tmp_path, change, reason):
    make_run(tmp_path, "resnet20", 0, 0.5, **change)
    config = json.dumps(settings(seeds=list(range(99))))  # longer than a file's name may be
    study = collect(config=config, runs_root=tmp_path)
    assert not study.runs
    assert any(reason in p.reason for p in study.problems)


def test_a_run_outside_the_settings_is_set_aside_and_without_any_all_are_taken(tmp_path):
    make_run(tmp_path, "resnet32", 0, 0.5)
    study = collect(config=json.dumps(settings(models=["resnet20"], seeds=[0])), runs_root=tmp_path)
    problems = {(p.model, p.state, bool(p.command)) for p in study.problems}
    assert problems == {("resnet20", "missing", True), ("resnet32", "set aside", False)}
    (gone,) = collect(
        config=json.dumps(settings(models=["resnet44"])), runs_root=tmp_path
    ).problems[:-1]
    assert (gone.model, gone.seeds) == ("resnet44", tuple(settings()["seeds"]))
    assert "--seeds 0 1" in gone.command
    study = collect("demo", runs_root=tmp_path)
    assert len(study.runs) == study.num_wanted == 1
    with pytest.raises(UnknownNameError, match="did you mean demo"):
        collect("demo1", runs_root=tmp_path)
    further = settings(models=["resnet20"], more_seeds=[0], more_seeds_of=["resnet32"])
    with pytest.raises(UnknownNameError, match="resnet32"):
        collect(config=json.dumps(further), runs_root=tmp_path)
    with pytest.raises(RecordError):
        collect(runs_root=tmp_path)
    for change in ({"recipe": Recipe(epochs=9)}, {"data_fingerprint": "cd" * 32}):
        make_run(tmp_path, "resnet20", 0, 0.4, **change)
        with pytest.raises(RecordError, match="mixes 2"):  # recipes, or data
            collect("demo", runs_root=tmp_path)
        shutil.rmtree(tmp_path / "demo/resnet20")
    make_run(tmp_path, "se_resnet20", 0, 0.5, overrides={"reduction": 8})
    by_name = make_run(tmp_path, "se_resnet20+reduction=8", 0, 0.4)
    (copy,) = collect("demo", runs_root=tmp_path).problems  # of one network by two spellings
    assert copy.reason == f"the same network and seed as {by_name.path}"


@pytest.mark.parametrize("as_file", [True, False])
def test_the_command_for_a_missing_run_makes_that_very_run(tmp_path, as_file):
    recipe = {"epochs": 7, "schedule": [3, 5], "nesterov": True, "weight_decay": 5e-4, "lr": 0.2}
    content = settings(recipe=recipe, data="cifar100")
    config = yaml.safe_dump(content)
    if as_file:
        (tmp_path / "s.yaml").write_text(config)
        config = str(tmp_path / "s.yaml")
    study = replace(load_study(content), plugins=("own.py",), precision="fp32", threads=3)
    several = train_command(study, config, "se_resnet20", 1, 2)
    assert make_parser().parse_args(shlex.split(several)[1:]).seeds == [1, 2]
    command = shlex.split(train_command(study, config, "se_resnet20", 1))
    assert command[:2] == ["senet", "train"]
    arguments = make_parser().parse_args(command[1:])
    asked = train_settings(arguments)
    assert asked["recipe"] == Recipe.from_dict(recipe)
    assert (asked["data"], asked["study"]) == ("cifar100", "demo")
    assert (arguments.model, arguments.seed) == ("se_resnet20", 1)
    assert arguments.plugins == ([] if as_file else ["own.py"])  # a file names them itself
    how = (asked.get("precision"), asked.get("threads"))
    assert how == (("auto", 0) if as_file else ("fp32", 3))


def test_tables_escape_what_they_show_and_align_numbers():
    rows = {"a": ["<b>", "x"], "n": [1.5, None], "l": [Markup("<i>kept</i>"), ["y", Markup("<b>")]]}
    frame = pd.DataFrame(rows, index=pd.Index(["<u>", "v"], name="net"))
    html = table(frame, "caption <i>", {"n": "{:.2f}"}).to_html()
    assert "caption &lt;i&gt;" in html
    assert re.findall(r"<t[dh] class=.(?:data|row).*?>(.*)</t[dh]>", html) == [
        "&lt;u&gt;", "&lt;b&gt;", "1.50", "<i>kept</i>", "v", "x", "–", "y <b>",
    ]  # fmt: skip
    assert re.findall(r"<th class=.(?:index|col).*?>(.*)</th>", html) == ["net", "a", "n", "l"]
    assert re.findall(r"text-align: (\w+)", html) == ["left", "right", "left"]
    blank = frame.assign(blank="", none=[[], []]).reset_index()
    assert table(blank, "caption <i>").columns.tolist() == ["net", "a", "n", "l"]
    assert table(frame.head(0), empty="Nothing.") == Text("Nothing.")
    assert "row_heading" not in table(frame.reset_index()).to_html()


def test_folding_changes_no_word_and_escaping_no_letter():
    from nbconvert.filters import markdown2html

    remark = "one two three four five six seven eight nine < " * 4 + "the end"
    seen = re.search(r"<summary>(.*?)</summary>", folded(remark))[1]
    assert 70 < len(seen) <= 100
    assert unescape(re.sub(r"<[^>]+>", "", folded(remark))) == remark
    for unspaced in ("/home/" + "a" * 200, "一" * 200):
        assert f"<summary>{unspaced[:90]}</summary>" in folded(unspaced)
    assert folded("short & clear") == "short &amp; clear"
    assert "<summary>command</summary>senet x" in folded("senet x", "command")
    text = "se_res2net29_last *x* <script>alert(1)</script> [a](b) `c`"
    assert not re.search(r"<script|<em>|<a ", markdown2html(escape(text)))
    assert markdown2html(escape("$a_b$")).strip() == "<p>$a_b$</p>"


def test_the_page_loads_nothing_describes_its_images_and_links_to_what_is_there(report):
    text = report.read_text(encoding="utf-8")
    shown = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", text)
    loads = re.findall(r'<(?!a\b)[^>]*? (?:href|src|srcset)="([^"]*)"', shown)
    assert all(source.startswith("data:image/") for source in loads)
    assert not re.search(r"@import|url\(\s*['\"]?http|<(link|iframe|object)\b", text)
    alts = re.findall(r'<(?:img [^>]*?alt|svg [^>]*?aria-label)="([^"]*)"', shown)
    assert len(re.findall("<(?:img|svg)\\b", shown)) == len(alts) >= 4
    assert all(len(alt) > 40 for alt in alts)
    assert "Figure size" not in text  # what a cell leaves open is drawn once more
    links = set(re.findall(r'<a [^>]*?href="([^"]*)"', shown))
    assert {"#missing-and-failed-runs", "#every-run", "#look-for-yourself"} <= links
    for target in links:
        if target.startswith("#"):
            assert f'id="{target[1:]}"' in shown
        elif not target.startswith("data:application/pdf;base64,JVBERi0"):  # %PDF-
            assert (report.parent / target).is_file()
    assert any(target.endswith("resnet20/seed0/train.html") for target in links)
    assert report.stat().st_size < 15e6


def test_the_page_shows_what_the_records_say_and_how_it_was_made(report):
    text = report.read_text(encoding="utf-8")
    words = unescape(re.sub(r"<[^>]+>", "", text))
    found = collect("tiny", runs_root=report.parents[2] / "runs").runs
    runs = {(run.model, run.seed): run for run in found}
    pair = [100 * runs["se_resnet20", seed].test_error for seed in (0, 1)]
    cells = re.findall(r"<td class=.data.*?>(.*?)</td>", text)
    for number in (*pair, np.mean(pair), 100 * runs["resnet20", 0].test_error):
        assert f"{number:.2f}" in cells
    assert "OSError: no space" in words
    notebook = json.loads((NOTEBOOKS / "report.ipynb").read_text(encoding="utf-8"))
    prose = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]
    named = [re.match("##+ (.*)", cell) for cell in prose]
    heads = {unescape(head) for head in re.findall("<h[23] .*?>(.*?)</h", text)}
    ended = set(re.findall(r"<li><strong>(.*?)</strong>", text))
    assert {head[1] for head in named if head} <= heads | ended
    assert ended & {head[1] for head in named if head}
    commands = re.findall(r"senet train --config (?!configs/)", words)
    assert len(commands) == 3 + 3  # problems, finished
    folds = re.findall(r'<details class="input"( open.*?)?>', text)
    made = re.findall(r'<p class="made">Cell <code>(.*?)</code> of report.ipynb(.*?)</p>', text)
    assert len(made) == len(folds) >= 20
    assert not any(folds)
    assert all("-p study=tiny" in by and 'href="#every-run"' in by for _, by in made)


SMOKE, LAPTOP = {"data": "shapes"}, {"study": "laptop", "data": "cifar10", "protocol": "laptop"}


@pytest.mark.parametrize(
    ("change", "errors", "decides", "said"),
    [
        (SMOKE, {"resnet20": (50, 52), "se_resnet20": (45, 46)}, "nothing", ["-5.50 points"]),
        (LAPTOP, {"resnet20": (10, 11), "se_resnet20": (9, 10)}, "little", ["-1.00", "undecided"]),
        (LAPTOP, {"resnet20": (20, 21, 20), "se_resnet20": (9, 9, 10)}, "", ["lowers", "-11.00"]),
        (
            LAPTOP,
            {"resnet20": (10, 11), "se_resnet20": (9,)},
            "little",
            [
                "95 % intervals",
                "of resnet20 (",
                "n = 1 with and 2 without",
                "32 more of se",
                "80 % power",
            ],
        ),
        (LAPTOP, {"resnet20": (10, 10), "se_resnet20": (9, 9)}, "little", ["-1.00 points; n = 2)"]),
        (LAPTOP, {"resnet20": (10, 11, 10)}, "", ["nothing can be compared"]),
        (LAPTOP, {}, "", ["nothing can be compared"]),
    ],
)
def test_the_top_says_whether_by_how_much_how_sure_and_at_what_cost(
    tmp_path, change, errors, decides, said
):
    for model, by_seed in errors.items():
        for seed, error in enumerate(by_seed):
            params, macs = (1100, 1001) if model[:3] == "se_" else (1000, 1000)
            make_run(tmp_path, model, seed, error / 100, num_params=params, macs=macs, **change)
    config = json.dumps(settings(seeds=[0, 1, 2], **change))
    values = {"study": "", "config": config, "runs_root": tmp_path, "page_folder": tmp_path}
    names = run_cells("report", "points", **values)
    top = next(shown for shown in names["outputs"] if isinstance(shown, Text)).markdown
    assert re.findall(r"decides? (nothing|little)", top) == [decides] * bool(decides)
    words = top + " ".join(names["pairs"]["decision"]) if len(errors) else top
    assert all(part in words for part in said)
    if len(errors) == 2:
        assert all(part in top for part in ("10 %", "0.1 %"))
    gone = [seed for problem in names["runs"].problems for seed in problem.seeds]
    assert len(gone) == 6 - sum(map(len, errors.values()))


def test_a_decision_that_further_seeds_turned_is_named_and_the_answer_is_of_all(tmp_path):
    errors = {"resnet20": (0.20, 0.21, 0.10, 0.30), "se_resnet20": (0.10, 0.11)}
    for model, by_seed in errors.items():
        for seed, error in enumerate(by_seed):
            make_run(tmp_path, model, seed, error)
    config = settings(seeds=[0, 1], more_seeds=[2, 3], more_seeds_of=["resnet20"])
    values = {"study": "", "config": json.dumps(config), "runs_root": tmp_path}
    names = run_cells("report", "points", **values, page_folder=tmp_path)
    top = next(shown for shown in names["outputs"] if isinstance(shown, Text)).markdown
    assert list(names["pairs"]["decision"]) == ["undecided"]
    assert (
        "**SE makes no difference that these seeds can tell to the error of resnet20 (-9.75" in top
    )
    then = top.partition("With seeds 0, 1 alone, some decisions were others: ")[2]
    assert then.startswith(f"{escape('se_resnet20')} -10.00 (")


def test_a_network_of_ones_own_is_named_whatever_was_found(tmp_path, monkeypatch):
    own = "resnet20+attention=eca"
    texts = {own: {"own.py": "its text"}}
    monkeypatch.setattr("senet_lib.plugins.behind", lambda model, _: texts.get(model, {}))
    for model in ("resnet20", "se_resnet20", own, "resnet20+attention=ge"):
        for seed in range(2):
            make_run(tmp_path, model, seed, 0.2 + seed / 50)
    options = {"study": "demo", "runs_root": tmp_path, "page_folder": tmp_path, "margin": 0.004}
    names = run_cells("report", "spread", **options)
    top = next(shown for shown in names["outputs"] if isinstance(shown, Text)).markdown
    assert f"not to be told from the plain network, in points: {escape(own)} +0.00." in top
    assert "One image is 0.5 points here, so that a difference of 0.4 cannot be found." in top
    assert "p" in names["shown"]
    assert "more seeds" not in names["shown"]


def test_unlike_arithmetic_is_said_with_what_it_changed(tmp_path):
    made = {("resnet20", 0): "fp32", ("resnet20", 1): "fp32", ("se_resnet20", 0): "fp32"}
    for (model, seed), precision in (made | {("resnet20", 2): "bf16"}).items():
        make_run(tmp_path, model, seed, 0.1 + seed / 100, precision=precision)
    options = {"study": "demo", "runs_root": tmp_path, "page_folder": tmp_path}
    outputs = run_cells("report", "pairs", **options)["outputs"]
    (said,) = (str(shown) for shown in outputs if "computed in" in str(shown))
    assert "in 2 ways: 1, cpu, fp32 (3 runs); 2, cpu, bf16, A Processor (1 run), +1.50" in said
    assert "in 1 network trained in both" in said


def test_a_decision_that_unlike_arithmetic_may_have_made_is_named_at_the_top(tmp_path):
    worse = "se_resnet20+gate=relu"
    for model, error in {"resnet20": 0.3, "se_resnet20": 0.2, worse: 0.4}.items():
        for seed in range(3):
            computed = {"precision": "bf16" if model == "se_resnet20" else "fp32"}
            make_run(tmp_path, model, seed, error + seed / 200, **computed)
    config = json.dumps(
        settings(
            seeds=[0, 1, 2], models=["resnet20", "se_resnet20", worse], note="Seed 2 came <later>."
        )
    )
    values = {"study": "", "config": config, "runs_root": tmp_path, "page_folder": tmp_path}
    names = run_cells("report", "points", **values)
    top = next(shown for shown in names["outputs"] if isinstance(shown, Text)).markdown
    assert list(names["pairs"]["decision"]) == ["better", "worse"]
    assert f"some decisions change: {escape('se_resnet20')} – (– to –), undecided" in top
    assert f"{escape(worse)} less SE – (– to –), undecided" in top
    assert f"Worse than the plain network, in points: {escape(worse)} +10.00." in top
    assert f"0 % ({escape('se_resnet20')}, n = 3). **SE" in top
    assert "came &lt;later&gt;." in top
    page = run_cells("ablation", **values, axis="gate")["answer"]
    assert "computed in 2 ways" in " ".join(page)
    beside = "If each way may shift the error, less no attention: "
    assert f"{beside}sigmoid – (– to –), undecided; relu +10.00 (" in " ".join(page)
    assert "less SE: relu – (– to –), undecided." in " ".join(page)


def test_maps_of_other_images_are_left_out(tmp_path):
    make_run(tmp_path, "resnet20", 0, 0.1)
    rows = [{"model": "resnet20", "trial": "grid2", "metric": "energy", "score": 0.5,
             "chance": 0.25, "cases": 4, "zero": 0}]  # fmt: skip
    for data, left_out in (("ab" * 32, False), ("cd" * 32, True)):
        scored = dict.fromkeys(SHARED, "") | {"seed": 0, "right": 200, "rows": rows}
        scored |= {"recipe_id": RECIPE.id, "fingerprint": data}
        write_json(tmp_path / "localisation-seed0.json", scored)
        options = {"study": "demo", "runs_root": tmp_path, "page_folder": tmp_path}
        found = run_cells("report", "maps", **options)
        assert (found["left_out"].get("Where the networks look") is not None) == left_out


def test_a_network_that_nothing_stands_beside_is_named_below_the_comparisons(tmp_path):
    for model in ("resnet20", "se_resnet20", "se_res2net29+gate_at=literal"):
        make_run(tmp_path, model, 0, 0.1)
    options = {"study": "demo", "runs_root": tmp_path, "page_folder": tmp_path}
    names = run_cells("report", "spread", **options)
    assert names["outputs"][-1].markdown.endswith(f" {escape('se_res2net29+gate_at=literal')}.")


@pytest.mark.parametrize(("data", "told"), [("cifar10", True), ("photos", False)])
def test_claims_about_cifar_are_no_part_of_a_report_of_ones_own_images(tmp_path, data, told):
    make_run(tmp_path, "resnet20", 0, 0.1, data=data)
    options = {"study": "demo", "runs_root": tmp_path, "page_folder": tmp_path}
    outputs = run_cells("report", **options)["outputs"]
    captions = [shown.caption for shown in outputs if hasattr(shown, "caption")]
    assert any("claims: " in str(caption) for caption in captions) == told
    assert any("contradictions rest" in str(caption) for caption in captions) == told


def test_seeds_of_different_number_are_compared_image_by_image():
    """Each seed is shown its share of the images, every second or every third of six."""
    content = json.loads((NOTEBOOKS / "report.ipynb").read_text(encoding="utf-8"))
    (cell,) = ("".join(c["source"]) for c in content["cells"] if c["id"] == "worse-rises")
    rises = pd.Series([0.0, 0, 0, 100, 100, 100])
    rows = [
        {"model": model, "rise": rises[k::number]}
        for model, number in (("resnet20", 2), ("se_resnet20", 3))
        for k in range(number)
    ]
    names = {"groups": [(("resnet20",), pd.DataFrame(rows))], "tested": [], "np": np, "pd": pd}
    exec(cell, names)
    assert names["tested"]["reach"].tolist() == [0]  # they are alike on every image


def test_an_axis_page_says_what_is_missing_and_what_equal_values_show(tmp_path):
    models = ["resnet20", "se_resnet20", "se_resnet20+reduction=4"]
    for model in models:
        for seed in range(3):
            make_run(tmp_path, model, seed, 0.3 + seed / 1e5)
    config = json.dumps(settings(models=[*models, "se_resnet20+gate=relu"], seeds=[0, 1, 2]))
    values = {"study": "", "config": config, "runs_root": tmp_path, "page_folder": tmp_path}
    found = run_cells("ablation", **values, axis="reduction")
    page = found["outputs"][-2].markdown
    assert "**With these seeds no value can be told from no attention or from SE.** Within" in page
    assert "Within 0.5 points of no attention, either way: 4, 16." in page
    assert "Within 0.5 points of SE, either way: 4." in page
    assert "Of 2 values, all have a mean error of 30.00 %." in page
    assert found["shown"]["network"].tolist() == ["se_resnet20+gate=relu"]


def test_an_axis_page_judges_by_its_margin_beside_the_way_too(tmp_path):
    """One plain run in bf16 says that the way makes the whole of SE's difference."""
    made = [("resnet20", seed, 0.3, "fp32") for seed in range(8)] + [("resnet20", 8, 0.2, "bf16")]
    made += [("se_resnet20", seed, 0.195 + seed / 200, "bf16") for seed in range(3)]
    made += [("se_resnet20+gate=relu", seed, 0.295 + seed / 200, "fp32") for seed in range(3)]
    for model, seed, error, precision in made:
        make_run(tmp_path, model, seed, error, precision=precision)
    values = {"study": "demo", "runs_root": tmp_path, "page_folder": tmp_path, "axis": "gate"}
    for margin, decision in ((1e-5, "undecided"), (0.1, "equal")):
        page = run_cells("ablation", **values, margin=margin)["answer"]
        found = rf"sigmoid [+-]0\.00 \(-\d.* to \+\d.*\), {decision}"
        assert re.search(found, " ".join(page))


@pytest.mark.slow
def test_column_colour_and_sentence_are_changed_in_the_notebook_alone(tmp_path):
    """What a reader does who wants another report."""
    content = json.loads((NOTEBOOKS / "report.ipynb").read_text(encoding="utf-8"))
    changes = {
        "leaderboard": ('"n": "n"', '"n": "networks trained"'),
        "numbers": ("board = ", 'colours |= {"resnet20": "#12ab34"}\nboard = '),
        "summary": (
            'Text(f"{first}{answer}\\n\\n{more}")',
            'Text(f"The gates cost {len(with_se)} try.")',
        ),
    }
    for cell in content["cells"]:
        if cell["id"] in changes:
            before, after = changes[cell["id"]]
            assert before in "".join(cell["source"])
            cell["source"] = "".join(cell["source"]).replace(before, after)
    (tmp_path / "mine.ipynb").write_text(json.dumps(content))
    for model, error in (("resnet20", 0.5), ("se_resnet20", 0.45)):
        make_run(tmp_path / "runs", model, 0, error)
    values = {"study": "demo", "runs_root": tmp_path / "runs", "page_folder": tmp_path}
    page = tmp_path / "index.html"
    execute(tmp_path / "mine.ipynb", tmp_path / "out.ipynb", values, html=page)
    text = page.read_text(encoding="utf-8")
    assert re.search(r"<th class=.col_heading.*?>networks trained</th>", text)
    assert "--data shapes --epochs 2 --batch-size 32 --lr 0.05" in text  # makes a run again
    assert "<p>The gates cost 1 try.</p>" in text
    drawings = re.findall(r"(?s)<svg.*?</svg>", text)
    assert sum("#12ab34" in drawing for drawing in drawings) >= 2


@pytest.mark.parametrize(
    ("page", "back"),
    [
        ("reports/demo/profile.html", "index.html"),
        ("reports/demo/gallery-x/index.html", "../index.html"),
        ("runs/demo/resnet20/seed0/train.html", "../../../../reports/demo/index.html"),
        ("reports/demo/index.html", ""),
        ("elsewhere/report.html", ""),
    ],
)
def test_every_page_of_a_study_leads_back_to_its_report(tmp_path, page, back):
    assert way_back(tmp_path / "outputs" / page) == back
