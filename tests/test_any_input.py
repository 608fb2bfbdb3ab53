"""Whatever is asked for: an answer or one line, in time, and nothing left behind.

SENET_EXAMPLES says how many examples each test takes; 2,000 is a thorough run.
"""

import dataclasses
import json
import math
import os
import time
from pathlib import Path

import pytest
import yaml
from fake_runs import make_run, save_shapes
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from senet_lib.cli import main
from senet_lib.data import load_data
from senet_lib.errors import SenetError
from senet_lib.files import sha256_of_json
from senet_lib.recipe import Recipe, Study, learning_rate, load_study
from senet_lib.runs.records import RunRecord, list_runs, load_run
from senet_lib.runs.study import collect

EXAMPLES = int(os.environ.get("SENET_EXAMPLES", "200"))
FEW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SENET_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
LARGE = st.sampled_from([2**31, 2**63, 10**18, 10**30, -(10**400)])
HUGE = st.integers(5000, 6000).map(lambda digits: 16**digits)
NUMBERS = st.integers(-3, 400) | LARGE | HUGE | st.floats() | st.floats(0, 1)
NAMES = ["resnet20", "se_resnet20+reduction=8", "one_cycle", "../x", "a\n", "1e-4"]
WORDS = st.sampled_from(NAMES) | st.text(max_size=8)
ODD = NUMBERS | WORDS | st.booleans() | st.none() | st.dates() | st.binary(max_size=3)


def nested(inner):
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2)


VALUES = st.recursive(ODD, nested, max_leaves=6)


def names_of(kind: type) -> st.SearchStrategy[str]:
    return st.sampled_from([spec.name for spec in dataclasses.fields(kind)])


def tried(make, *arguments, words=""):
    """What comes of it; None where it is refused, which takes one line, with the words in it."""
    try:
        return make(*arguments)
    except SenetError as error:
        line = str(error)
    assert len(line) < 1000
    assert words in line
    return None


@FEW
@given(st.dictionaries(names_of(Recipe), VALUES, max_size=4), st.integers(0, 10**6))
def test_a_recipe_or_one_line(fields, step):
    if recipe := tried(Recipe.from_dict, fields):
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        rate = learning_rate(recipe, step % (recipe.epochs * 7), 7)
        assert math.isfinite(rate)
        assert 0 <= rate <= recipe.lr


GOOD = {"study": "s", "protocol": "p", "data": "shapes", "models": ["resnet20"], "seeds": [0]}


@FEW
@given(st.dictionaries(st.one_of(names_of(Study), st.text(max_size=5)), VALUES, max_size=3))
def test_a_study_or_one_line(fields):
    if study := tried(load_study, {**GOOD, **fields}):
        assert (Path("outputs/runs") / study.study).parent == Path("outputs/runs")
        assert study.study not in (".", "..")


MARKS = st.text(st.sampled_from("[]{}&*<:-?|>!%@`'\"#, \n\tab01."), max_size=60).map(str.encode)
WRITTEN = st.dictionaries(names_of(Study), VALUES, max_size=4).map(
    lambda fields: yaml.safe_dump(_plain({**GOOD, **fields})).encode()
)


@FEW
@given(st.binary(max_size=200) | MARKS | WRITTEN)
def test_a_file_of_settings_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    began = time.monotonic()
    tried(load_study, path)
    assert time.monotonic() - began < 20


def _plain(value):
    """Python's YAML writer, too, cannot write a number of thousands of digits."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return "a" if isinstance(value, int) and abs(value) > 10**3000 else value


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run, beside that of another one."""
    root = tmp_path_factory.mktemp("runs")
    make_run(root, "resnet20", 1, 0.25)
    return make_run(root, "resnet20", 0, 0.25).path


