"""The explorer's numbers against others worked out by hand, and its widgets without a browser."""

import io
import json
import shutil
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from browser import TINY_TEST_IMAGES, tiny_study
from PIL import Image

from senet_lib.analysis.cam import CamMaps
from senet_lib.analysis.gates import Gates
from senet_lib.data.datasets import load_data
from senet_lib.errors import DataError
from senet_lib.explore import app as explore
from senet_lib.explore.answers import EVALUATED, TRAIN, Bench, Recent, map_layers
from senet_lib.explore.numbers import (
    Picture,
    choose_images,
    compare_with_class,
    extremes,
    gate_distances,
    gate_vectors,
    offered_runs,
    own_picture,
    probabilities,
)
from senet_lib.explore.pictures import gates_html, map_html
from senet_lib.explore.reader import Reader


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The root of a tiny study's runs."""
    return tiny_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def explorer(runs, tmp_path):
    made = explore.open(runs_root=runs, published_root=tmp_path / "none", num_images=40)
    made.wait()
    return made


def status(made) -> str:
    return made.page.status.value


# Numbers


def test_gate_distances_and_ranking_by_hand():
    # differences from (0.5, 0.5): (0.3, 0.1), (0, 0), (-0.5, 0.5), (0, 0.2)
    vectors = np.array([[0.8, 0.6], [0.5, 0.5], [0.0, 1.0], [0.5, 0.7]], np.float32)
    found = gate_distances(vectors, np.array([0.5, 0.5]))
    # sqrt of the means 0.1/2, 0, 0.5/2, 0.04/2
    assert found == pytest.approx([0.05**0.5, 0, 0.5, 0.02**0.5], abs=1e-6)
    assert extremes(found, 2) == ([1, 3], [2, 0])
    assert extremes(found, 9, skip=1) == ([3, 0, 2], [2, 0, 3])


