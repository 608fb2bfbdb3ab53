"""CIFAR: its makers' pickles, the download, and what is verified."""

import os
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from senet_lib.data import cifar, sources
from senet_lib.data import datasets as data
from senet_lib.data.datasets import load_data, prepare
from senet_lib.errors import DataError

RNG = np.random.default_rng(0)


def cifar_folder(root: Path, hundred: bool = False, text: bool = False) -> tuple[Path, np.ndarray]:
    """Two pictures of each of ten classes a file; keys are text as in Python 2's own, or bytes."""
    label, names, meta = "labels", "label_names", "batches.meta"
    files = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    if hundred:
        label, names, meta, files = "fine_labels", "fine_label_names", "meta", ["train", "test"]

    def write(file: str, content: dict[str, object]) -> None:
        content = {key if text else key.encode(): value for key, value in content.items()}
        (root / file).write_bytes(pickle.dumps(content, protocol=2))

    images = RNG.integers(0, 256, (len(files), 20, 32, 32, 3), dtype=np.uint8)
    for file, batch in zip(files, images, strict=True):
        pixels = batch.transpose(0, 3, 1, 2).reshape(20, 3072)
        write(file, {"data": pixels, label: [k % 10 for k in range(20)]})
    classes = [f"class {k}" for k in range(10)]
    write(meta, {names: classes if text else [name.encode() for name in classes]})
    return root, images


@pytest.mark.parametrize(("hundred", "text"), [(False, False), (True, False), (False, True)])
def test_cifars_own_folder_is_data(tmp_path, hundred, text):
    root, images = cifar_folder(tmp_path, hundred, text)
    dataset = load_data(str(root))
    assert dataset.classes == tuple(f"class {k}" for k in range(10))
    expected = {image.tobytes(): k % 10 for k, image in enumerate(images[-1])}
    pairs = zip(dataset.x_test, dataset.y_test, strict=True)
    assert {x.tobytes(): int(y) for x, y in pairs} == expected
    assert len(dataset.x_train) == 20 * (len(images) - 1)


class Danger:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps({"data": Danger(), "labels": []}), "mkdir"),
        (pickle.dumps([1, 2]), "damaged"),
        (pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}), "3072"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 11]}), "0 to 9"),
        (pickle.dumps({"labels": [0, 1]}), "lacks data"),
        (b"\x80\x04X\xff\xff\xff\x7f", "damaged"),
        (None, "data_batch_3"),
    ],
)
def test_damaged_or_dangerous_pickles(tmp_path, monkeypatch, content, says):
    monkeypatch.chdir(tmp_path)
    batch = cifar_folder(tmp_path)[0] / "data_batch_3"
    batch.unlink() if content is None else batch.write_bytes(content)
    with pytest.raises(DataError, match=says):
        load_data(str(tmp_path))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("file", "key", "value", "says"),
    [
        ("batches.meta", "label_names", [b"caf\xe9"] * 10, "not CIFAR"),
        ("batches.meta", "label_names", None, "not CIFAR"),
        ("batches.meta", "label_names", [f"c{k}" for k in range(257)], "257 classes; at most 256"),
        ("data_batch_3", "labels", None, "not CIFAR"),
        ("data_batch_3", "labels", [[0], [1, 2]], "not CIFAR"),
        ("data_batch_3", "data", [[0], [1, 2]], "not CIFAR"),
    ],
)
def test_labels_and_names_that_are_none(tmp_path, file, key, value, says):
    path = cifar_folder(tmp_path)[0] / file
    content = pickle.loads(path.read_bytes(), encoding="bytes")  # our own
    path.write_bytes(pickle.dumps(content | {key.encode(): value}))
    with pytest.raises(DataError, match=says):
        load_data(str(tmp_path))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty data folder, and a machine without network."""

    def refuse(self):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(datasets.CIFAR10, "download", refuse)
    monkeypatch.setenv("SENET_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_what_cannot_be_downloaded_or_is_another_is_one_line_and_leaves_nothing(place, name):
    with pytest.raises(DataError, match="Name or service not known") as caught:
        prepare(name)
    assert all(part in str(caught.value) for part in (f"{name}.npz", str(place), "SENET_DATA"))
    assert not list(place.iterdir())
    few = np.zeros((2, 32, 32, 3), np.uint8)
    np.savez(place / name, x_train=few, y_train=[0, 1], x_test=few, y_test=[0, 1])
    with pytest.raises(DataError, match=f"is not {name}: train must have"):
        load_data(name)


@pytest.mark.parametrize(("read", "name"), [(load_data, "cifar10"), (prepare, "shapes")])
def test_a_data_folder_that_cannot_be_is_told(place, monkeypatch, read, name):
    (place / "file").write_text("in the way")
    monkeypatch.setenv("SENET_DATA", str(place / "file" / "below"))
    with pytest.raises(DataError, match=r"cannot write .*SENET_DATA"):
        read(name)


def test_download_is_written_once_in_canonical_order(place, monkeypatch):
    calls = []

    def download(self):
        folder = Path(self.root) / self.base_folder
        calls.append(folder)
        folder.mkdir()
        cifar_folder(folder, hundred=True, text=True)

    monkeypatch.setattr(datasets.CIFAR100, "download", download)
    monkeypatch.setattr(datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setitem(datasets.CIFAR100.meta, "md5", None)
    monkeypatch.setitem(data.CIFAR_COUNTS, "cifar100", (10, 2, 2))
    monkeypatch.setenv("SENET_DATA", str(place / "new" / "folder"))
    first, again = load_data("cifar100"), load_data("cifar100")
    assert len(calls) == 1
    assert [p.name for p in data.data_dir().iterdir()] == ["cifar100.npz"]  # no scratch folder
    assert again.fingerprint == first.fingerprint
    assert (again.name, again.classes[7]) == ("cifar100", "class 7")
    with np.load(data.data_dir() / "cifar100.npz") as stored:
        assert str(stored["fingerprint"]) == first.fingerprint
        np.testing.assert_array_equal(stored["x_test"], first.x_test)
        np.testing.assert_array_equal(stored["y_test"], first.y_test)


def test_cifar10_is_the_published_one(cifar10):
    assert cifar10.fingerprint == data.CIFAR10_FINGERPRINT == sources.fingerprint(cifar10)
    assert (cifar10.classes[0], cifar10.classes[9]) == ("airplane", "truck")
    # Channel statistics of the training set, as they are quoted everywhere.
    np.testing.assert_allclose(cifar10.mean, (0.4914, 0.4822, 0.4465), atol=6e-5)
    np.testing.assert_allclose(cifar10.std, (0.2470, 0.2435, 0.2616), atol=6e-5)


def test_cifar10_in_another_order_is_the_same_and_with_labels_exchanged_is_not(
    cifar10, place, monkeypatch
):
    reverse = {key: getattr(cifar10, key)[::-1] for key in sources.KEYS}
    monkeypatch.setattr(cifar, "download_cifar", lambda name, folder: sources.Arrays(**reverse))
    monkeypatch.setattr(sources, "write_npz", lambda path, arrays: None)
    assert load_data("cifar10").fingerprint == cifar10.fingerprint
    labels = reverse["y_train"].copy()
    other = int(np.flatnonzero(labels != labels[0])[0])
    labels[[0, other]] = labels[[other, 0]]  # the counts stay right
    (place / "cifar10.npz").touch()
    changed = sources.Arrays(**reverse | {"y_train": labels})
    monkeypatch.setattr(sources, "read_npz", lambda path: changed)
    with pytest.raises(DataError, match="cac8a7f09e88"):
        load_data("cifar10")
