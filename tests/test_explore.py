"""The explorer's numbers against others worked out by hand, and its widgets without a browser."""

import asyncio
import dataclasses
import io
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from fake_runs import make_run
from notebook_cells import ROOT, run_cells
from PIL import Image

from senet_lib import explore
from senet_lib.analysis.cam import CamMaps
from senet_lib.analysis.confusion import choose_images, commonest, confusion_matrix
from senet_lib.analysis.gates import Gates
from senet_lib.data import load_data
from senet_lib.errors import DataError, SenetError
from senet_lib.evaluation import probabilities
from senet_lib.explore.answers import Picture, offered_runs, own_picture
from senet_lib.explore.pictures import confusion_html, gates_html, map_html
from senet_lib.runs.records import load_run, save_record

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def offers(tiny):
    return offered_runs(tiny, tiny / "none", num_images=40)


@pytest.fixture
def explorer(offers):
    return explore.Explorer(offers)


def fine(made) -> bool:
    """Whether the status line says how good the first network is, and no problem."""
    return made.networks[0].name in made.status.value and "⚠" not in made.status.value


def some_of(runs, root, *models, **changes):
    """A root with copies of these networks' runs, their records changed."""
    for model in models:
        shutil.copytree(runs / "tiny" / model, root / changes.get("study", "tiny") / model)
    for path in root.rglob("record.json"):
        save_record(dataclasses.replace(load_run(path.parent), **changes))
    return root


def upload(made, name: str, size: tuple[int, int] | None) -> None:
    """A red picture of so many pixels, or what is none."""
    file = io.BytesIO(b"nothing")
    if size:
        Image.new("RGB", size, "red").save(file, "PNG")
    content = memoryview(file.getvalue())
    about = {"type": "image/png", "size": len(content), "last_modified": datetime.now(UTC)}
    made.upload.value = [{"name": name, "content": content, **about}]


@pytest.mark.parametrize("true", ["", 2])
@pytest.mark.parametrize("said", ["", 1, "right", "wrong"])
def test_images_are_chosen_as_a_loop_would(true, said):
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert probabilities(logits) == pytest.approx(share)
    fits = []
    for i in range(200):
        predicted = max(range(4), key=lambda k: logits[i, k])
        names = ("", predicted, "right" if predicted == labels[i] else "wrong")
        if true in ("", labels[i]) and said in names:
            fits.append((-max(share[i]), i))
    assert choose_images(logits, labels, true, said).tolist() == [i for _, i in sorted(fits)]


def test_confusions_by_hand():
    logits = np.array([[2, 0], [0, 1], [3, 0], [0, 9]], np.float32)
    assert confusion_matrix(logits, np.array([0, 0, 1, 1])).tolist() == [[1, 1], [1, 1]]
    matrix = np.array([[9, 1, 0], [4, 0, 0], [1, 2, 5]])
    assert commonest(matrix) == [(1, 0), (2, 1), (0, 1), (2, 0), (0, 0), (2, 2)]


def test_what_is_drawn_says_its_numbers_in_words():
    one = Gates(values={"s.attention": np.array([[0.2, 0.9]])})
    html = gates_html(one, {"s.attention": np.array([0.2, 0.4])}, ["s.attention"], ("<net>", "m"))
    assert "s 0.354" in html  # sqrt(0.5² / 2)
    assert "&lt;net&gt;" in html
    assert "s 0.550" in gates_html(one, {}, ["s.attention"], ("net", ""))
    for count in (3, 60):
        html = confusion_html(np.diag([2] * count), [f"c{k}" for k in range(count)])
        assert f"c{count - 1} 100" in html
    picture = Picture(pixels=np.zeros((32, 32, 3), np.uint8), label=0, index=None, note="n")
    maps = np.zeros((1, 32, 32), np.float32)
    said = CamMaps(maps=maps, logits=np.array([[0.0, 2.0]]), targets=np.array([1]))
    html = map_html(said, picture, ["cat", "<dog>"], "net")
    assert all(part in html for part in ("zero everywhere", "88.1 %", "wrong"))  # 1 / (1 + e^-2)
    assert "<dog>" not in html
    maps[0, 3, 3] = 1
    assert "zero everywhere" not in map_html(said, picture, ["cat", "dog"], "net")