def test_gate_vectors_hold_every_layer_in_order():
    gates = Gates(values={"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0]])})
    assert gate_vectors(gates).tolist() == [[1, 2, 3]]
    assert gate_vectors(gates, "b").tolist() == [[3]]


def test_an_image_against_its_class_by_hand():
    many = Gates(values={"a": np.array([[0.0, 0.2], [0.4, 0.2], [0.9, 0.9], [0.2, 0.8]])})
    one = Gates(values={"a": np.array([[0.2, 0.9]])})
    found = compare_with_class(one, many, np.array([True, True, False, True]))
    assert found.count == 3
    assert found.mean["a"] == pytest.approx([0.2, 0.4])
    assert found.difference == pytest.approx([(0.25 / 2) ** 0.5])
    # members differ by (-0.2, -0.2), (0.2, -0.2), (0, 0.4): 0.2, 0.2, sqrt(0.08)
    assert found.usual == pytest.approx([0.2])
    nothing = compare_with_class(one, many, np.zeros(4, bool))
    assert (nothing.count, dict(nothing.mean)) == (0, {})
    assert compare_with_class(one).count == 0


def test_the_drawn_gates_say_their_numbers():
    many = Gates(values={"s.attention": np.array([[0.0, 0.2], [0.4, 0.2], [0.2, 0.8]])})
    one = Gates(values={"s.attention": np.array([[0.2, 0.9]])})
    compared = compare_with_class(one, many, np.ones(3, bool))
    text = gates_html(compared, ["s.attention"], "<net>", "cat")
    assert "3 images of cat" in text
    assert "s 0.354 (0.200)" in text  # as in the test above
    assert text.count("<polyline") == 4  # two panels of two lines
    assert "&lt;net&gt;" in text
    assert "<net>" not in text
    alone = gates_html(compare_with_class(one), ["s.attention"], "net", "cat")
    assert alone.count("<polyline") == 1
    assert "s 0.55" in alone


def test_images_are_chosen_as_a_loop_would():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert probabilities(logits) == pytest.approx(share)
    for label in (None, 2):
        for said in (None, 1):
            for verdict in ("either", "right", "wrong"):
                fits = []
                for i in range(200):
                    predicted = max(range(4), key=lambda k: logits[i, k])
                    if label is not None and labels[i] != label:
                        continue
                    if said is not None and predicted != said:
                        continue
                    if verdict != "either" and (predicted == labels[i]) != (verdict == "right"):
                        continue
                    fits.append((-max(share[i]), i))
                found = choose_images(labels, logits, label=label, said=said, verdict=verdict)
                assert found.tolist() == [i for _, i in sorted(fits)]


def test_without_predictions_images_are_chosen_by_class_alone():
    labels = np.array([1, 0, 1])
    assert choose_images(labels, None, label=1).tolist() == [0, 2]
    assert choose_images(labels, None, label=1, verdict="right").tolist() == []
    assert choose_images(labels, None, said=1).tolist() == []


def test_what_is_kept_is_limited_and_the_oldest_goes():
    kept, made = Recent(2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        assert kept.get(key, lambda key=key: made.append(key) or key.upper()) == key.upper()
    assert made == ["a", "b", "c", "b"]  # b was asked for longest ago when c came
    assert len(kept) == 2
    assert kept.peek("c") is None


def test_a_map_of_zeros_is_said_to_be_one():
    picture = Picture(
        key=0, pixels=np.zeros((32, 32, 3), np.uint8), label=0, split="", index=None, note="n"
    )
    maps = np.zeros((1, 32, 32), np.float32)
    said = CamMaps(maps=maps, logits=np.array([[0.0, 2.0]]), targets=np.array([1]))
    text = map_html(said, picture, ["cat", "<dog>"], "net")
    assert "zero everywhere" in text
    assert "&lt;dog&gt;" in text
    assert "<dog>" not in text
    assert "88.1 %" in text  # 1 / (1 + exp(-2))
    assert "wrong" in text
    maps[0, 3, 3] = 1
    assert "zero everywhere" not in map_html(said, picture, ["cat", "dog"], "net")


# One's own picture


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_an_own_picture_is_cropped_to_its_centre_and_resized():
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = (200, 10, 90)  # the middle 40 columns
    found = own_picture("a.png", encoded(Image.fromarray(pixels)))
    assert found.pixels.shape == (32, 32, 3)
    assert (found.pixels == (200, 10, 90)).all()
    assert "100x40" in found.note
    assert "cropped to the 40x40 pixels" in found.note
    assert "resized to 32x32" in found.note


def test_an_own_picture_of_the_right_size_is_left_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    found = own_picture("a.png", encoded(Image.fromarray(pixels)))
    assert np.array_equal(found.pixels, pixels)
    assert "resized" not in found.note
    assert "cropped" not in found.note


def test_an_own_picture_stands_upright_and_on_white():
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # the left half; turned by a quarter to the right it is the upper half
    turned = Image.Exif()
    turned[0x0112] = 6
    found = own_picture("a.png", encoded(Image.fromarray(pixels), exif=turned)).pixels
    assert found[4, :].mean() > 200
    assert found[-4, :].mean() < 50
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert (own_picture("b.png", encoded(clear)).pixels == 255).all()


def test_other_kinds_of_pictures():
    for mode in ("L", "P", "1", "CMYK"):
        form = "JPEG" if mode == "CMYK" else "PNG"
        assert own_picture("a", encoded(Image.new(mode, (50, 50)), form)).pixels.shape[2] == 3


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", encoded(Image.fromarray(NOISE))[:5000]],
    ids=["empty", "text", "cut"],
)
def test_a_broken_picture_gives_one_line(content):
    with pytest.raises(DataError) as caught:
        own_picture("mine.png", content)
    assert str(caught.value).startswith("mine.png is not a readable image")
    assert "\n" not in str(caught.value)
    assert " at 0x" not in str(caught.value)


def test_a_picture_of_16_bits_is_refused():
    wide = Image.fromarray(np.zeros((9, 9), np.uint16))
    with pytest.raises(DataError, match="more than 8 bits"):
        own_picture("mine.png", encoded(wide))


# Runs and what is kept of them


def test_runs_without_weights_are_left_out_and_published_ones_named(runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(runs, root)
    (root / "tiny" / "resnet20" / "seed0" / "weights.safetensors").unlink()
    offers = offered_runs(root, runs)
    assert list(offers) == ["tiny", "tiny (published)"]
    assert [(r.model, r.seed) for r in offers["tiny"]] == [("se_resnet20", 0), ("se_resnet20", 1)]
    assert len(offers["tiny (published)"]) == 3
    (root / "tiny" / "se_resnet20" / "seed0" / "record.json").write_text("{")
    assert [r.seed for r in offered_runs(root, tmp_path / "none")["tiny"]] == [1]
    assert offered_runs(tmp_path / "none", tmp_path / "none") == {}


def test_the_survey_says_what_the_network_says_image_by_image(runs):
    run = offered_runs(runs, runs / "none")["tiny"][1]
    assert run.model == "se_resnet20"
    bench = Bench(num_images=23)
    assert bench.survey(run, EVALUATED) is None
    shares = list(bench.read(run, EVALUATED))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    survey = bench.survey(run, EVALUATED)
    logits, labels = run.test_logits()
    assert survey.logits == pytest.approx(logits[:23], abs=1e-4)
    for index in (0, 22):
        alone = bench.gates(run, bench.picture(run, EVALUATED, index))
        for layer, values in survey.gates.values.items():
            assert values.shape[0] == 23
            assert values[index] == pytest.approx(alone.values[layer][0], abs=1e-5)
    assert len(bench.images(run, EVALUATED)[1]) == len(labels) == TINY_TEST_IMAGES
    assert len(bench.images(run, TRAIN)[1]) == 23


def test_other_data_than_the_run_was_evaluated_on_are_refused(runs):
    run = offered_runs(runs, runs / "none")["tiny"][0]
    bench = Bench()
    bench._datasets.get((run.data, 0), lambda: load_data("shapes"))
    with pytest.raises(DataError, match="is not what"):
        bench.images(run, EVALUATED)


def test_layers_are_those_that_all_networks_have(runs):
    bench, (plain, *_, gated) = Bench(), offered_runs(runs, runs / "none")["tiny"]
    layers = map_layers([bench.network(plain), bench.network(gated)])
    assert layers[:3] == ["last", "stage1", "stage1.0"]
    assert layers[-1] == "stage3.2"


# Work in the background


def test_the_reader_does_the_latest_job_first_and_survives_one_that_fails():
    seen, problems = [], []

    def guard(work):
        try:
            work()
        except ValueError as error:
            problems.append(str(error))

    def job(name, parts):
        for part in range(parts):
            time.sleep(0.01)
            if name == "bad":
                raise ValueError("bad")
            yield part

    reader = Reader(guard, lambda name, part: seen.append((name, part)), lambda n: seen.append(n))
    reader.want("long", lambda: job("long", 20))
    reader.want("bad", lambda: job("bad", 3))
    reader.want("short", lambda: job("short", 2))
    reader.want("long", lambda: pytest.fail("it has begun already"))
    reader.wait()
    assert problems == ["bad"]
    assert [part for name, part in filter(lambda s: s[0] == "long", seen)] == list(range(20))
    assert {"long", "short"} <= set(seen)
    reader.want("again", lambda: job("again", 1))
    reader.wait()
    assert seen[-1] == "again"


# The page


def test_the_page_opens_on_a_network_with_gates_and_its_plain_one(explorer):
    page = explorer.page
    assert [c.run.model for c in page.columns[: page.count.value]] == ["se_resnet20", "resnet20"]
    assert "problem" not in status(explorer)
    assert "senet-gates" in page.gates.value
    assert page.near_text.value


def test_a_cell_of_the_confusion_matrix_opens_its_images(explorer):
    page = explorer.page
    logits, labels = page.columns[0].run.test_logits()
    predicted = logits.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    true, said = int(labels[wrong[0]]), int(predicted[wrong[0]])
    button = page.confusions._buttons[page.confusions._cells.index((true, said))]
    expected = np.flatnonzero((labels == true) & (predicted == said))
    assert button.description == str(len(expected))
    button.click()
    assert sorted(explorer._scene.pool) == expected.tolist()
    assert (page.label.value, page.said.value) == (true, said)
    assert explorer._scene.picture.index in expected


def test_every_choice_changes_what_it_should_and_nothing_fails(explorer):
    page = explorer.page
    before = page.columns[0].output.value
    page.method.value = "eigencam"
    assert page.columns[0].output.value != before
    page.layer.value = "stage2"
    page.target.value = "true"
    page.index.value = 7
    assert explorer._scene.picture.index == 7
    first = page.pool._keys[:]
    page.on.click()
    assert page.pool._keys != first
    page.back.click()
    assert page.pool._keys == first
    page.columns[0]._seed.value = 1
    assert page.columns[0].run.seed == 1
    page.verdict.value = "wrong"
    assert all(explorer._bench.labels(page.columns[0].run)[i] != explorer._bench.logits(
        page.columns[0].run, EVALUATED)[i].argmax() for i in explorer._scene.pool)  # fmt: skip
    page.count.value = 4
    assert "problem" not in status(explorer)
    page.split.value = "train"
    explorer.wait()
    assert len(explorer._bench.images(page.columns[0].run, TRAIN)[1]) == 40
    assert page.matrix_text.value.count("40 images")
    assert "problem" not in status(explorer)


def test_the_nearest_images_are_those_of_a_plain_calculation(explorer):
    page, bench = explorer.page, explorer._bench
    page.index.value = 5
    run = page.columns[0].run
    gates = bench.survey(run, EVALUATED).gates
    rows = np.hstack([gates.values[layer] for layer in gates.layers])
    order = np.argsort(((rows - rows[5]) ** 2).sum(1))
    assert order[0] == 5
    assert page.near._keys == order[1:6].tolist()
    assert page.far._keys == order[::-1][:5].tolist()


def test_with_many_classes_the_commonest_confusions_are_listed():
    from senet_lib.explore.parts import LISTED, Confusions

    matrix = np.zeros((60, 60), int)
    matrix[3, 3], matrix[7, 2], matrix[50, 59] = 99, 5, 8
    chosen = []
    view = Confusions(lambda *cell: chosen.append(cell))
    view.show(matrix, [f"c{k}" for k in range(60)])
    shown = [b.description for b in view._buttons if b.layout.display != "none"]
    assert shown == ["c50 → c59: 8", "c7 → c2: 5"]
    view._buttons[1].click()
    assert chosen == [(7, 2)]
    assert len(view._buttons) == LISTED
    view.show(np.eye(3, dtype=int), ["a", "b", "c"])  # and back to a grid
    assert [b.description for b in view._buttons] == list("100010001")


def test_networks_without_gates_are_said_to_have_none(explorer):
    page = explorer.page
    page.count.value = 1
    page.columns[0]._model.value = "resnet20"
    assert page.gates.value == ""
    assert "has gates" in page.gates_text.value
    assert "problem" not in status(explorer)


def upload(page, name: str, content: bytes) -> None:
    page.upload.value = [
        {
            "name": name,
            "type": "image/png",
            "size": len(content),
            "content": memoryview(content),
            "last_modified": datetime.now(UTC),
        }
    ]


def test_an_uploaded_picture_is_shown_and_a_broken_one_is_said_to_be(explorer):
    page = explorer.page
    upload(page, "mine.png", encoded(Image.new("RGB", (90, 60), "red")))
    assert "mine.png: 90x60 pixels" in status(explorer)
    assert "class unknown" in page.picture.value
    shown = page.picture.value
    upload(page, "bad.png", b"nothing")
    assert "bad.png is not a readable image" in status(explorer)
    assert "problem" in status(explorer)
    assert page.picture.value == shown


def test_an_error_in_a_callback_stands_in_the_status_line(explorer, monkeypatch, caplog):
    monkeypatch.setattr(explorer._bench, "picture", lambda *_: 1 / 0)
    explorer.page.index.value = 3
    assert "ZeroDivisionError" in status(explorer)
    assert "problem" in status(explorer)
    assert "the explorer failed" in caplog.text


def test_a_network_that_cannot_be_read_is_not_taken(runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(runs, root)
    (root / "tiny" / "se_resnet20" / "seed1" / "weights.safetensors").write_bytes(b"x")
    made = explore.open(runs_root=root, published_root=tmp_path / "none", num_images=20)
    made.wait()
    column = made.page.columns[0]
    before = column.output.value
    column._seed.value = 1
    assert "is not a whole safetensors file" in status(made)
    assert (column._seed.value, column.run.seed, column.output.value) == (0, 0, before)


def test_predictions_asked_for_before_they_are_known_come_when_they_are(explorer):
    page = explorer.page
    page.verdict.value = "wrong"
    page.split.value = TRAIN
    explorer.wait()
    run = page.columns[0].run
    logits, labels = explorer._bench.logits(run, TRAIN), explorer._bench.images(run, TRAIN)[1]
    assert sorted(explorer._scene.pool) == np.flatnonzero(logits.argmax(1) != labels).tolist()
    assert explorer._scene.picture.split == TRAIN


def test_without_runs_one_line_says_what_to_do(tmp_path):
    made = explore.open(runs_root=tmp_path, published_root=tmp_path)
    assert "make study" in status(made)
    assert len(made.page.widget.children) == 2


def test_what_is_asked_for_and_not_there_is_said(runs, tmp_path):
    made = explore.open("tinny", ["resnet20", "se_resnet20", "resnet99"], 0, runs, tmp_path)
    made.wait()  # what is read in the background does not wipe out what was said
    assert "there is no study tinny; there are tiny" in status(made)
    assert "tiny has no resnet99" in status(made)
    assert "num_images is 0" in status(made)
    assert made.page.columns[0].run.model == "resnet20"


def test_without_cifar10_the_rest_still_works(runs, tmp_path, monkeypatch):
    root = tmp_path / "runs"
    shutil.copytree(runs, root)
    for path in root.rglob("record.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "data": "cifar10"}))
    monkeypatch.setenv("SENET_DATA", str(tmp_path / "empty"))
    made = explore.open(runs_root=root, published_root=tmp_path / "none")
    assert "`senet data cifar10` fetches it" in status(made)
    assert not (tmp_path / "empty").exists()
    upload(made.page, "mine.png", encoded(Image.new("RGB", (32, 32), "red")))
    assert "<img" in made.page.columns[0].output.value
    assert "senet-gates" in made.page.gates.value
    assert made.page.matrix_text.value
    both = explore.open(runs_root=root, published_root=runs)
    assert both.page.study.value == "tiny (published)"  # the one whose images are there
    both.page.study.value = "tiny"
    assert "and so can the study tiny (published)" in status(both)
    both.page.study.value = "tiny (published)"
    assert "problem" not in status(both)
    both.wait()
