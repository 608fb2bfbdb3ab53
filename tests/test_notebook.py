"""Notebooks as batch jobs, and the rules the repository's own notebooks keep."""

import ast
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from senet_lib.errors import ParameterError, SenetError
from senet_lib.recipe import Recipe
from senet_lib.report.batch import NotebookFailedError, code_hash, execute
from senet_lib.report.parameters import check_parameters, describe_parameters, find_notebook

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


def test_parameters_are_read_with_their_types_and_help(notebook):
    found = {p.name: p for p in describe_parameters(notebook)}
    assert {name: p.kind for name, p in found.items()} == {
        "name": "str", "count": "int", "rate": "float", "flag": "bool", "steps": "list",
        "loose": "list",
    }  # fmt: skip
    assert (found["name"].default, found["name"].help) == ("a # b", "a text, with a # in it")
    assert found["flag"].help == ""


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
        ("coumt", 1), ("loose", "[" * 3000), ("rate", 10**400),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused_with_the_one_expected(notebook, tmp_path, name, given):
    defaults = {p.name: repr(p.default) for p in describe_parameters(notebook)}
    with pytest.raises(ParameterError) as caught:
        execute(notebook, tmp_path / "out/n.ipynb", {name: given})
    assert name in str(caught.value)
    assert not re.search(r"\b(str|int|float|bool)\b", str(caught.value).split(", such as")[0])
    assert defaults.get(name, "did you mean count") in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_notebooks_are_found_by_name_and_by_path(tmp_path, monkeypatch, notebook):
    monkeypatch.chdir(tmp_path)
    assert find_notebook("train") == REPOSITORY / "notebooks" / "train.ipynb"
    (tmp_path / "notebooks").mkdir()
    mine = write(tmp_path / "notebooks" / "train.ipynb")
    assert find_notebook("train").resolve() == mine
    assert find_notebook(notebook) == notebook
    for wrong, says in (("trian", "train"), ("elsewhere/x.ipynb", "elsewhere")):
        with pytest.raises(SenetError, match=says):
            find_notebook(wrong)


