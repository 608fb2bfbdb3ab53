"""The numbers of gates beside a report: written whole, read back, shown in one table."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fake_runs import settings

from senet_lib.analysis.gates import Scores
from senet_lib.errors import RecordError
from senet_lib.report.gate_summary import gate_table, write_summary
from senet_lib.runs.study import collect

SHARES = ["mean", "near_zero_share", "near_one_share", "constant_share", "class_share"]


def subject(model):
    run = SimpleNamespace(model=model, seed=0, study="demo")
    return SimpleNamespace(run=run, labels=np.zeros(1000))


def layers(stages, values):
    """One row a layer; all shares of a layer are equal."""
    rows = [{"layer": f"l{i}", "stage": s, **dict.fromkeys(SHARES, v)}
            for i, (s, v) in enumerate(zip(stages, values, strict=True))]  # fmt: skip
    return pd.DataFrame(rows)


def scores(wrong):
    return Scores(wrong=np.arange(10) < wrong, losses=np.zeros(10))


FIXED = {"none": scores(2), "stage 1": scores(3), "all": scores(5)}


@pytest.fixture
def study(tmp_path):
    return collect("demo", json.dumps(settings()), str(tmp_path / "runs"), str(tmp_path / "page"))


def test_first_and_last_stage_stand_side_by_side(study):
    table = layers([1, 1, 2, 3], [0.2, 0.4, 0.9, 0.6])  # stage 1: 0.3 in the mean
    path = write_summary(subject("se_resnet20"), table, FIXED, study.page_folder)
    assert path.name == "gates-se_resnet20.json"
    page = study.page_folder / "excitation-se_resnet20.html"
    page.write_text("page")
    shown = gate_table(study)
    (row,) = shown.frame.to_dict("records")
    assert row["network"].target == page.name
    assert row["gates of"] == "4 layers"
    assert row["mean, first to last stage"] == "0.30 to 0.60"
    assert row["between classes %"] == "30.00 to 60.00"
    assert (row["error %"], row["with fixed gates"]) == ("20.00", "+30.00")
    assert "1,000 images, seed 0" in shown.caption


def test_layers_without_stages_have_dashes_and_no_page_no_link(study):
    write_summary(subject("odd"), layers([None], [0.2]), FIXED, study.page_folder)
    (row,) = gate_table(study).frame.to_dict("records")
    assert (row["network"], row["between classes %"]) == ("odd", "–")


def test_nothing_looked_at_is_said_and_a_broken_file_named(study):
    assert "No gates of this study" in gate_table(study)._repr_html_()
    study.page_folder.mkdir()
    path = study.page_folder / "gates-a.json"
    path.write_text("{")
    with pytest.raises(RecordError, match="not readable JSON"):
        gate_table(study)
    path.write_text('{"model": "a"}')
    with pytest.raises(RecordError, match="it lacks seed, images"):
        gate_table(study)
