"""Published weights: which are offered, which are taken, and that they are what the record says."""

from pathlib import Path

import numpy as np
import pytest
from fake_runs import make_run

from senet_lib.errors import CheckpointError, RecordError, UnknownNameError
from senet_lib.evaluation import predict
from senet_lib.recipe import Recipe
from senet_lib.runs.published import (
    LICENCE,
    find_pretrained,
    list_pretrained,
    load_pretrained,
    training_in_words,
)
from senet_lib.runs.weights import WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
NUM_IMAGES = 200
PUBLISHED = list_pretrained(root=ROOT / "outputs" / "published").dropna(subset="num_bytes")
KEPT = PUBLISHED[["model", "seed", "study"]].to_records(index=False).tolist()


def published(root, seed=0, *, kept=True, **about):
    """A published run of one network, with weights if they are kept."""
    run = make_run(root / "runs", "resnet20", seed, 0.25, **{"data": "cifar10", **about})
    if kept:
        (run.path / WEIGHTS).write_bytes(b"weights")


@pytest.fixture
def root(tmp_path):
    """Four studies with one network; the weights of the longest are not kept."""
    published(tmp_path, study="few", recipe=Recipe(epochs=50, train_images=1000))
    published(tmp_path, study="many", recipe=Recipe(epochs=2, train_images=40_000))
    published(tmp_path, study="drawn", recipe=Recipe(epochs=3), data="shapes")  # all of 2,000
    published(tmp_path, study="all", recipe=Recipe(epochs=300), kept=False)
    return tmp_path


def test_the_table_says_what_each_file_is(root):
    table = list_pretrained(root=root)
    assert list(table["study"]) == ["all", "many", "drawn", "few"]
    assert list(table["num_images"]) == [50_000, 40_000, 2_000, 1_000]
    assert list(table["num_bytes"].fillna(0)) == [0, 7, 7, 7]
    assert set(table["licence"]) == {LICENCE}
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith(f"{LICENCE} License")
    assert (table["test_error"] == 0.25).all()
    assert "2 epochs over 40,000 images of cifar10" in table["protocol"][1]
    make_run(root / "runs", "se_resnet20", 0, 0.1, study="changed", overrides={"reduction": 4})
    assert list(list_pretrained("se_*", root)["model"]) == ["se_resnet20+reduction=4"]
    run = {"recipe": Recipe(epochs=1).to_dict(), "data": "cifar100", "num_val": 5000}
    assert "45,000" in training_in_words(run)  # held-out images are no training images


def test_the_one_trained_on_the_most_images_is_taken_and_of_these_for_the_most_epochs(root):
    assert find_pretrained("resnet20", root=root).study == "many"
    assert find_pretrained("resnet20", study="few", root=root).study == "few"
    published(root, study="again", recipe=Recipe(epochs=9, train_images=40_000))
    assert find_pretrained("resnet20", root=root).study == "again"


def test_what_is_not_there_is_said_in_one_line(root):
    published(root, 1, kept=False, study="few")
    published(root, 2, study="few")
    assert find_pretrained("resnet20", 2, root=root).seed == 2
    for name, seed, study, where, kind, says in (
        ("resnet21", 0, None, root, UnknownNameError, "did you mean resnet20"),
        ("resnet20", 3, None, root, UnknownNameError, "seed 3; known: 0"),
        ("resnet20", 0, "x", root, UnknownNameError, "known: all, drawn, few, many"),
        ("resnet20", 0, "all", root, CheckpointError, "4 MB"),
        ("resnet20", 1, None, root, CheckpointError, r"seed 1.*seed 0, 2"),
        ("resnet20", 0, None, root / "elsewhere", RecordError, "clone"),
    ):
        with pytest.raises(kind, match=says):
            find_pretrained(name, seed, study, root=where)


def test_the_command_lists_them(prints, says, monkeypatch, root):
    monkeypatch.setattr("senet_lib.runs.published.published_folder", lambda: root)
    _, *rows = prints("models", "--pretrained", "res*").splitlines()
    assert rows[0].startswith("resnet20  all")
    assert all(part in rows[0] for part in ("25.00", "1,234,567", "MIT"))
    says(["models", "--pretrained", "x*"], "'x[*]'")


@pytest.mark.parametrize(("name", "seed", "study"), KEPT)
def test_published_weights_give_the_published_logits(request, name, seed, study):
    """Rounding to half precision moves a weight by 2**-11 of its size at most; what is kept of the
    logits has five bits. A wrong normalisation or layer would move them by their own size."""
    run = find_pretrained(name, seed, study)
    images = request.getfixturevalue(run.data)  # the fixture of CIFAR-10 skips where it is missing
    network = load_pretrained(name, seed, study)
    assert not network.training
    logits = predict(network, images.x_test[:NUM_IMAGES], run.mean, run.std).numpy()
    labels = images.y_test[:NUM_IMAGES]
    recorded, recorded_labels = (array[:NUM_IMAGES] for array in run.test_logits())
    assert (labels == recorded_labels).all()
    below = logits - logits.max(1, keepdims=True)
    assert np.linalg.norm(below - recorded) < 0.03 * np.linalg.norm(recorded)
    wrong = (logits.argmax(1) != labels).mean()
    assert wrong == pytest.approx((recorded.argmax(1) != labels).mean(), abs=0.015)
    chance = (run.test_error * (1 - run.test_error) / NUM_IMAGES) ** 0.5
    assert abs(wrong - run.test_error) < 4 * chance
