"""Notebooks as batch jobs, and the rules the repository's own notebooks keep."""

import ast
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from senet_lib.errors import ParameterError, SenetError, UnknownNameError
from senet_lib.recipe import Recipe
from senet_lib.report.batch import NotebookFailedError, code_hash, execute
from senet_lib.report.parameters import (
    check_parameters,
    describe_parameters,
    find_notebook,
    parse_parameters,
)

REPOSITORY = Path(__file__).resolve().parent.parent
PARAMETERS = """\
name = "a # b"  # a text, with a # in it
count = 3  # a whole number
rate = -1e-4  # a number
flag = False
steps = [1, 2]  # whole numbers
loose = []  # anything
"""


def write(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    """A notebook of code cells; the first holds the parameters."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in (parameters, *cells)]
    notebook.cells[0].metadata.tags = ["parameters"]
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return write(tmp_path / "n.ipynb", "print('here')")


# Parameters


def test_parameters_are_read_with_their_types_and_help(notebook):
    found = {p.name: p for p in describe_parameters(notebook)}
    assert list(found) == ["name", "count", "rate", "flag", "steps", "loose"]
    assert found["name"].default == "a # b"
    assert found["name"].help == "a text, with a # in it"
    assert found["flag"].help == ""
    assert [p.kind for p in found.values()] == ["str", "int", "float", "bool", "list", "list"]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("name", "001", "001"), ("name", Path("a") / "b", "a/b"), ("count", "7", 7),
        ("count", "-7", -7), ("rate", "1e-4", 1e-4), ("rate", 2, 2.0), ("flag", "true", True),
        ("flag", "False", False), ("flag", True, True), ("steps", "[3]", [3]), ("steps", "[]", []),
        ("steps", (4, 5), [4, 5]), ("loose", "[a, 1, true]", ["a", 1, True]),
    ],
)  # fmt: skip
def test_values_are_brought_to_the_type_of_their_default(notebook, name, given, expected):
    (value,) = check_parameters(notebook, {name: given}).values()
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("name", 3), ("count", "3.0"), ("count", "1_000"), ("count", 3.5), ("count", True),
        ("count", None), ("rate", "fast"), ("rate", "nan"), ("rate", float("inf")),
        ("rate", False), ("flag", "yes"), ("flag", 1), ("steps", "1, 2"), ("steps", "[1.5]"),
        ("steps", "[a]"), ("steps", "[1"), ("steps", 3), ("loose", "[[1]]"), ("loose", "{a: 1}"),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused_with_the_one_expected(notebook, name, given):
    default = {p.name: p.default for p in describe_parameters(notebook)}[name]
    with pytest.raises(ParameterError) as caught:
        check_parameters(notebook, {name: given})
    assert f"parameter {name} of notebook n must be" in str(caught.value)
    assert f"such as {default!r}" in str(caught.value)


def test_an_unknown_parameter_is_refused_with_the_near_and_all_names(notebook):
    with pytest.raises(ParameterError, match=r"did you mean count.*: name, count, rate, flag"):
        check_parameters(notebook, {"coumt": 1})


@pytest.mark.parametrize(
    "cell",
    ["a = b", "a = f(1)", "a: int = 3", "a = c = 1", "import os", "a = None", "a = {}", "a = ("],
)
def test_a_parameters_cell_may_hold_plain_values_alone(tmp_path, cell):
    path = write(tmp_path / "n.ipynb", parameters=cell)
    with pytest.raises(ParameterError):
        describe_parameters(path)


def test_command_line_pairs():
    assert parse_parameters(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for bad in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(ParameterError):
            parse_parameters(bad)


def test_notebooks_are_found_by_name_and_by_path(tmp_path, monkeypatch, notebook):
    monkeypatch.chdir(tmp_path)
    assert find_notebook("train") == REPOSITORY / "notebooks" / "train.ipynb"
    (tmp_path / "notebooks").mkdir()
    mine = write(tmp_path / "notebooks" / "train.ipynb")
    assert find_notebook("train").resolve() == mine
    assert find_notebook(notebook) == notebook
    with pytest.raises(UnknownNameError, match="did you mean train"):
        find_notebook("trian")
    with pytest.raises(SenetError, match="no such notebook"):
        find_notebook("elsewhere/x.ipynb")


# The hash that decides whether something must be done again


def test_the_hash_follows_code_and_not_outputs(tmp_path, notebook):
    before = code_hash(notebook)
    content = json.loads(notebook.read_text())
    content["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    content["cells"][1]["execution_count"] = 4
    notebook.write_text(json.dumps(content))
    assert code_hash(notebook) == before
    content["cells"][1]["source"] = "print('there')"
    notebook.write_text(json.dumps(content))
    assert code_hash(notebook) != before


def test_the_hash_does_not_follow_parameters_comments_and_docstrings(tmp_path):
    def hashed(epochs: int, *code: str) -> str:
        tagged = {"tags": ["parameters"]}
        cells = [{"cell_type": "code", "metadata": tagged, "source": f"epochs = {epochs}  # some"}]
        cells += [{"cell_type": "code", "metadata": {}, "source": source} for source in code]
        path = tmp_path / "n.ipynb"
        path.write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5}))
        return code_hash(path)

    function = 'def f(x):\n    """{}"""\n    return x + {}'
    before = hashed(5, function.format("One.", 1), "%time f(1)")
    assert hashed(7, "# new\n" + function.format("Two.", 1) + "  # why", "%time f(1)") == before
    assert hashed(5, function.format("One.", 2), "%time f(1)") != before
    assert hashed(5, function.format("One.", 1), "%time f(2)") != before


def test_the_hash_follows_the_sources(tmp_path, notebook):
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1")
    before = code_hash(notebook, [package])
    (package / "notes.txt").write_text("not code")
    assert code_hash(notebook, [package]) == before
    (package / "b.py").write_text("")
    assert code_hash(notebook, [package]) != before
    (package / "b.py").unlink()
    (package / "a.py").write_text("2")
    assert code_hash(notebook, [package]) != before


# Execution


def test_a_notebook_runs_with_this_interpreter_in_this_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SENET_PROGRESS", raising=False)
    path = write(
        tmp_path / "n.ipynb",
        "import os, sys\nprint('Epoch 1 - Loss: 0.5')",
        "print([sys.executable, os.getcwd(), os.environ['SENET_PROGRESS'], name, count, steps])",
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out/failed.json").write_text("{}")
    given = {"name": "n'\n", "count": "5", "steps": "[9]"}
    out = execute(path, tmp_path / "out/done.ipynb", given, html=tmp_path / "out/done.html")
    done = json.loads(out.read_text())
    printed = "".join(done["cells"][-1]["outputs"][0]["text"])
    expected = [sys.executable, str(tmp_path), "log", "n'\n", 5, [9]]
    assert ast.literal_eval(printed) == expected
    assert sorted(p.name for p in out.parent.iterdir()) == ["done.html", "done.ipynb"]
    assert "partial" not in json.dumps(done["metadata"])
    log = capfd.readouterr().err
    assert "Epoch 1 - Loss: 0.5\n" in log
    assert "Executing" not in log
    assert "unencrypted" not in log


def test_a_failing_cell_leaves_the_partial_notebook_and_the_old_result(tmp_path):
    path = write(tmp_path / "n.ipynb", "print('before')", "raise ValueError('no <good>')", "3")
    out = tmp_path / "out/n.ipynb"
    out.parent.mkdir()
    out.write_text("the result of last time")
    with pytest.raises(NotebookFailedError) as caught:
        execute(path, out, html=tmp_path / "out/n.html")
    error = caught.value
    assert (error.notebook, error.cell, error.error) == ("n", 2, "ValueError")
    assert error.reason == "no <good>"
    message = str(error)
    assert "\n" not in message
    assert "raise ValueError" in message
    assert "ValueError: no <good>" in message
    assert str(error.partial) in message
    assert out.read_text() == "the result of last time"
    assert not (out.parent / "n.html").exists()
    cells = json.loads(error.partial.read_text())["cells"]
    assert any("before" in json.dumps(cell.get("outputs", "")) for cell in cells)
    assert any("no <good>" in json.dumps(cell.get("outputs", "")) for cell in cells)
    failure = json.loads((out.parent / "failed.json").read_text())
    assert (failure["error"], failure["message"], failure["cell"]) == ("ValueError", "no <good>", 2)
    assert failure["notebook"] == "n.partial.ipynb"


def test_a_kernel_that_dies_is_a_failure_of_its_cell(tmp_path):
    path = write(tmp_path / "n.ipynb", "import os", "os.kill(os.getpid(), 9)", "3")
    with pytest.raises(NotebookFailedError, match="memory") as caught:
        execute(path, tmp_path / "out/n.ipynb")
    assert (caught.value.cell, caught.value.error) == (2, "DeadKernelError")
    assert (tmp_path / "out/failed.json").exists()


def test_a_run_that_was_stopped_is_not_a_failed_run(tmp_path):
    path = write(
        tmp_path / "n.ipynb", "class RunStopped(Exception): pass\nraise RunStopped('limit')"
    )
    with pytest.raises(NotebookFailedError, match="RunStopped: limit"):
        execute(path, tmp_path / "out/n.ipynb")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["n.partial.ipynb"]


def test_a_wrong_parameter_is_refused_before_anything_is_written(tmp_path, notebook):
    with pytest.raises(ParameterError):
        execute(notebook, tmp_path / "out/n.ipynb", {"count": "many"})
    assert not (tmp_path / "out").exists()


def test_a_notebook_is_not_overwritten_by_its_own_result(notebook):
    with pytest.raises(SenetError, match="the notebook itself"):
        execute(notebook, notebook)
    with pytest.raises(SenetError, match=r"must end in \.ipynb"):
        execute(notebook, notebook.with_suffix(".txt"))


def test_a_long_line_takes_seconds_and_bars_keep_their_last_state(tmp_path):
    """One line of 200,000 characters takes nbclient's own way of joining a minute."""
    bar = "import sys\nfor k in range(3):\n    print(k, end='\\r', file=sys.stderr, flush=True)"
    path = write(tmp_path / "n.ipynb", "print('x' * 200_000)", bar, "print('a')\nprint('b\\r\\nc')")
    began = time.monotonic()
    out = execute(path, tmp_path / "o.ipynb", html=tmp_path / "o.html")
    assert time.monotonic() - began < 30
    cells = json.loads(out.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(o["text"]) for cell in cells for o in cell["outputs"]]
    assert texts == ["x" * 200_000 + "\n", "2", "a\nb\nc\n"]


@pytest.mark.parametrize("key", ["kernelspec", "language_info"])
def test_a_notebook_of_another_language_is_refused(tmp_path, notebook, key):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"] = {key: {"name": "julia", "language": "julia", "display_name": "J"}}
    notebook.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SenetError, match="in julia; only Python"):
        execute(notebook, tmp_path / "o.ipynb")
    assert not (tmp_path / "o.ipynb").exists()