def test_a_picture_of_ones_own_is_what_training_makes_of_it(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (2, 2, 40, 100, 3)).astype(np.uint8)
    for split, images in zip(("train", "test"), colours, strict=True):
        for name, pixels in zip("ab", images, strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / split / name / "1.png")
    data = load_data(str(tmp_path))
    for label, name in enumerate("ab"):
        found = own_picture("1.png", (tmp_path / "test" / name / "1.png").read_bytes())
        assert np.array_equal(found.pixels, data.x_test[list(data.y_test).index(label)])
    assert "100x40" in found.note
    with pytest.raises(DataError, match=r"^mine\.png"):
        own_picture("mine.png", b"no picture")


def test_runs_without_weights_are_left_out_and_published_ones_named(tiny, tmp_path):
    root = some_of(tiny, tmp_path, "resnet20", "se_resnet20")
    (root / "tiny" / "resnet20" / "seed0" / "weights.safetensors").unlink()
    (root / "tiny" / "se_resnet20" / "seed1" / "weights.safetensors").write_bytes(b"x")
    offers = offered_runs(root, tiny)
    assert list(offers) == ["tiny", "tiny (published)"]
    assert [n.name for n in offers["tiny"]] == ["se_resnet20, seed 0", "se_resnet20, seed 1"]
    assert len(offers["tiny (published)"]) == 3
    made = explore.open(runs_root=root, published_root=NOWHERE, num_images=20)
    before, broken = made.networks[0], made.columns[0].options[-1][1]
    made.columns[0].value = broken  # which cannot be read, and is not taken
    assert "checksum" in made.status.value
    assert made.networks[0] is before
    (root / "tiny" / "se_resnet20" / "seed0" / "record.json").write_text("{")
    assert [n.run.seed for n in offered_runs(root, NOWHERE)["tiny"]] == [1]
    assert offered_runs(NOWHERE, NOWHERE) == {}


def test_gates_read_in_parts_are_those_of_each_image(tiny, tmp_path):
    one = offered_runs(tiny, NOWHERE, num_images=23)["tiny"][1]
    assert (one.has_gates, one.survey) == (True, None)
    shares = list(one.read())
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(one.images) == len(one.evaluated[1]) == 60
    for index in (0, 22):
        alone = one.gates(one.picture(index))
        for layer, values in one.survey.values.items():
            assert values.shape[0] == 23
            assert values[index] == pytest.approx(alone.values[layer][0], abs=1e-5)
    maps = one.maps(one.picture(0))
    assert maps.logits[0] == pytest.approx(one.evaluated[0][0], abs=1e-4)
    assert one.maps(one.picture(0)) is maps  # kept
    root = some_of(tiny, tmp_path, "resnet20", data_fingerprint="0" * 64)
    with pytest.raises(DataError, match="fingerprint"):  # not the images of the evaluation
        _ = offered_runs(root, NOWHERE)["tiny"][0].images


def test_it_opens_on_a_network_with_gates_and_its_plain_one(explorer):
    assert [one.run.model for one in explorer.networks] == ["se_resnet20", "resnet20"]
    assert fine(explorer)
    assert explorer.layer.options[:3] == ("last", "stage1", "stage1.0")
    # The nearest images are those of a plain calculation.
    explorer.index.value = 5
    gates = explorer.networks[0].survey
    rows = np.hstack([gates.values[layer] for layer in gates.layers])
    order = np.argsort(((rows - rows[5]) ** 2).sum(1))
    assert order[0] == 5
    assert explorer.near.indices == order[1:11].tolist()
    # Every picture has a description.
    shown = [explorer.large, explorer.gates, explorer.matrix, *explorer.maps[:2]]
    shown += [cell.children[0] for cell in explorer.thumbs.widget.children]
    for output in shown:
        images = re.findall("<img [^>]*>", output.value)
        assert images
        assert all(len(re.search('alt="([^"]*)"', tag)[1]) > 10 for tag in images)


