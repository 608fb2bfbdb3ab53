"""Data that would give wrong answers in silence, and files made to hurt."""

import io
import resource
import shutil
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from senet_lib.data import hold_out, load_data, load_matching
from senet_lib.data.datasets import data_dir
from senet_lib.errors import DataError

NAMES = ("red", "green", "blue")


def arrays(names: tuple[str, ...] | None = NAMES, num: int = 9) -> dict[str, np.ndarray]:
    """Pictures of one colour each, so that a picture tells its class."""
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255,) * 3}
    y = np.arange(num) % 3
    x = np.zeros((num, 32, 32, 3), np.uint8)
    for k, label in enumerate(y):
        x[k] = colours[(names or NAMES)[label]]
        x[k, 0, 0] = k
    found = {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6]}
    return found if names is None else found | {"classes": np.array(names)}


def save(path: Path, **content: np.ndarray) -> str:
    np.savez(path, **content)
    return str(path)


# Classes by name


def test_classes_are_matched_by_name_and_other_classes_are_named(tmp_path):
    path = save(tmp_path / "a.npz", **arrays(("blue", "red", "green")))
    dataset = load_matching(path, classes=NAMES)
    assert dataset.classes == NAMES
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert (x[:, 5, 5].argmax(1) == y).all()  # the brightest channel is the class's
    assert dataset.fingerprint == load_data(path).fingerprint
    with pytest.raises(DataError, match="other classes"):
        load_matching(path, classes=(*NAMES, "white"))
    path = save(tmp_path / "b.npz", **arrays(("red", "white", "blue")))
    with pytest.raises(DataError, match=r"lacks 1 \(green\), and has 1 \(white\)"):
        load_matching(path, classes=NAMES)


def test_without_names_by_number_and_said(tmp_path, caplog):
    path = save(tmp_path / "a.npz", **arrays(None))
    dataset = load_matching(path, classes=NAMES)
    assert dataset.classes == NAMES
    assert (dataset.y_test == load_data(path).y_test).all()
    assert "matched by number" in caplog.text
    with pytest.raises(DataError, match="other classes"):
        load_matching(path, classes=("0", "1"))


def test_data_that_was_changed_since_is_refused(tmp_path):
    content, about = arrays(), {"classes": NAMES, "num_val": 2}
    path = save(tmp_path / "a.npz", **content)
    before = hold_out(load_data(path), 2).fingerprint
    load_matching(path, fingerprint=before, **about)
    content["x_train"][0, 3, 3] ^= 1
    save(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match="was changed since the network was trained on it"):
        load_matching(path, fingerprint=before, **about)


# Labels and names


@pytest.mark.parametrize("labels", [np.arange(9) % 3 + 1, np.arange(9) % 3 * 2])
def test_labels_without_names_start_at_0_and_leave_none_out(tmp_path, labels):
    content = arrays(None) | {"y_train": labels, "y_test": labels[:6]}
    with pytest.raises(DataError, match=r"no training image has the label [01]; labels must"):
        load_data(save(tmp_path / "a.npz", **content))


def test_a_named_class_without_a_picture_is_said(tmp_path, caplog):
    content = arrays() | {"classes": np.array([*NAMES, "mauve"])}
    assert load_data(save(tmp_path / "a.npz", **content)).num_classes == 4
    assert "no training image of mauve" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (np.array(NAMES, object), "store it as plain text"),
        (np.array(["a", "b", "a"]), "several classes are called a"),
        (np.array(["a", "e\u0301", "\u00e9"]), "several classes are called \u00e9"),
        (np.array(["a", "b", ""]), "printable"),
        (np.array(["a", "b", "c\nd"]), "printable"),
        (np.array([b"a", b"b", b"\xff"]), "not in UTF-8"),
        (np.array([str(k) for k in range(300)]), "at most 256"),
    ],
)
def test_names_that_cannot_be_used(tmp_path, names, message):
    with pytest.raises(DataError, match=message) as caught:
        load_data(save(tmp_path / "a.npz", **arrays(None), classes=names))
    assert "\n" not in str(caught.value)


# Files made to hurt


def header_only(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(buffer, fields)
    return buffer.getvalue()


def rewritten(path: Path, headers: dict[str, bytes], megabytes: int = 0) -> Path:
    """The small npz with some arrays' headers replaced, and zeros behind that of x_train."""
    with zipfile.ZipFile(save(path, **arrays())) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()} | headers
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in parts.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(part)
                for _ in range(megabytes if name == "x_train.npy" else 0):
                    file.write(bytes(1000 * 3072))
    return path


def refused_quickly(path: Path, message: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        load_data(str(path))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("shape", [(10**9, 32, 32, 3), (2**40, 2**40, 32, 3)])
def test_headers_that_claim_terabytes(tmp_path, shape):
    headers = {"x_train.npy": header_only(shape), "y_train.npy": header_only(shape[:1])}
    path = rewritten(tmp_path / "a.npz", headers)
    refused_quickly(path, "x_train is not as long as it says")


def test_a_bomb_is_not_unpacked(tmp_path):
    """Two gigabytes of zeros in two megabytes, as images that have no labels."""
    headers = {"x_train.npy": header_only((650_000, 32, 32, 3))}
    path = rewritten(tmp_path / "bomb.npz", headers, megabytes=650)
    refused_quickly(path, "650000 images in x_train but 9 labels")


def test_more_than_the_memory_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("senet_lib.data.sources._most_bytes", lambda: 40_000)
    refused_quickly(Path(save(tmp_path / "a.npz", **arrays())), "memory is enough for")


@pytest.mark.parametrize(
    ("offset", "value", "message"), [(0, 1, "encrypted"), (2, 99, "compression method")]
)
def test_encrypted_or_of_unknown_compression(tmp_path, offset, value, message):
    """A field of every member's local and central header in the zip is changed."""
    path = Path(save(tmp_path / "a.npz", **arrays()))
    content = bytearray(path.read_bytes())
    for signature, base in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(signature)
        while start >= 0:
            struct.pack_into("<H", content, start + base + offset, value)
            start = content.find(signature, start + 4)
    path.write_bytes(content)
    refused_quickly(path, f"cannot be read.*{message}")


def test_an_array_stored_twice(tmp_path):
    path = Path(save(tmp_path / "a.npz", **arrays()))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("y_train.npy", header_only((9,)) + bytes(9))
    refused_quickly(path, "holds y_train twice")


# Where data lies


def test_relative_paths_are_seen_from_the_clones_top(tmp_path, monkeypatch):
    (tmp_path / "Snakefile").touch()
    for name in ("senet_lib", "notebooks", "mine"):
        (tmp_path / name).mkdir()
    save(tmp_path / "mine" / "a.npz", **arrays())
    monkeypatch.chdir(tmp_path / "notebooks")
    assert load_data("mine/a.npz").num_classes == 3
    shutil.copytree(tmp_path / "mine", tmp_path / "notebooks" / "mine")
    save(tmp_path / "notebooks" / "mine" / "a.npz", **arrays(("red", "white", "blue")))
    assert "white" in load_data("mine/a.npz").classes  # what lies here goes first


def test_a_known_name_is_no_path(tmp_path, monkeypatch):
    """A folder called shapes beside one does not take the place of the embedded data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()
    assert load_data("shapes").num_classes == 10
    assert data_dir().is_absolute()
