import hashlib
import logging
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from senet_lib.data import cifar, sources
from senet_lib.data import datasets as data
from senet_lib.data.datasets import hold_out, load_data, prepare, take
from senet_lib.errors import DataError, UnknownNameError

CLASSES = ("ant", "bee", "cat")


def make_arrays(size: int = 32, n: int = 9, m: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        "x_train": rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8),
        "y_train": (np.arange(n) % 3).astype(np.uint8),
        "x_test": rng.integers(0, 256, (m, size, size, 3), dtype=np.uint8),
        "y_test": (np.arange(m) % 3).astype(np.uint8),
    }


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


@pytest.fixture
def no_network(monkeypatch):
    """Torchvision's dataset as it is on a machine without network: its download raises."""

    def refuse(self):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(datasets.CIFAR10, "download", refuse)


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


def test_mean_and_std_are_those_of_train(shapes):
    pixels = shapes.x_train.reshape(-1, 3)
    mean = pixels.sum(axis=0, dtype=np.int64) / len(pixels)
    deviation = np.sqrt(((pixels - mean) ** 2).mean(axis=0))
    np.testing.assert_allclose(shapes.mean, mean / 255, rtol=1e-14)
    np.testing.assert_allclose(shapes.std, deviation / 255, rtol=1e-9)


def test_npz_round_trip_keeps_everything(shapes, tmp_path):
    path = prepare("shapes", tmp_path)
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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"x_train": make_arrays()["x_train"].astype(np.float32)}, "float32"),
        ({"x_train": make_arrays()["x_train"].transpose(0, 3, 1, 2)}, r"x_train .*9, 3, 32, 32"),
        ({"x_test": make_arrays()["x_test"][:0], "y_test": np.zeros(0, int)}, "at least 1"),
        ({"y_train": np.arange(8) % 3}, "9 images in x_train but 8"),
        ({"y_train": np.arange(9) / 3}, "y_train"), ({"y_train": np.eye(9, dtype=int)}, "y_train"),
        ({"y_test": np.arange(6)}, "y_test .*0 to 5; with 3"),
        ({"y_train": np.arange(9) % 3 - 1}, "y_train .*-1 to 1"),
        ({"y_test": np.full(6, 3), "classes": None}, "y_test .*3 to 3"),
        ({"y_train": np.arange(9) + 300, "classes": None}, "at most 256"),
        ({"classes": np.arange(3)}, "names"),
        ({"y_train": np.zeros(9, int), "y_test": np.zeros(6, int), "classes": None}, "at least 2"),
        ({"masks_train": np.ones((9, 16, 16), bool)}, "masks_train"),
        ({"x_train": np.array([{}] * 9, object)}, "x_train"),
        ({"fingerprint": np.array("0" * 64)}, "claims 000000000000"),
    ],
)  # fmt: skip
def test_npz_that_does_not_fit_is_refused_in_one_line(tmp_path, changes, says):
    with pytest.raises(DataError, match=says) as caught:
        load_data(save(tmp_path / "bad.npz", **changes))
    assert "\n" not in str(caught.value)
    assert "bad.npz" in str(caught.value)


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
    for name in ("cifar10", "cifar100"):
        save(tmp_path / f"{name}.npz")
        with pytest.raises(DataError, match=f"is not {name}: train must have"):
            load_data(name, tmp_path)


