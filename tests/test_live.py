"""The live display of a run: what it draws, and a kernel that is interrupted and goes on."""

import math
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from senet_lib.training import plan
from senet_lib.training import progress as live
from senet_lib.training.fit import fit
from senet_lib.training.progress import choose_mode

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "train.ipynb"
SETTINGS = """
model, epochs, batch_size, train_images, threads = "resnet20", 3, 32, 160, 1
precision, compile, out = "fp32", "off", {out!r}
"""


def history(*losses: float, test: float = 0.5) -> list[dict[str, float]]:
    """One row an epoch; every error is the test error, every loss the training loss."""
    names = ("epoch", "train_loss", "test_loss", "train_error", "test_error")
    return [dict(zip(names, (e, x, x, test, test), strict=True)) for e, x in enumerate(losses, 1)]


def curves(rows: list[dict[str, float]], epochs: int) -> list[list[list[float]]]:
    """The points of the four curves: loss of training and test, error of training and test."""
    figure = live.draw_curves(rows, epochs, "test")
    return [line.get_xydata().tolist() for axes in figure.axes for line in axes.lines]


# What is drawn


def test_the_points_are_the_epochs_values():
    loss, _, error, _ = curves(history(2.0, 1.0, 0.5, test=0.25), 3)
    assert loss == [[1, 2], [2, 1], [3, 0.5]]
    assert error == [[1, 25], [2, 25], [3, 25]]


def test_what_was_not_measured_is_left_out():
    rows = history(2.0, 1.5, 1.0, 0.9)
    rows[0]["test_error"] = rows[2]["test_error"] = math.nan
    rows[1]["train_loss"] = math.inf
    assert [len(points) for points in curves(rows, 4)] == [3, 4, 4, 2]
    assert not any(curves([], 4))


@pytest.mark.parametrize(
    ("done", "epochs", "end"), [(3, 300, 10), (10, 300, 20), (170, 300, 300), (1, 8, 8)]
)
def test_the_axis_of_a_long_run_doubles_with_the_curves(done, epochs, end):
    figure = live.draw_curves(history(*[1.0] * done), epochs, "test")
    assert [round(axes.get_xlim()[1]) for axes in figure.axes] == [end, end]


def test_a_bar_needs_someone_who_watches(monkeypatch):
    monkeypatch.delenv("SENET_PROGRESS", raising=False)
    assert choose_mode("live") == "bar"  # this is no notebook
    monkeypatch.setattr("senet_lib.training.progress._in_notebook", lambda: True)
    assert choose_mode("auto") == "live"
    monkeypatch.setenv("SENET_PROGRESS", "log")
    assert choose_mode("auto") == "log"
    assert choose_mode("live") == "live"


def test_an_interrupt_while_the_data_are_read_is_one_line(monkeypatch, tmp_path):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "load_data", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(model="resnet20", data="shapes", out=tmp_path / "run")
    (line,) = caught.value._render_traceback_()
    assert "\n" not in line
    assert "Run this cell again" in line
    assert caught.value.__suppress_context__


# In a kernel


@pytest.fixture
def execute(tmp_path):
    """Executes a cell in a kernel of this test; gives (kind of message, its text) of what it puts
    out. The kernel is interrupted when a message has a certain text for the first time."""
    environment = {k: v for k, v in os.environ.items() if k != "SENET_PROGRESS"}
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path), env=environment)

    def call(code: str, interrupt_at: str = "") -> list[tuple[str, str]]:
        found, due = [], [interrupt_at] * bool(interrupt_at)

        def note(message):
            kind, content = message["msg_type"], message["content"]
            if kind in ("display_data", "update_display_data"):
                found.append((kind, content["data"]["text/plain"]))
            elif kind in ("stream", "error"):
                found.append((kind, content.get("text") or "\n".join(content["traceback"])))
            if found and due and due[0] in found[-1][1]:
                due.clear()
                manager.interrupt_kernel()

        client.execute_interactive(code, output_hook=note)
        return found

    yield call
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def texts(messages: list[tuple[str, str]], kind: str) -> str:
    return "\n".join(text for k, text in messages if k == kind)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupted_notebook_goes_on_where_it_stopped(execute, tmp_path):
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    settings = SETTINGS.format(out=str(tmp_path / "run"))
    assert not execute(cells["parameters"] + settings)

    first = execute(cells["recipe"], interrupt_at="epoch 2 of 3, step 0")
    assert "epoch 1 of 3" in texts(first, "display_data")
    assert "after epoch 1 of 3" in texts(first, "update_display_data")
    kind, line = first[-1]
    assert kind == "error"
    assert "\n" not in line
    # In the next epoch too, if the interrupt came that late.
    epoch = int(re.match(r"Interrupted in epoch ([23]) of 3 after step ", line)[1])
    assert first[-2][1].startswith(f"stopped in epoch {epoch} of 3")
    assert (tmp_path / "run" / "checkpoint.pt").is_file()

    again = execute(cells["recipe"])
    assert f"going on in epoch {epoch}, step " in texts(again, "stream")
    assert f"after epoch {epoch - 1} of 3" in texts(again, "display_data")  # the curves so far
    shown = texts(again, "update_display_data")
    assert "epoch 1 of 3, step" not in shown
    assert "after epoch 3 of 3" in shown
    assert again[-1][1].startswith("3 epochs in ")
    assert not texts(again, "error")
    done = execute("print(run.history.epoch.tolist())")
    assert texts(done, "stream") == "[1, 2, 3]\n"

    shutil.rmtree(tmp_path / "run")
    quiet = "import os; os.environ['SENET_PROGRESS'] = 'log'\n"
    lines = execute(quiet + cells["recipe"])
    assert {kind for kind, _ in lines} == {"stream"}
    printed = texts(lines, "stream").split("\n")
    starts = [line[:8] for line in printed if line.startswith("Epoch")]
    assert starts == [f"Epoch {epoch} " for epoch in (1, 2, 3)]
