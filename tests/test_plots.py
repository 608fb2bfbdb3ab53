"""Figures: what is drawn, and that it is described."""

import io

import numpy as np
import pytest
from fake_runs import make_run

from senet_lib.analysis import families
from senet_lib.figures import errors as plots
from senet_lib.figures import style
from senet_lib.report.table import show

MODELS = ["resnet20", "se_resnet20", "res2net29", "se_res2net29", "se_res2net29_last"]


@pytest.fixture
def runs(tmp_path):
    errors = {
        ("resnet20", 0): 0.5,
        ("resnet20", 1): 0.6,
        ("se_resnet20", 0): 0.4,
        ("se_resnet20", 1): 0.45,
        ("res2net29", 0): 0.3,
    }
    return [make_run(tmp_path, model, seed, e) for (model, seed), e in errors.items()]


@pytest.mark.parametrize(
    ("model", "family", "variant"),
    [
        ("resnet20", "resnet20", "plain"),
        ("se_resnet20", "resnet20", "se"),
        ("se_res2net29_last", "res2net29", "se last"),
        ("resnet20 (attention=eca)", "resnet20", "attention=eca"),
        ("se_wrn16_8", "wrn16_8", "se"),
    ],
)
def test_a_variant_belongs_to_its_plain_network(model, family, variant):
    models = [*MODELS, "wrn16_8", "se_wrn16_8", "resnet20 (attention=eca)"]
    assert families.family(model, models) == family
    assert families.variant(model, models) == variant


def test_equal_variants_look_the_same_in_every_family():
    look = style.looks(MODELS)
    assert look["resnet20"] == look["res2net29"]
    assert look["se_resnet20"] == look["se_res2net29"]
    assert len({look[m].color for m in ("resnet20", "se_resnet20", "se_res2net29_last")}) == 3
    assert len({look[m].marker + look[m].fill for m in ("resnet20", "se_resnet20")}) == 2


def test_groups_keep_families_together_with_the_plain_network_first(tmp_path):
    names = ["se_resnet20", "res2net29", "resnet20", "se_res2net29"]
    groups = families.by_model([make_run(tmp_path, name, 0, 0.5) for name in names])
    assert list(groups) == ["resnet20", "se_resnet20", "res2net29", "se_res2net29"]


def test_too_many_variants_to_tell_apart_share_one_look_and_one_name():
    sizes = (2, 4, 8, 32, 64, 128)
    names = ["resnet20", "se_resnet20", *(f"se_resnet20+reduction={r}" for r in sizes)]
    look = style.looks(names)
    assert len({look[name] for name in names}) == 3
    assert style.legend_name(names[3], "x", names) == "other variants"
    assert style.legend_name("se_resnet20", "with SE", names) == "with SE"
    few = names[:4]
    assert len({style.looks(few)[name] for name in few}) == 4
    assert style.legend_name(few[3], "x", few) == "x"


@pytest.mark.parametrize(
    ("model", "kin", "kind"),
    [
        ("resnet20", "resnet20", "plain"),
        ("se_resnet20", "resnet20", "se"),
        ("se_resnet20+reduction=8", "resnet20", "se reduction=8"),
        ("resnet20+attention=eca", "resnet20", "attention=eca"),
        ("se_res2net29_last", "res2net29", "se last"),
        ("se_res2net29+gate_at=output", "res2net29", "se gate_at=output"),
    ],
)
def test_a_variant_knows_its_plain_network(model, kin, kind):
    names = ["resnet20", "res2net29", model]
    assert families.family(model, names) == kin
    assert families.variant(model, names) == kind


def test_run_curves_scale_errors_to_percent(runs):
    loss, error = plots.run_curves(runs[0]).axes
    assert list(loss.lines[1].get_ydata()) == pytest.approx([1.4, 0.7])
    assert list(error.lines[1].get_ydata()) == pytest.approx([100, 50])


def test_confusion_shows_shares_of_the_true_class():
    figure = plots.confusion(np.array([[3, 1], [0, 0]]), ["cat", "dog"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["75", "25"]
    assert "cat 75, dog 0" in figure.get_label()
    assert not plots.confusion(np.eye(100, dtype=int), list(map(str, range(100)))).axes[0].texts


@pytest.mark.parametrize("count", [0, 1, 5])
def test_mistakes_take_any_number_of_images(count):
    images = np.zeros((count, 32, 32, 3), np.uint8)
    figure = plots.mistakes(images, [f"cat\ntaken for dog ({i} %)" for i in range(count)])
    assert sum(len(axes.images) for axes in figure.axes) == count
    assert figure.get_label()


def test_figures_are_shown_as_reproducible_svg_with_their_description(runs, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a[0], k)))
    show(plots.run_curves(runs[0]))
    show(plots.run_curves(runs[0]))
    (data, options), (again, _) = shown
    assert data["image/svg+xml"] == again["image/svg+xml"]
    assert options["metadata"]["image/svg+xml"]["alt"] == data["text/plain"]
    assert "error from 100.0 to 50.0 percent" in data["text/plain"]


def test_a_figure_without_a_description_is_refused():
    from matplotlib.figure import Figure

    with pytest.raises(ValueError, match="description"):
        show(Figure())


def test_the_style_does_not_leak(runs):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.run_curves(runs[0]).savefig(io.BytesIO())
    assert dict(matplotlib.rcParams) == before
