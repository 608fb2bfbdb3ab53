"""Data sets from npz files and folders: order, fingerprint, classes, parts; data that would give
wrong answers in silence, and files made to hurt."""

import hashlib
import io
import logging
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from senet_lib.data import datasets as data
from senet_lib.data import sources
from senet_lib.data.augment import normalise
from senet_lib.data.datasets import hold_out, load_data, load_matching, prepare, take
from senet_lib.errors import DataError, UnknownNameError
from senet_lib.export import Normalised

CLASSES = ("ant", "bee", "cat")


def make_arrays(size: int = 32) -> dict[str, np.ndarray]:
    """Noise, brightest in the channel of its class, so that a picture tells its class."""
    rng = np.random.default_rng(5)
    content = {}
    for split, number in (("train", 9), ("test", 6)):
        labels = (np.arange(number) % 3).astype(np.uint8)
        images = rng.integers(0, 100, (number, size, size, 3), dtype=np.uint8)
        images[np.arange(number), ..., labels] += 100
        content |= {f"x_{split}": images, f"y_{split}": labels}
    return content


def save(path: Path, **changes: np.ndarray | None) -> str:
    """Write the small npz with some keys replaced, or left out where the value is None."""
    content = make_arrays() | {"classes": np.array(CLASSES)} | changes
    np.savez(path, **{key: value for key, value in content.items() if value is not None})
    return str(path)