def test_places_are_checked_before_the_notebook_runs(tmp_path, notebook):
    (tmp_path / "file").touch()
    (tmp_path / "folder.html").mkdir()
    for html in (tmp_path / "file" / "o.html", tmp_path / "folder.html"):
        with pytest.raises(SenetError, match=r"is a folder|cannot be written"):
            execute(notebook, tmp_path / "o.ipynb", html=html)
    with pytest.raises(SenetError, match=r"cannot be written: .*file is no folder"):
        execute(notebook, tmp_path / "file" / "o.ipynb")
    assert not list(tmp_path.glob("*.partial.ipynb"))


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"cells": [1]}', '{"cells": [{"source": 3}]}', "[" * 5000, "not json"]
)
def test_what_is_no_notebook(tmp_path, text):
    path = tmp_path / "n.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SenetError, match="is not a notebook"):
        execute(path, tmp_path / "o.ipynb")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_sigterm_stops_the_kernel_and_leaves_the_partial_notebook(tmp_path):
    write(
        tmp_path / "n.ipynb",
        "print(f'kernel {__import__(\"os\").getpid()}')\nimport time; time.sleep(90)",
    )
    code = "from senet_lib.report.batch import execute; execute('./n.ipynb', 'out/n.ipynb')"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = next(line for line in process.stderr if line.startswith("kernel "))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    process.stderr.close()
    deadline = time.monotonic() + 15
    while _alive(int(line.split()[1])) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(int(line.split()[1]))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["n.partial.ipynb"]
    assert not list((tmp_path / "tmp").glob("senet-*"))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# The repository's notebooks