def test_it_opens_on_a_lone_network_or_on_a_published_pair_before_it(tiny, tmp_path):
    root = some_of(tiny, tmp_path, "se_resnet20", overrides={"reduction": 4}, study="by hand")
    made = explore.open(runs_root=root, published_root=NOWHERE, num_images=20)
    assert fine(made)
    assert len(made.networks) == 1
    assert "reduction=4" in made.networks[0].name
    assert "<img" in made.gates.value
    made.count.value = 4
    assert fine(made)
    made = explore.open(runs_root=root, published_root=tiny, num_images=20)
    assert made.study.value == "tiny (published)"
    made.study.value = "by hand"
    assert fine(made)
    assert [one.run.study for one in made.networks] == ["by hand"]


def test_what_is_asked_for_and_not_there_is_said(tiny):
    made = explore.open(runs_root=NOWHERE, published_root=NOWHERE)
    assert "make study" in made.status.value
    assert (len(made.widget.children), made.networks) == (1, [])
    made = explore.open("tinny", ["resnet20"], 20, tiny, NOWHERE)
    assert "did you mean tiny?" in made.status.value
    assert [one.run.model for one in made.networks] == ["resnet20"]
    assert (made.gates.value, made.near.indices) == ("", [])  # it has no gates
    made = explore.open("tiny", "resnet20", 20, NOWHERE, tiny)  # it means tiny (published)
    assert [one.run.model for one in made.networks] == ["resnet20"]
    assert fine(made)
    made = explore.open("tiny", ["resnet20", "resnet99"], 20, tiny, NOWHERE)
    assert "resnet99" in made.status.value
    made = explore.open(models=["resnet20"] * 5, runs_root=tiny, published_root=NOWHERE)
    assert "5 networks were asked for; 4 fit" in made.status.value
    with pytest.raises(SenetError, match="num_images is 0"):
        explore.open(num_images=0)


def test_the_same_images_spelt_in_two_ways_are_one_entry_and_other_images_another(tmp_path):
    for seed, data, images in ((0, "a/few", "f" * 64), (1, "a/few/", "f" * 64),
                               (2, "b/few", "e" * 64), (3, "c/few", "d" * 64)):  # fmt: skip
        made = make_run(tmp_path, "resnet20", seed, 0.5, data=data, data_fingerprint=images)
        (made.path / "weights.safetensors").touch()
    offers = offered_runs(tmp_path, NOWHERE)
    found = {name: [one.run.seed for one in networks] for name, networks in offers.items()}
    assert found == {"demo: few": [0, 1], "demo: few, images eeeeee": [2],
                     "demo: few, images dddddd": [3]}  # fmt: skip


def test_without_its_images_a_picture_of_ones_own_can_be_shown(tiny, tmp_path, monkeypatch):
    root = some_of(tiny, tmp_path / "runs", "resnet20", "se_resnet20", data="cifar10")
    monkeypatch.setenv("SENET_DATA", str(NOWHERE))
    made = explore.open(runs_root=root, published_root=tmp_path / "none")
    assert "senet data cifar10" in made.status.value
    assert made.near_text.value == ""  # not that there are no gates
    upload(made, "mine.png", (32, 32))
    assert all("<img" in part.value for part in (made.maps[0], made.gates, made.matrix))
    assert made.near_text.value == ""
    both = explore.open(runs_root=root, published_root=tiny, num_images=20)
    assert both.study.value == "tiny (published)"  # the one whose images are there
    assert "<img" in both.large.value
    both.study.value = "tiny"
    assert "senet data cifar10" in both.status.value
    assert {shown.value for shown in (both.large, *both.maps)} == {""}