def save_folder(root: Path, other: str = "test", suffix: str = "png") -> str:
    """The same images as files, one folder a class."""
    content = make_arrays()
    for split, name in (("train", "train"), ("test", other)):
        for k, image in enumerate(content[f"x_{split}"]):
            folder = root / name / CLASSES[content[f"y_{split}"][k]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{k}.{suffix}")
    return str(root)


def test_order_and_fingerprint_follow_their_definition(tmp_path):
    content = make_arrays()
    dataset = load_data(save(tmp_path / "a.npz"))
    digest = hashlib.sha256()
    for split in ("train", "test"):
        images, labels = content[f"x_{split}"], content[f"y_{split}"]
        order = np.argsort([hashlib.sha256(image.tobytes()).hexdigest() for image in images])
        np.testing.assert_array_equal(getattr(dataset, f"x_{split}"), images[order])
        np.testing.assert_array_equal(getattr(dataset, f"y_{split}"), labels[order])
        digest.update(images[order].tobytes() + labels[order].tobytes())
    assert dataset.fingerprint == digest.hexdigest()
    assert (dataset.x_train.dtype, dataset.y_train.dtype) == (np.uint8, np.int64)
    assert dataset.classes == CLASSES
    same = np.repeat(content["x_train"][:1], 9, axis=0)  # equal images are ordered by label
    labels = np.array([2, 0, 1, 1, 0, 2, 0, 1, 2], np.uint8)
    tied = load_data(save(tmp_path / "a.npz", x_train=same, y_train=labels))
    assert tied.y_train.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_order_does_not_depend_on_the_source(tmp_path, caplog):
    content = make_arrays()
    expected = load_data(save(tmp_path / "a.npz"))
    shuffle = np.random.default_rng(0).permutation(9)
    shuffled = {k: content[k][shuffle] for k in ("x_train", "y_train")}
    for source in (
        save(tmp_path / "b.npz", **shuffled),
        save_folder(tmp_path / "with_test"),
        save_folder(tmp_path / "with_val", other="val", suffix="PNG"),
    ):
        dataset = load_data(source)
        assert (dataset.fingerprint, dataset.classes) == (expected.fingerprint, expected.classes)
        np.testing.assert_array_equal(dataset.x_train, expected.x_train)
        np.testing.assert_array_equal(dataset.y_test, expected.y_test)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_dataset_says_what_it_is_in_a_line(shapes):
    line = "<Dataset shapes: 2,000 training and 1,000 test images of 10 classes, with masks>"
    assert repr(shapes) == line
    assert "1,700 training and 300 val images" in repr(hold_out(shapes, 300))


def test_mean_and_std_are_those_of_train(shapes):
    pixels = shapes.x_train.reshape(-1, 3)
    np.testing.assert_allclose(shapes.mean, pixels.mean(axis=0) / 255, rtol=1e-14)
    np.testing.assert_allclose(shapes.std, pixels.std(axis=0) / 255, rtol=1e-9)


def test_a_channel_that_never_changes_is_normalised_alike_everywhere(shapes):
    images = shapes.x_train[:20].copy()
    images[..., 2] = 7
    dataset = replace(shapes, x_train=images)
    assert dataset.std[2] == 1 / 255
    inside = Normalised(nn.Identity(), dataset.mean, (*dataset.std[:2], 0.0))
    outside = normalise(torch.from_numpy(images), dataset.mean, dataset.std)
    torch.testing.assert_close(inside(torch.from_numpy(images).permute(0, 3, 1, 2) / 255), outside)


def test_npz_round_trip_keeps_everything(shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("SENET_DATA", str(tmp_path))
    path = prepare("shapes")
    assert list(tmp_path.iterdir()) == [path] == [tmp_path / "shapes.npz"]
    again = load_data(str(path))
    assert (again.fingerprint, again.classes) == (shapes.fingerprint, shapes.classes)
    np.testing.assert_array_equal(again.masks_train, shapes.masks_train)
    np.testing.assert_array_equal(again.masks_test, shapes.masks_test)
    assert prepare(str(path)) == path


def test_npz_of_another_size_is_resized_and_says_so(tmp_path, caplog):
    dataset = load_data(save(tmp_path / "a.npz", **make_arrays(size=48), classes=None))
    assert dataset.x_train.shape == (9, 32, 32, 3)
    assert dataset.classes == ("0", "1", "2")
    assert [r.getMessage().count("48x48") for r in caplog.records] == [1, 1]


def test_a_file_that_cannot_be_written_whole_is_not_there(shapes, tmp_path, monkeypatch):
    def fail(file, **content):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(DataError, match="No space left on device"):
        sources.write_npz(tmp_path / "a.npz", take(shapes, 10))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"x_train": make_arrays()["x_train"].astype(np.float32)}, "float32"),
        ({"x_train": make_arrays()["x_train"].transpose(0, 3, 1, 2)}, r"x_train .*9, 3, 32, 32"),
        ({"x_test": make_arrays()["x_test"][:0], "y_test": np.zeros(0, int)}, "at least 1"),
        ({"y_train": np.arange(8) % 3}, "9 images in x_train but 8"),
        ({"y_train": np.arange(9) / 3}, "y_train"),
        ({"y_train": np.arange(9).astype("m8[s]")}, "y_train"),
        ({"y_train": np.eye(9, dtype=int)}, "y_train"),
        ({"y_test": np.arange(6)}, "y_test .*0 to 5; with 3"),
        ({"y_train": np.arange(9) % 3 - 1}, "y_train .*-1 to 1"),
        ({"y_test": np.full(6, 3), "classes": None}, "y_test .*3 to 3"),
        ({"y_train": np.arange(9) + 300, "classes": None}, "at most 256"),
        ({"y_train": np.arange(9) % 3 + 1, "classes": None}, "label 0"),
        ({"y_train": np.arange(9) % 3 * 2, "classes": None}, "label 1"),
        ({"y_train": np.zeros(9, int), "y_test": np.zeros(6, int), "classes": None}, "at least 2"),
        ({"masks_train": np.ones((9, 16, 16), bool)}, "masks_train"),
        ({"x_train": np.array([{}] * 9, object)}, "x_train"),
        ({"fingerprint": np.array("0" * 64)}, "claims 000000000000"),
        ({"classes": np.arange(3)}, "names"), ({"classes": np.array(CLASSES, object)}, "text"),
        ({"classes": np.array(["a", "b", "a"])}, "several"),
        ({"classes": np.array(["a", "e\u0301", "\u00e9"])}, "several"),
        ({"classes": np.array(["a", "b", ""])}, "printable"),
        ({"classes": np.array(["a", "b", "c\nd"])}, "printable"),
        ({"classes": np.array([b"a", b"b", b"\xff"])}, "UTF-8"),
        ({"classes": np.array([str(k) for k in range(300)])}, "at most 256"),
    ],
)  # fmt: skip
def test_npz_that_does_not_fit_is_refused_in_one_line(tmp_path, changes, says):
    with pytest.raises(DataError, match=says) as caught:
        load_data(save(tmp_path / "bad.npz", **changes))
    assert "bad.npz" in str(caught.value)


