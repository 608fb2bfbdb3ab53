"""Figures: what is drawn, and that it is described."""

import base64
import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_runs import make_run
from matplotlib.image import imread

from senet_lib.analysis import families
from senet_lib.figures import style
from senet_lib.figures.errors import confusion
from senet_lib.report.table import GROUND, show, table

MODELS = ["resnet20", "se_resnet20", "res2net29", "se_res2net29", "se_res2net29_last"]


def test_equal_variants_have_one_colour_and_too_many_to_tell_apart_share_one():
    colours = style.colours_of(MODELS)
    assert colours["resnet20"] == colours["res2net29"]
    assert colours["se_resnet20"] == colours["se_res2net29"]
    assert len({colours[m] for m in ("resnet20", "se_resnet20", "se_res2net29_last")}) == 3
    sizes = (2, 4, 8, 32, 64, 128)
    names = ["resnet20", "se_resnet20", *(f"se_resnet20+reduction={r}" for r in sizes)]
    assert len(set(style.colours_of(names).values())) == 3
    assert style.legend_name(names[3], "x", names) != "x"
    assert style.legend_name("se_resnet20", "with SE", names) == "with SE"
    few = names[:4]
    assert len(set(style.colours_of(few).values())) == 4
    assert style.legend_name(few[3], "x", few) == "x"


def test_a_variant_knows_its_plain_network_and_families_stand_together(tmp_path):
    for model, kin, kind in (
        ("resnet20", "resnet20", "plain"), ("se_resnet20", "resnet20", "se"),
        ("se_resnet20+reduction=8", "resnet20", "se reduction=8"),
        ("resnet20+attention=eca", "resnet20", "attention=eca"),
        ("se_res2net29_last", "res2net29", "se last"),
        ("se_res2net29+gate_at=output", "res2net29", "se gate_at=output"),
        ("se_wrn16_8", "wrn16_8", "se"),
        ("resnet20+shortcut=A", "resnet20+shortcut=A", "plain"),
        ("se_resnet20+reduction=8+shortcut=A", "resnet20+shortcut=A", "se reduction=8"),
    ):  # fmt: skip
        names = ["resnet20", "res2net29", "wrn16_8", model]
        assert families.family(model, names) == kin
        assert families.variant(model, names) == kind
    names = ["se_resnet20", "res2net29", "resnet20", "se_res2net29"]
    groups = families.by_model([make_run(tmp_path, name, 0, 0.5) for name in names])
    assert list(groups) == ["resnet20", "se_resnet20", "res2net29", "se_res2net29"]


def test_a_figure_is_shown_as_reproducible_svg_with_words(monkeypatch):
    before, shown = dict(matplotlib.rcParams), []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a[0], k)))
    for _ in range(2):
        figure = confusion(np.array([[3, 1], [0, 0]]), ["$\\x$", "dog"])  # shares of the true class
        assert [text.get_text() for text in figure.axes[0].texts] == ["75", "25"]
        show(figure)
    (data, options), (again, _) = shown
    assert data == again
    assert GROUND in data["image/svg+xml"]  # or dark ink would stand on a dark notebook
    picture = imread(io.BytesIO(base64.b64decode(data["image/png"])))
    assert picture[0, 0].tolist() == [1, 1, 1, 1]
    assert options["metadata"]["image/svg+xml"]["alt"] == data["text/plain"]
    assert data["text/plain"].endswith("$\\x$ 75.")  # of the other class there is no image
    assert dict(matplotlib.rcParams) == before  # the style does not leak
    small = confusion(np.array([[198, 1, 1], [0, 197, 3], [0, 0, 1]]), ["a", "b", "c"])
    # Half a percent, which would be written 0, is left out.
    assert [text.get_text() for text in small.axes[0].texts] == ["99", "98", "2", "100"]
    assert not confusion(np.eye(100, dtype=int), list(map(str, range(100)))).axes[0].texts
    with pytest.raises(ValueError, match="description"):
        show(matplotlib.figure.Figure())


def test_an_index_that_only_counts_is_left_out_and_one_with_a_name_stays():
    frame = pd.DataFrame({"mean gate": [0.25, 0.5]})
    counts, stages = (table(f).to_html() for f in (frame, frame.rename_axis("stage")))
    assert ("row_heading" in counts, "row_heading" in stages) == (False, True)
