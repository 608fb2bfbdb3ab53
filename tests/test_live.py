"""The live display of a run: what it draws, and a kernel that is interrupted and goes on."""

import math

import pytest

from senet_lib.training import plan
from senet_lib.training import progress as live
from senet_lib.training.fit import fit
from senet_lib.training.progress import choose_mode


def curves(*rows: tuple[float, ...]) -> list[list[list[float]]]:
    """The points of the four curves: loss of training and test, error of training and test."""
    names = ("train_loss", "test_loss", "train_error", "test_error")
    history = [{"epoch": e, **dict(zip(names, row, strict=True))} for e, row in enumerate(rows, 1)]
    figure = live.draw_curves(history, 3, "test")
    return [line.get_xydata().tolist() for axes in figure.axes for line in axes.lines]


def test_the_points_are_the_epochs_values_and_what_was_not_measured_is_left_out():
    rows = (2.0, 2.1, 0.5, math.nan), (math.inf, 1.1, 0.4, 0.3), (0.5, 0.6, 0.25, 0.2)
    train_loss, test_loss, train_error, test_error = curves(*rows)
    assert train_loss == [[1, 2], [3, 0.5]]
    assert test_loss == [[1, 2.1], [2, 1.1], [3, 0.6]]
    assert train_error == [[1, 50], [2, 40], [3, 25]]
    assert test_error == [[2, 30], [3, 20]]
    assert not any(curves())


def test_the_highest_point_is_whole():
    """Also where the curves are flat, so that the range of the values alone gives no room."""
    row = {"train_loss": 2.0, "test_loss": 2.01, "train_error": 0.9, "test_error": 0.9}
    for axes in live.draw_curves([{"epoch": 1, **row}, {"epoch": 2, **row}], 3, "test").axes:
        top = max(line.get_ydata().max() for line in axes.lines)
        assert 1.04 < axes.get_ylim()[1] / top < 1.2


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