def test_headers_are_checked_before_anything_is_unpacked(tmp_path, monkeypatch):
    """Claims of terabytes, more than the memory holds, and an array stored twice."""
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    path = tmp_path / "a.npz"
    for shape in ((10**9, 32, 32, 3), (2**40, 2**40, 32, 3)):
        with zipfile.ZipFile(save(path)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        header = io.BytesIO()
        about = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(header, about)
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in (parts | {"x_train.npy": header.getvalue()}).items():
                archive.writestr(name, part)
        with pytest.raises(DataError, match="x_train is not as long"):
            load_data(str(path))
    with zipfile.ZipFile(save(path), "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("y_train.npy", parts["y_train.npy"])
    with pytest.raises(DataError, match="y_train twice"):
        load_data(str(path))
    monkeypatch.setattr(sources, "_most_bytes", lambda: 40_000)
    with pytest.raises(DataError, match="memory"):
        load_data(save(path))


def test_folders_that_are_incomplete_are_refused(tmp_path):
    root = Path(save_folder(tmp_path / "f"))
    (root / "test" / "bee").rename(root / "test" / "bees")
    with pytest.raises(DataError, match="bee, bees"):
        load_data(str(root))
    (root / "test" / "bees").rename(root / "test" / "bee")
    for file in (root / "train" / "bee").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"train.bee holds no picture"):
        load_data(str(root))
    with pytest.raises(DataError, match="test or val"):
        load_data(str(tmp_path))
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    with pytest.raises(DataError, match="0 class folders"):
        load_data(str(tmp_path))


def test_names_and_paths_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, says in (("cifar11", "did you mean cifar10"), ("", "cifar10, cifar100, shapes")):
        with pytest.raises(UnknownNameError, match=says):
            load_data(name)
    for name in ("no/such/folder", "./here", "missing.npz", "~/nothing-there-x"):
        with pytest.raises(DataError, match=Path(name).name):
            load_data(name)
    monkeypatch.delenv("SENET_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data.data_dir() == tmp_path / "home" / ".cache" / "senet"


def test_paths_are_seen_from_the_clones_top_and_a_known_name_is_none(tmp_path, monkeypatch):
    (tmp_path / "Snakefile").touch()
    for name in ("senet_lib", "notebooks/shapes", "mine"):
        (tmp_path / name).mkdir(parents=True)
    save(tmp_path / "mine" / "a.npz")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert load_data("mine/a.npz").classes == CLASSES
    shutil.copytree(tmp_path / "mine", tmp_path / "notebooks" / "mine")
    save(tmp_path / "notebooks" / "mine" / "a.npz", classes=None)
    assert load_data("mine/a.npz").classes == ("0", "1", "2")  # what lies here goes first
    assert load_data("shapes").num_classes == 10  # not the folder beside one


def test_classes_are_matched_by_name_and_other_classes_are_named(tmp_path):
    labels = {key: (y + 1) % 3 for key, y in make_arrays().items() if key[0] == "y"}
    path = save(tmp_path / "a.npz", classes=np.array(["cat", "ant", "bee"]), **labels)
    dataset = load_matching(path, classes=CLASSES)
    assert dataset.classes == CLASSES
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert (x.mean((1, 2)).argmax(1) == y).all()  # the brightest channel is the class's
    assert dataset.fingerprint == load_data(path).fingerprint
    with pytest.raises(DataError, match=r"lacks 1 \(dog\), and has 1 \(cat\)"):
        load_matching(path, classes=("ant", "bee", "dog"))
    with pytest.raises(DataError, match="other classes"):
        load_matching(path, classes=(*CLASSES, "dog"))


def test_labels_keep_their_numbers_where_names_alone_were_changed_since_a_training(
    tmp_path, caplog
):
    before = load_data(save(tmp_path / "a.npz"))
    path = save(tmp_path / "a.npz", classes=np.array(["cat", "ant", "bee"]))
    found = load_matching(path, classes=before.classes, fingerprint=before.fingerprint)
    assert found.classes == before.classes
    assert (found.y_test == before.y_test).all()
    assert "classes had other names in training" in caplog.text


def test_a_folder_of_pictures_is_one_whatever_lies_beside_them(tmp_path):
    folder = Path(save_folder(tmp_path))
    before = load_data(folder)
    (folder / "meta").write_text("x")  # as CIFAR-100 has
    assert load_data(folder).fingerprint == before.fingerprint


def test_without_names_by_number_and_a_class_without_a_picture_is_said(tmp_path, caplog):
    path = save(tmp_path / "a.npz", classes=None)
    dataset = load_matching(path, classes=CLASSES)
    assert dataset.classes == CLASSES
    assert (dataset.y_test == load_data(path).y_test).all()
    assert "by number" in caplog.text
    caplog.clear()
    path = save(tmp_path / "b.npz", classes=np.array(["2", "0", "1"]))  # as a folder's are sorted
    dataset = load_matching(path, classes=("0", "1", "2"))
    assert (dataset.y_test == (load_data(path).y_test + 2) % 3).all()
    assert not caplog.text
    path = save(tmp_path / "a.npz", classes=np.array([*CLASSES, "dodo"]))
    assert load_data(path).num_classes == 4
    assert "dodo" in caplog.text


def test_data_that_was_changed_since_is_refused(tmp_path):
    about = {"classes": CLASSES, "num_val": 2}
    path = save(tmp_path / "a.npz")
    before = hold_out(load_data(path), 2).fingerprint
    load_matching(path, fingerprint=before, **about)
    images = make_arrays()["x_train"]
    images[0, 3, 3] ^= 1
    save(tmp_path / "a.npz", x_train=images)
    with pytest.raises(DataError, match="was changed"):
        load_matching(path, fingerprint=before, **about)


def test_hold_out_splits_train_and_leaves_test_unused(shapes):
    held = hold_out(shapes, 300)
    assert (held.test_name, shapes.test_name) == ("val", "test")
    assert (len(held.x_train), len(held.x_test)) == (1700, 300)
    train, val = ([x.tobytes() for x in part] for part in (held.x_train, held.x_test))
    assert sorted(train + val) == sorted(x.tobytes() for x in shapes.x_train)
    columns = (shapes.x_train, shapes.y_train, shapes.masks_train)
    known = {x.tobytes(): (int(y), m) for x, y, m in zip(*columns, strict=True)}
    assert [known[x][0] for x in val] == held.y_test.tolist()
    assert all((known[x][1] == m).all() for x, m in zip(val, held.masks_test, strict=True))
    assert np.bincount(held.y_test, minlength=10).min() > 10  # no class is left out
    assert held.fingerprint == sources.fingerprint(held) != shapes.fingerprint
    np.testing.assert_allclose(held.mean, held.x_train.mean((0, 1, 2)) / 255, rtol=1e-9)
    smaller = hold_out(shapes, 200)
    np.testing.assert_array_equal(smaller.x_test, hold_out(shapes, 200).x_test)
    assert {x.tobytes() for x in smaller.x_test} < set(val)


def test_take_keeps_the_first_images_and_the_name_of_the_whole(shapes):
    few = take(shapes, 100)
    for key in ("x_train", "y_train", "masks_train"):
        assert np.array_equal(getattr(few, key), getattr(shapes, key)[:100])
    assert few.fingerprint == shapes.fingerprint
    assert few.mean != shapes.mean


@pytest.mark.parametrize(
    ("part", "same", "wrong"), [(hold_out, [0], [-1, 2000, 5000]), (take, [0, 2000], [-1, 2001])]
)
def test_all_images_or_too_many(shapes, part, same, wrong):
    assert all(part(shapes, number) is shapes for number in same)
    for number in wrong:
        with pytest.raises(DataError, match=f"{number} of 2000 training images"):
            part(shapes, number)