def test_a_cell_of_the_confusion_matrix_opens_its_images(explorer):
    logits, labels = explorer.networks[0].evaluated
    predicted = logits.argmax(1)
    wrong = [(int(t), int(p)) for t, p in zip(labels, predicted, strict=True) if t != p]
    text, (true, said) = explorer.cell.options[1]
    expected = np.flatnonzero((labels == true) & (predicted == said))
    assert wrong.count((true, said)) == max(map(wrong.count, wrong)) == len(expected)
    assert text.endswith(f": {len(expected)}")
    explorer.cell.value = (true, said)
    assert sorted(explorer.pool) == expected.tolist()
    assert (explorer.label.value, explorer.said.value) == (true, said)
    assert explorer.picture.index in expected
    explorer.said.value = ""
    assert explorer.cell.value == ""


def test_in_a_notebook_gates_are_read_while_questions_are_answered(tiny):
    async def use():
        made = explore.open(runs_root=tiny, published_root=NOWHERE, num_images=40)
        one = made.networks[0]
        assert one.survey is None
        assert "<img" in made.maps[0].value
        await asyncio.sleep(0.01)
        made.index.value = 9  # in the middle of the reading
        assert made.picture.index == 9
        assert one.survey is None
        while one.survey is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        return made

    made = asyncio.run(use())
    assert len(made.near.indices) == 10
    assert fine(made)


def test_the_cells_below_go_on_with_other_layers_and_numbers_of_images(tiny):
    names = run_cells("explore", num_images=20, runs_root=str(tiny), published_root="nowhere")
    cells = json.loads((ROOT / "notebooks/explore.ipynb").read_text(encoding="utf-8"))["cells"]
    alike, *below = ("".join(cell["source"]) for cell in cells[-4:-1])
    found = []
    for count, layer in ((20, ""), (40, ""), (10, "stage3.2"), (10, "stage3.2.attention")):
        names["num_images"] = count
        for code in (alike.replace('layer = ""', f"layer = {layer!r}"), *below):
            exec(code, names)
        gates = np.hstack([v for k, v in names["one"].read_all().values.items() if layer in k])
        apart = ((gates[:count, None] - gates[:count]) ** 2).sum(2) + np.diag([np.inf] * count)
        labels = names["one"].evaluated[1][:count]
        assert names["same"].tolist() == (labels[apart.argmin(1)] == labels).tolist()
        found.append(names["said"])
    assert found[2] == found[3]
    names["view"].index.value = 3  # the page is of as many as were read last
    assert fine(names["view"])
    assert "first 40 images" in names["view"].near_text.value


def test_what_takes_long_is_said_before_it_is_done(explorer, monkeypatch):
    seen, maps = [], type(explorer.networks[0]).maps

    def seen_maps(*arguments):
        seen.append("…" in explorer.status.value)
        return maps(*arguments)

    monkeypatch.setattr(type(explorer.networks[0]), "maps", seen_maps)
    upload(explorer, "mine.png", (32, 32))
    explorer.columns[0].value = explorer.columns[0].options[1][1]
    explorer.count.value = 3
    assert all(seen)
    assert len(seen) > 6
    assert fine(explorer)


def test_an_uploaded_picture_is_shown_and_what_fails_stands_in_the_status_line(
    explorer, monkeypatch, caplog
):
    upload(explorer, "mine.png", (90, 60))
    assert "90x60" in explorer.status.value
    shown = explorer.large.value
    upload(explorer, "bad.png", None)
    assert "bad.png" in explorer.status.value
    assert explorer.large.value == shown
    monkeypatch.setattr(type(explorer.networks[0]), "picture", lambda *_: 1 / 0)
    explorer.index.value = 3
    assert "ZeroDivisionError" in explorer.status.value
    assert caplog.records
