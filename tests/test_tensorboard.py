"""What TensorBoard's own reader finds in the events of a run."""

import json
import shutil
from pathlib import Path

import pytest

from senet_lib.cli import main
from senet_lib.tensorboard import events_of

pytest.importorskip("tensorboard")
TINY = ("--data", "shapes", "--train-images", "64", "--schedule", "--progress", "none")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("clone") / "runs"
    for model in ("se_resnet20", "resnet20"):
        words = ["train", "--model", model, "--epochs", "2", *TINY, "--threads", "1"]
        words += ["--tensorboard", str(root.with_name("live"))]
        assert main([*words, "--out", str(root / "few" / model / "seed0")]) == 0
    return root


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_curves_gates_and_settings(runs, tmp_path):
    assert main(["tensorboard", "--root", str(runs), "--logdir", str(tmp_path)]) == 0
    events = read(tmp_path / "few" / "se_resnet20" / "seed0")
    record = json.loads((runs / "few/se_resnet20/seed0/record.json").read_text())
    points = events.Scalars("error/test")
    assert [point.step for point in points] == [1, 2]
    assert points[-1].value == pytest.approx(record["test_error"])
    layers = [tag for tag in events.Tags()["histograms"] if tag.startswith("gates/")]
    assert len(layers) == 9
    for layer in layers:
        (kept,) = events.Histograms(layer)
        histogram = kept.histogram_value
        assert 0 <= histogram.min <= histogram.max <= 1
        assert histogram.num == 256 * {"1": 16, "2": 32, "3": 64}[layer[len("gates/stage")]]
    assert events.Scalars("error/final")[0].value == pytest.approx(record["test_error"])
    for model in ("se_resnet20", "resnet20"):
        live = read(runs.with_name("live") / "few" / model / "seed0")
        assert [point.step for point in live.Scalars("loss/train")] == [1, 2]
        assert live.Scalars("error/final")
    plain = read(tmp_path / "few" / "resnet20" / "seed0")
    assert not plain.Tags()["histograms"]
    assert plain.Scalars("loss/train")


def test_a_run_without_weights_has_its_curves_and_dots_lead_nowhere(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "few/se_resnet20/seed0", tmp_path / "runs/few/se_resnet20/seed0")
    (run / "weights.safetensors").unlink()
    words = ["tensorboard", "--root", str(tmp_path / "runs"), "--logdir", str(tmp_path / "log")]
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    assert len(read(tmp_path / "log/few/se_resnet20/seed0").Scalars("rate")) == 2
    assert events_of(tmp_path / "a/b/../c", "log") == Path("log", tmp_path.name, "a", "c")


def test_a_run_that_is_left_out_keeps_its_events(runs, tmp_path, capsys, prints):
    run = shutil.copytree(runs / "few/se_resnet20/seed0", tmp_path / "runs/few/se_resnet20/seed0")
    words = ["tensorboard", "--root", str(tmp_path / "runs"), "--logdir", str(tmp_path / "log")]
    prints(*words)
    (run / "weights.safetensors").write_bytes(b"damaged")
    assert main(words) == 1
    assert "is left out" in capsys.readouterr().err
    events = read(tmp_path / "log/few/se_resnet20/seed0")
    assert len(events.Tags()["histograms"]) == 9
    assert len(events.Scalars("rate")) == 2


def test_runs_at_any_depth_have_events_of_their_own(runs, tmp_path, prints, monkeypatch):
    names = (
        "tuning/a",
        "few/trial3",
        "deep/one/m/seed0",
        "deep/other/m/seed0",
        "few/.copy/m/seed0",
    )
    monkeypatch.chdir(tmp_path)
    for name in names:
        folder = Path("outputs/runs", name)
        folder.mkdir(parents=True)
        shutil.copy(runs / "few/resnet20/seed0/history.csv", folder)
    found = prints("tensorboard", "--logdir", "log").splitlines()
    assert found == sorted(f"log/{name}" for name in names[:-1])
    assert len(read(tmp_path / "log/tuning/a").Scalars("rate")) == 2
    assert prints("tensorboard", "few", "--logdir", "log").split() == ["log/few/trial3"]
    live = [events_of(Path("outputs/runs", name), "log") for name in names[:-1]]
    assert sorted(map(str, live)) == found


def test_a_root_is_seen_from_the_top_of_the_clone(runs, prints, monkeypatch, tmp_path):
    for name in ("senet_lib", "notebooks"):
        (runs.parent / name).mkdir()
    (runs.parent / "Snakefile").touch()
    monkeypatch.chdir(runs.parent / "notebooks")
    words = ("--root", "runs", "--no-gates", "--logdir", str(tmp_path))
    folders = prints("tensorboard", "few", *words).split()
    assert folders == [str(tmp_path / f"few/{name}/seed0") for name in ("resnet20", "se_resnet20")]


def test_again_replaces_a_run_under_way_is_shown_and_nothing_is_one_line(
    runs, tmp_path, capsys, says
):
    shutil.copytree(runs / "few", tmp_path / "runs" / "few")
    (tmp_path / "runs/few/resnet20/seed0/record.json").unlink()
    for _ in range(2):
        words = ["tensorboard", "--root", str(tmp_path / "runs"), "--logdir", str(tmp_path / "log")]
        assert main([*words, "--no-gates"]) == 0
    for model in ("resnet20", "se_resnet20"):
        assert len(read(tmp_path / "log" / "few" / model / "seed0").Scalars("rate")) == 2
    begun = tmp_path / "runs/few/odd/seed0/history.csv"  # of a run that was stopped
    for damaged in (b"", b"epoch,lr\n1,x\n", b"epoch\n\xff", b"a\n1,2\n1,2,3\n", b"lr\n1\n"):
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.write_bytes(damaged)
        assert main([*words, "--no-gates"]) == 1
        assert "history.csv is damaged" in capsys.readouterr().err
    shutil.rmtree(begun.parents[1])
    (tmp_path / "runs/few/resnet20/seed0/record.json").write_text("{")
    capsys.readouterr()
    assert main(words) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(tmp_path / "log/few/se_resnet20/seed0")]
    assert "resnet20/seed0 is left out: " in printed.err
    for study, root in (("*", tmp_path / "none"), ("/few", runs), ("f**z", runs)):
        says(["tensorboard", study, "--root", root, "--logdir", tmp_path])


def test_recipes_without_a_name_do_not_share_events(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for lr in ("0.1", "0.2"):
        words = ["train", "--model", "resnet20", "--epochs", "1", "--lr", lr, *TINY]
        for logdir in ("log", "later"):  # the second time the run is finished
            assert main([*words, "--threads", "1", "--tensorboard", logdir]) == 0
    runs = list((tmp_path / "outputs/runs").glob("*/resnet20/seed0"))
    assert len(runs) == 2
    for run in runs:
        for logdir in ("log", "later"):
            events = read(tmp_path / logdir / run.relative_to(tmp_path / "outputs/runs"))
            assert len(events.Scalars("loss/train")) == 1