@pytest.mark.parametrize("name", sorted(p.stem for p in (REPOSITORY / "notebooks").glob("*.ipynb")))
def test_a_notebook_keeps_the_house_rules(name):
    notebook = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[0].source.splitlines()[0].endswith("?")
    assert "## What would change our mind" in prose
    assert "## Limits" in prose
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert all(p.help for p in describe_parameters(REPOSITORY / f"notebooks/{name}.ipynb"))
    for cell in code:
        if cell not in tagged:
            assert _num_lines(cell.source) <= 15
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                assert _num_lines(ast.get_source_segment(cell.source, node)) <= 10
            assert getattr(getattr(node, "func", None), "id", "") != "open"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not Path(node.value).is_absolute()


def _num_lines(code: str) -> int:
    return sum(bool(line.strip()) for line in code.splitlines())


def test_the_training_notebook_has_every_field_of_a_recipe():
    path = REPOSITORY / "notebooks" / "train.ipynb"
    defaults = {p.name: p.default for p in describe_parameters(path)}
    fields = {f.name for f in dataclasses.fields(Recipe)}
    assert fields <= defaults.keys()
    Recipe.from_dict({name: defaults[name] for name in fields})
    source = "".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    (call,) = [
        node
        for node in ast.walk(ast.parse(_code(path)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Recipe"
    ]
    assert {keyword.arg for keyword in call.keywords} == fields
    assert "fit(" in source


def test_the_training_notebook_passes_on_every_parameter():
    path = REPOSITORY / "notebooks" / "train.ipynb"
    used = {n.id for n in ast.walk(ast.parse(_code(path))) if isinstance(n, ast.Name)
            and isinstance(n.ctx, ast.Load)}  # fmt: skip
    assert {p.name for p in describe_parameters(path)} <= used


def _code(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")
