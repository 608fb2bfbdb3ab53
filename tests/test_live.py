"""The live display of a run: what it draws, and a kernel that is interrupted and goes on."""

import math

import pytest

from senet_lib.training import plan
from senet_lib.training import progress as live
from senet_lib.training.fit import fit
from senet_lib.training.progress import choose_mode


def history(*losses: float, test: float = 0.5) -> list[dict[str, float]]:
    """One row an epoch; every error is the test error, every loss the training loss."""
    names = ("epoch", "train_loss", "test_loss", "train_error", "test_error")
    return [dict(zip(names, (e, x, x, test, test), strict=True)) for e, x in enumerate(losses, 1)]


def curves(rows: list[dict[str, float]], epochs: int) -> list[list[list[float]]]:
    """The points of the four curves: loss of training and test, error of training and test."""
    figure = live.draw_curves(rows, epochs, "test")
    return [line.get_xydata().tolist() for axes in figure.axes for line in axes.lines]


def test_the_points_are_the_epochs_values_and_what_was_not_measured_is_left_out():
    loss, _, error, _ = curves(history(2.0, 1.0, 0.5, test=0.25), 3)
    assert loss == [[1, 2], [2, 1], [3, 0.5]]
    assert error == [[1, 25], [2, 25], [3, 25]]
    rows = history(2.0, 1.5, 1.0, 0.9)
    rows[0]["test_error"] = rows[2]["test_error"] = math.nan
    rows[1]["train_loss"] = math.inf
    assert [len(points) for points in curves(rows, 4)] == [3, 4, 4, 2]
    assert not any(curves([], 4))


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
    assert "again" in line
    assert caught.value.__suppress_context__