@settings(FEW, max_examples=max(EXAMPLES // 4, 1))  # each reads a folder of runs twice
@given(st.dictionaries(names_of(RunRecord), VALUES, min_size=1, max_size=3), st.booleans())
def test_a_record_or_one_line_and_never_the_other_runs_cost(run, changes, sealed):
    """With a checksum that fits, as if a tool of one's own had written it, or none."""
    path = run / "record.json"
    whole = path.read_text(encoding="utf-8")
    fields = {**json.loads(whole), **_plain(changes)}
    fields = {k: v for k, v in fields.items() if k not in ("sha256", "files")}
    try:
        if sealed:
            fields["files"] = {}
            fields["sha256"] = sha256_of_json(json.loads(json.dumps(fields)))
        path.write_text(json.dumps(fields), encoding="utf-8")
    except (TypeError, ValueError):  # JSON cannot say it
        return
    root = run.parents[2]
    try:
        if record := tried(load_run, run, words=str(run)):
            assert 0 <= record.test_error <= 1
            tried(record.verify, words=str(run))
        states = list(list_runs(root).status)
        study = tried(collect, "demo", "", root, words="mixes")  # two recipes: which is asked for?
    finally:
        path.write_text(whole, encoding="utf-8")
    assert "finished" in states
    assert study is None or 1 <= len(study.runs) <= 2


SPELT = st.one_of(
    st.sampled_from(["-", "--", "=", "", " ", "a=b", "model=resnet20", "seed=0", "overrides=-",
                     "[", "\n", "none", "few.npz", "file", "folder", "nan", "-1", "0", "1", "2",
                     "1e300", "99999", "2147483648", "1000000000", "../x", "resnet20", "shapes",
                     "\x00", "é", "\ud800", "9" * 5000, "reduction=[[a]]", "num_classes=3"]),
    st.text(max_size=6),
    NUMBERS.map(lambda value: repr(value) if abs(value) < 10**300 else "1e400"),
)  # fmt: skip
COMMANDS = {
    "train": [*(f"--{spec.name.replace('_', '-')}" for spec in dataclasses.fields(Recipe)),
              "--set", "--seed", "--data", "--val", "--config", "--study", "--out", "--threads",
              "--device", "--test-every", "--max-minutes", "--checkpoint-minutes", "--progress"],
    "evaluate": ["--checkpoint", "--data", "--device", "--batch-size"],
    "gradcam": ["--checkpoint", "--out-dir", "--data", "--method", "--layer", "--per-class"],
    "export": ["--checkpoint", "--format", "--out"],
    "runs": ["--root"],
    "models": [],
    "data": [],
    "notebook": ["--out", "--html", "-p", "--help-parameters"],
    "publish": ["--config", "--root", "--target", "--keep"],
}  # fmt: skip
TRAIN = ["--model", "resnet20", "--data", "few.npz", "--epochs", "1", "--batch-size", "8"]


@st.composite
def command_lines(draw):
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words = [name, *(TRAIN if name == "train" and draw(st.booleans()) else [])]
    for _ in range(draw(st.integers(0, 4))):
        if COMMANDS[name] and draw(st.integers(0, 3)):
            words.append(draw(st.sampled_from(COMMANDS[name])))
        words.append(draw(SPELT))
    return words


class NoTrainingError(SenetError):
    """Stands where the first step would be taken."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in, with a small data set, and no step of training and no notebook taken."""
    folder = tmp_path_factory.mktemp("any")
    save_shapes(folder / "few.npz", 16, 16)
    (folder / "file").touch()
    (folder / "folder").mkdir()
    before = Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENET_DATA", str(folder / "folder"))

        def refuse(*arguments, **options):
            raise NoTrainingError("enough")

        patch.setattr("senet_lib.training.fit.Engine", refuse)
        patch.setattr("senet_lib.report.batch._run", refuse)
        patch.setattr("senet_lib.data.cifar.download_cifar", refuse)
        yield folder
    os.chdir(before)


@FEW
@given(words=command_lines())
def test_a_command_line_ends_in_order(place, capfd, words):
    began = time.monotonic()
    try:
        code = main(words)
    except SystemExit as left:  # argparse: help, or a mistake
        code = left.code
    said = capfd.readouterr().err
    assert code in (0, 1, 2), said
    assert "Traceback" not in said
    if code == 2:
        assert said.splitlines()[-1].startswith("error: ")
    assert time.monotonic() - began < 60
    files = {path.name for path in place.rglob("*") if path.is_file()}
    assert files <= {"few.npz", "file", "shapes.npz"}, words  # `senet data shapes` writes the last


@FEW
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3),
    st.integers(0, 3),
)
@example(changes=[(0, 0), (27, 3)], cut=0)  # a length, so that the reader quotes half of the file
def test_a_damaged_npz_is_the_same_or_one_line(place, changes, cut):
    content = bytearray((place / "few.npz").read_bytes())
    for where, value in changes:
        # Half of the changes go into the headers, where the damage is of all kinds.
        where = where % 600 if value % 2 else -1 - where % 1200
        content[where] = value
    path = place / "folder" / "damaged.npz"
    path.write_bytes(content[: len(content) - (changes[0][0] % len(content) if cut == 0 else 0)])
    found = tried(load_data, str(path))
    path.unlink()
    assert found is None or found.fingerprint == load_data("few.npz").fingerprint