def test_what_a_notebook_imports_decides_whether_it_is_made_again():
    """What networks come from counts in train alone, as the others are made again after it."""
    snakefile = (REPOSITORY / "Snakefile").read_text(encoding="utf-8")
    calls = re.findall(r'hashed\(\s*"(\w+)\.ipynb",([^)]*)', snakefile)
    counted = {name: set(re.findall(r'"([\w/]+)(?:\.py)?"', words)) for name, words in calls}
    assert len(counted) == 6
    for name, folders in counted.items():
        text = (REPOSITORY / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
        found = re.findall(r"from senet_lib\.([\w.]+) import", text)
        modules = {module.replace(".", "/") for module in found}
        known = folders | counted["train"] | {"errors", "explore"}
        assert {m for m in modules if known.isdisjoint({m, m.partition("/")[0]})} == set(), name


def test_the_hash_follows_code_and_sources_and_nothing_else(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1")

    def hashed(epochs: int, *code: str, outputs=()) -> str:
        path = write(tmp_path / "n.ipynb", *code, parameters=f"epochs = {epochs}  # some")
        content = json.loads(path.read_text())
        content["cells"][1] |= {"outputs": list(outputs), "execution_count": len(outputs)}
        path.write_text(json.dumps(content))
        return code_hash(path, [package])

    function = 'def f(x):\n    """{}"""\n    return x + {}'
    one = function.format("One.", 1), "%time f(1)"
    before = hashed(5, *one)
    shown = {"output_type": "stream", "name": "stdout", "text": "x"}
    assert hashed(5, *one, outputs=[shown]) == before
    assert hashed(7, "# new\n" + function.format("Two.", 1) + "  # why", "%time f(1)") == before
    assert hashed(5, function.format("One.", 2), "%time f(1)") != before
    assert hashed(5, function.format("One.", 1), "%time f(2)") != before
    (package / "notes.txt").write_text("not code")
    (package / ".ipynb_checkpoints").mkdir()
    (package / ".ipynb_checkpoints" / "a.py").write_text("an editor's copy")
    assert hashed(5, *one) == before
    (package / "b.py").write_text("")
    assert hashed(5, *one) != before
    (package / "b.py").unlink()
    (package / "a.py").write_text("2")
    assert hashed(5, *one) != before


def test_a_notebook_runs_with_this_interpreter_in_this_folder(tmp_path, monkeypatch, capfd):
    """One line of 200,000 characters takes nbclient's own way of joining a minute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SENET_PROGRESS", raising=False)
    bar = "import sys\nfor k in range(3):\n    print(k, end='\\r', file=sys.stderr, flush=True)"
    path = write(
        tmp_path / "n.ipynb",
        "import os, sys\nprint('Epoch 1 - Loss: 0.5')",
        "print('x' * 200_000)",
        bar,
        "print('a')\nprint('b\\r\\nc')",
        "print([sys.executable, os.getcwd(), os.environ['SENET_PROGRESS'], name, count, steps])",
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out/failed.json").write_text("{}")
    given = {"name": "n'\n", "count": "5", "steps": "[9]"}
    began = time.monotonic()
    out = execute(path, tmp_path / "out/done.ipynb", given, html=tmp_path / "out/done.html")
    assert time.monotonic() - began < 50
    done = json.loads(out.read_text(encoding="utf-8"))
    texts = ["".join(o["text"]) for cell in done["cells"] for o in cell["outputs"]]
    *texts, printed = texts
    assert texts == ["Epoch 1 - Loss: 0.5\n", "x" * 200_000 + "\n", "2", "a\nb\nc\n"]
    assert ast.literal_eval(printed) == [sys.executable, str(tmp_path), "log", "n'\n", 5, [9]]
    assert sorted(p.name for p in out.parent.iterdir()) == ["done.html", "done.ipynb"]
    assert "partial" not in json.dumps(done["metadata"])
    assert "Epoch 1 - Loss: 0.5\n" in capfd.readouterr().err


def test_a_page_elsewhere_leads_where_the_notebook_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = "[costs](costs.html) [other](http://x.org/) [below](#x)"
    path = write(
        tmp_path / "n.ipynb",
        f"from IPython.display import Markdown\nMarkdown({shown!r})",
        parameters='study = "s"  # of\npage_folder = ""  # where the page will be\n',
    )
    reports = "outputs/reports/s"
    (tmp_path / reports).mkdir(parents=True)
    for page, costs in ((f"{reports}/n", "costs.html"), ("n", f"{reports}/costs.html")):
        execute(path, tmp_path / "out.ipynb", html=f"{page}.html")
        text = (tmp_path / f"{page}.html").read_text(encoding="utf-8")
        assert all(f'<a href="{to}">' in text for to in (costs, "http://x.org/", "#x"))


def test_a_failing_cell_leaves_the_partial_notebook_and_the_old_result(tmp_path):
    path = write(tmp_path / "n.ipynb", "print('before')", "raise ValueError('no <good>')", "3")
    out = tmp_path / "out/n.ipynb"
    out.parent.mkdir()
    out.write_text("the result of last time")
    with pytest.raises(NotebookFailedError) as caught:
        execute(path, out, html=tmp_path / "out/n.html")
    error = caught.value
    assert (error.notebook, error.cell, error.error) == ("n", 2, "ValueError")
    assert "\n" not in str(error)
    assert all(part in str(error) for part in ("ValueError: no <good>", str(error.partial)))
    assert out.read_text() == "the result of last time"
    assert not (out.parent / "n.html").exists()
    cells = json.dumps(json.loads(error.partial.read_text())["cells"])
    assert "before\\n" in cells
    failure = json.loads((out.parent / "failed.json").read_text())
    assert (failure["error"], failure["message"], failure["cell"]) == ("ValueError", "no <good>", 2)
    assert failure["notebook"] == "n.partial.ipynb"


def test_a_kernel_that_dies_is_a_failure_of_its_cell(tmp_path):
    path = write(tmp_path / "n.ipynb", "import os", "os.kill(os.getpid(), 9)", "3")
    with pytest.raises(NotebookFailedError, match="memory") as caught:
        execute(path, tmp_path / "out/n.ipynb")
    assert (caught.value.cell, caught.value.error) == (2, "DeadKernelError")
    assert (tmp_path / "out/failed.json").exists()


@pytest.mark.parametrize("name", ["RunStopped", "Interrupted"])
def test_a_run_that_was_stopped_is_not_a_failed_run(tmp_path, name):
    base = {"RunStopped": "Exception", "Interrupted": "KeyboardInterrupt"}[name]
    path = write(tmp_path / "n.ipynb", f"class {name}({base}): pass\nraise {name}('limit')")
    with pytest.raises(NotebookFailedError, match=f"{name}: limit"):
        execute(path, tmp_path / "out/n.ipynb")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["n.partial.ipynb"]


def test_places_are_checked_before_the_notebook_runs(tmp_path, notebook):
    (tmp_path / "file").touch()
    (tmp_path / "folder.html").mkdir()
    free = tmp_path / "o.ipynb"
    for out, html in (
        (free, tmp_path / "file/o.html"), (free, tmp_path / "folder.html"), (notebook, None),
        (tmp_path / "file/o.ipynb", None), (notebook.with_suffix(".txt"), None),
        (free, tmp_path / "page.htm"),
    ):  # fmt: skip
        with pytest.raises(SenetError, match=re.escape(Path(html or out).name)):
            execute(notebook, out, html=html)
    assert not [path for path in tmp_path.glob("*.ipynb") if path != notebook]
    partial = notebook.rename(tmp_path / "mine.partial.ipynb")
    text = partial.read_text(encoding="utf-8")
    with pytest.raises(SenetError, match=r"mine\.partial\.ipynb is the notebook itself"):
        execute(partial, tmp_path / "mine.ipynb")
    assert partial.read_text(encoding="utf-8") == text


def test_what_cannot_be_run_is_refused(tmp_path, notebook):
    out = tmp_path / "o.ipynb"
    for key in ("kernelspec", "language_info"):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        content["metadata"] = {key: {"name": "julia", "language": "julia", "display_name": "J"}}
        (tmp_path / "j.ipynb").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(SenetError, match="julia"):
            execute(tmp_path / "j.ipynb", out)
    cells = (1, {"source": 3}, {"source": [3]}, {"source": "", "metadata": None},
             {"source": "", "metadata": {"tags": None}})  # fmt: skip
    odd = [{"cells": [cell]} for cell in cells] + [{"cells": [], "metadata": {"kernelspec": None}}]
    for text in ("[]", "{}", *map(json.dumps, odd), "[" * 5000, "no json"):
        notebook.write_text(text, encoding="utf-8")
        with pytest.raises(SenetError, match="is not a notebook"):
            execute(notebook, out)
    for cell in ("a = b", "a = f(1)", "a: int = 3", "a = c = 1", "import os", "a = None", "a = {}",
                 "a = ("):  # fmt: skip
        with pytest.raises(ParameterError):  # a parameters' cell holds plain values alone
            describe_parameters(write(notebook, parameters=cell))
    assert not out.exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs signals, and /proc")
@pytest.mark.parametrize("both", [False, True])
def test_sigterm_stops_the_kernel_and_leaves_the_partial_notebook(tmp_path, both):
    """SLURM sends it to the kernel too, which first has a checkpoint to write."""
    sleeps = "import os, time; print(f'kernel {os.getpid()}'); time.sleep(90)"
    writes = "import signal; signal.signal(signal.SIGTERM, lambda *_: time.sleep(1) or 1 / 0)\n"
    write(tmp_path / "n.ipynb", f"import time; {writes}{sleeps}" if both else sleeps)
    code = "from senet_lib.report.batch import execute; execute('./n.ipynb', 'out/n.ipynb')"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    how = {"cwd": tmp_path, "env": environment, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], **how)
    line = next(line for line in process.stderr if line.startswith("kernel "))
    if both:
        os.kill(int(line.split()[1]), signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert "Traceback" not in process.communicate(timeout=30)[1]
    assert process.returncode == 128 + signal.SIGTERM
    kernel, deadline = Path("/proc", line.split()[1]), time.monotonic() + 15
    while kernel.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not kernel.exists()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["n.partial.ipynb"]
    assert not list((tmp_path / "tmp").glob("senet-*"))


@pytest.mark.parametrize("name", sorted(p.stem for p in (REPOSITORY / "notebooks").glob("*.ipynb")))
def test_a_notebook_keeps_the_house_rules(name):
    notebook = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].source.splitlines()[0].endswith("?")
    assert "## What would change our mind" in prose
    assert "## Limits" in prose
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert all(p.help for p in describe_parameters(REPOSITORY / f"notebooks/{name}.ipynb"))
    for cell in code:
        assert not cell.outputs
        assert cell.execution_count is None
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


def test_the_training_notebook_has_every_field_of_a_recipe_and_uses_every_parameter():
    path = REPOSITORY / "notebooks" / "train.ipynb"
    defaults = {p.name: p.default for p in describe_parameters(path)}
    fields = {f.name for f in dataclasses.fields(Recipe)}
    Recipe.from_dict({name: defaults[name] for name in fields})
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    nodes = list(ast.walk(ast.parse(code)))
    (call,) = [n for n in nodes if getattr(getattr(n, "func", None), "id", "") == "Recipe"]
    assert {keyword.arg for keyword in call.keywords} == fields
    used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert defaults.keys() <= used