def test_names_and_paths_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, says in (("cifar11", "did you mean cifar10"), ("", "cifar10, cifar100, shapes")):
        with pytest.raises(UnknownNameError, match=says):
            load_data(name)
    for name in ("no/such/folder", "./here", "missing.npz", "~/nothing-there-x"):
        with pytest.raises(DataError, match=Path(name).name):
            load_data(name)
    monkeypatch.setenv("SENET_DATA", str(tmp_path))
    assert data.data_dir() == tmp_path
    monkeypatch.delenv("SENET_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data.data_dir() == tmp_path / "home" / ".cache" / "senet"


def test_what_cannot_be_downloaded_or_written_is_one_line_and_leaves_nothing(
    no_network, few_shapes, tmp_path, monkeypatch
):
    for name in ("cifar10", "cifar100"):
        with pytest.raises(DataError, match="Name or service not known") as caught:
            prepare(name, tmp_path)
        text = str(caught.value)
        assert all(part in text for part in (f"{name}.npz", str(tmp_path), "SENET_DATA"))
        assert "\n" not in text

    def fail(file, **content):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(DataError, match="No space left on device"):
        prepare("shapes", tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("in the way")
    for read, name in ((load_data, "cifar10"), (prepare, "shapes")):
        with pytest.raises(DataError, match=r"cannot write .*SENET_DATA"):
            read(name, tmp_path / "file" / "below")


@pytest.fixture
def few_shapes(monkeypatch):
    few = data.make_shapes(40, 20)
    monkeypatch.setattr(data, "make_shapes", lambda: few)


@pytest.fixture
def fake_cifar100(monkeypatch):
    """Torchvision's CIFAR-100 with a hundredth of the images; returns the calls made."""
    calls = []
    monkeypatch.setitem(data.CIFAR_COUNTS, "cifar100", (100, 5, 1))

    class Fake:
        base_folder, filename = "cifar-100-python", "cifar-100-python.tar.gz"

        def __init__(self, root, train, download):
            calls.append((Path(root), download))
            count = 5 if train else 1
            rng = np.random.default_rng(int(train))
            self.targets = rng.permutation(np.arange(100 * count) % 100).tolist()
            self.data = rng.integers(0, 256, (100 * count, 32, 32, 3), dtype=np.uint8)
            self.classes = [f"class {k}" for k in range(100)]

    monkeypatch.setattr(datasets, "CIFAR100", Fake)
    return calls


def test_download_is_written_once_in_canonical_order(fake_cifar100, tmp_path):
    folder = tmp_path / "new" / "folder"
    first, again = (load_data("cifar100", folder) for _ in range(2))
    assert [download for _, download in fake_cifar100] == [True, True]
    assert [p.name for p in folder.iterdir()] == ["cifar100.npz"]  # the scratch folder is gone
    assert again.fingerprint == first.fingerprint
    assert (again.name, again.classes[7]) == ("cifar100", "class 7")
    digests = [hashlib.sha256(image).digest() for image in again.x_test]
    assert digests == sorted(digests)
    with np.load(folder / "cifar100.npz") as stored:
        assert str(stored["fingerprint"]) == first.fingerprint
        np.testing.assert_array_equal(stored["x_test"], first.x_test)
        np.testing.assert_array_equal(stored["y_test"], first.y_test)


def test_cifar10_is_the_published_one(cifar10):
    assert cifar10.fingerprint == data.CIFAR10_FINGERPRINT == sources.fingerprint(cifar10)
    assert cifar10.x_train.shape == (50_000, 32, 32, 3)
    assert cifar10.x_test.shape[0] == 10_000
    assert np.bincount(cifar10.y_train).tolist() == [5000] * 10
    assert np.bincount(cifar10.y_test).tolist() == [1000] * 10
    assert cifar10.classes[0] == "airplane"
    assert cifar10.classes[9] == "truck"
    # Channel statistics of the training set, as they are quoted everywhere.
    np.testing.assert_allclose(cifar10.mean, (0.4914, 0.4822, 0.4465), atol=6e-5)
    np.testing.assert_allclose(cifar10.std, (0.2470, 0.2435, 0.2616), atol=6e-5)


def test_cifar10_in_another_order_is_the_same_and_with_labels_exchanged_is_not(
    cifar10, tmp_path, monkeypatch
):
    reverse = {key: getattr(cifar10, key)[::-1] for key in sources.KEYS}
    monkeypatch.setattr(cifar, "download_cifar", lambda name, folder: sources.Arrays(**reverse))
    monkeypatch.setattr(sources, "write_npz", lambda path, arrays: None)
    assert load_data("cifar10", tmp_path).fingerprint == cifar10.fingerprint
    labels = reverse["y_train"].copy()
    other = int(np.flatnonzero(labels != labels[0])[0])
    labels[[0, other]] = labels[[other, 0]]  # the counts stay right
    (tmp_path / "cifar10.npz").touch()
    changed = sources.Arrays(**reverse | {"y_train": labels})
    monkeypatch.setattr(sources, "read_npz", lambda path: changed)
    with pytest.raises(DataError, match="cac8a7f09e88"):
        load_data("cifar10", tmp_path)


def test_hold_out_splits_train_and_leaves_test_unused(shapes):
    held = hold_out(shapes, 300)
    assert (held.test_name, shapes.test_name) == ("val", "test")
    assert (len(held.x_train), len(held.x_test)) == (1700, 300)
    train, val = ([x.tobytes() for x in part] for part in (held.x_train, held.x_test))
    assert sorted(train + val) == sorted(x.tobytes() for x in shapes.x_train)
    assert not set(val) & {x.tobytes() for x in shapes.x_test}
    columns = (shapes.x_train, shapes.y_train, shapes.masks_train)
    known = {x.tobytes(): (int(y), m) for x, y, m in zip(*columns, strict=True)}
    assert [known[x][0] for x in val] == held.y_test.tolist()
    assert all((known[x][1] == m).all() for x, m in zip(val, held.masks_test, strict=True))
    assert np.bincount(held.y_test, minlength=10).min() > 10  # no class is left out
    assert held.fingerprint == sources.fingerprint(held) != shapes.fingerprint
    expected = held.x_train.reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(held.mean, expected, rtol=1e-9)
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
