"""The live display of a run: what it draws, and a kernel that is interrupted and goes on."""

import math
import os
import shutil
from pathlib import Path

import nbformat
import pytest

from senet_lib.training import fit as train
from senet_lib.training import progress as live
from senet_lib.training.progress import choose_mode

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "train.ipynb"
SETTINGS = """
model, epochs, batch_size, train_images, threads = "resnet20", 3, 32, 160, 1
precision, compile, out = "fp32", "off", {out!r}
"""


def history(*losses: float, test: float = 0.5) -> list[dict[str, float]]:
    """One row an epoch; every error is the test error, every loss the training loss."""
    return [
        {
            "epoch": epoch,
            "train_loss": loss,
            "test_loss": loss,
            "train_error": test,
            "test_error": test,
        }
        for epoch, loss in enumerate(losses, 1)
    ]


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

    monkeypatch.setattr(train, "load_data", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        train.fit(model="resnet20", data="shapes", out=tmp_path / "run")
    (line,) = caught.value._render_traceback_()
    assert "\n" not in line
    assert "Run this cell again" in line
    assert caught.value.__suppress_context__


# In a kernel


class Kernel:
    """A kernel in which cells are executed, with what they put out."""

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import start_new_kernel

        environment = {k: v for k, v in os.environ.items() if k != "SENET_PROGRESS"}
        self.manager, self.client = start_new_kernel(
            kernel_name="python3", cwd=str(folder), env=environment
        )

    def execute(self, code: str, interrupt_at: str = "") -> list[tuple[str, str]]:
        """Execute a cell; returns (kind of message, its text). The kernel is interrupted when a
        message has a certain text for the first time."""
        asked, found = self.client.execute(code), []
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind == "status" and content["execution_state"] == "idle":
                return found
            if kind in ("display_data", "update_display_data"):
                found.append((kind, content["data"]["text/plain"]))
            elif kind == "stream":
                found.append((kind, content["text"]))
            elif kind == "error":
                found.append((kind, "\n".join(content["traceback"])))
            if interrupt_at and found and interrupt_at in found[-1][1]:
                self.manager.interrupt_kernel()
                interrupt_at = ""

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path):
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


def texts(messages: list[tuple[str, str]], kind: str) -> str:
    return "\n".join(text for k, text in messages if k == kind)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupted_notebook_goes_on_where_it_stopped(kernel, tmp_path):
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    settings = SETTINGS.format(out=str(tmp_path / "run"))
    assert not kernel.execute(cells["parameters"] + settings)

    first = kernel.execute(cells["recipe"], interrupt_at="epoch 2 of 3, step 0")
    assert "epoch 1 of 3" in texts(first, "display_data")
    assert "after epoch 1 of 3" in texts(first, "update_display_data")
    assert first[-2][1].startswith("stopped in epoch 2 of 3")
    assert first[-1][0] == "error"
    assert "\n" not in first[-1][1]
    assert first[-1][1].startswith("Interrupted in epoch 2 of 3 after step ")
    assert (tmp_path / "run" / "checkpoint.pt").is_file()

    again = kernel.execute(cells["recipe"])
    assert "going on in epoch 2, step " in texts(again, "stream")
    assert "after epoch 1 of 3" in texts(again, "display_data")  # the curves so far
    shown = texts(again, "update_display_data")
    assert "epoch 1 of 3, step" not in shown
    assert "after epoch 3 of 3" in shown
    assert again[-1][1].startswith("3 epochs in ")
    assert not texts(again, "error")
    done = kernel.execute("print(run.history.epoch.tolist())")
    assert texts(done, "stream") == "[1, 2, 3]\n"

    shutil.rmtree(tmp_path / "run")
    quiet = "import os; os.environ['SENET_PROGRESS'] = 'log'\n"
    lines = kernel.execute(quiet + cells["recipe"])
    assert {kind for kind, _ in lines} == {"stream"}
    printed = texts(lines, "stream").split("\n")
    assert [line[:8] for line in printed if line.startswith("Epoch")] == [
        f"Epoch {e} " for e in (1, 2, 3)
    ]
