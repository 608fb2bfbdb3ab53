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


def test_classes_are_matched_by_name(tmp_path):
    path = save(tmp_path / "a.npz", **arrays(("blue", "red", "green")))
    dataset = load_matching(path, classes=NAMES)
    assert dataset.classes == NAMES
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert (x[:, 5, 5].argmax(1) == y).all()  # the brightest channel is the class's
    assert dataset.fingerprint == load_data(path).fingerprint


def test_other_classes_are_named(tmp_path):
    path = save(tmp_path / "a.npz", **arrays(("red", "white", "blue")))
    with pytest.raises(DataError, match=r"lacks 1 \(green\), and has 1 \(white\)"):
        load_matching(path, classes=NAMES)
    with pytest.raises(DataError, match="other classes"):
        load_matching(save(tmp_path / "b.npz", **arrays()), classes=(*NAMES, "white"))


def test_without_names_by_number_and_said(tmp_path, caplog):
    path = save(tmp_path / "a.npz", **arrays(None))
    dataset = load_matching(path, classes=NAMES)
    assert dataset.classes == NAMES
    assert (dataset.y_test == load_data(path).y_test).all()
    assert "matched by number" in caplog.text
    with pytest.raises(DataError, match="other classes"):
        load_matching(path, classes=("0", "1"))


def test_data_that_was_changed_since_is_refused(tmp_path):
    path = save(tmp_path / "a.npz", **arrays())
    before = hold_out(load_data(path), 2).fingerprint
    load_matching(path, classes=NAMES, fingerprint=before, num_val=2)
    content = arrays()
    content["x_train"][0, 3, 3] ^= 1
    save(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match="was changed since the network was trained on it"):
        load_matching(path, classes=NAMES, fingerprint=before, num_val=2)


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


def header_only(shape: tuple[int, ...], dtype: str) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(buffer, fields)
    return buffer.getvalue()


def refused_quickly(path: Path, message: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        load_data(str(path))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_headers_that_claim_3_terabytes(tmp_path):
    claim = header_only((10**9, 32, 32, 3), "|u1")
    content = arrays() | {"y_train": np.zeros(9, np.uint8)}
    path = tmp_path / "a.npz"
    save(path, **content)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["x_train.npy"], parts["y_train.npy"] = claim, header_only((10**9,), "|u1")
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    refused_quickly(path, "x_train is not as long as it says")


def test_a_bomb_is_not_unpacked(tmp_path):
    """Two gigabytes of zeros in two megabytes, as images that have no labels."""
    path = tmp_path / "bomb.npz"
    save(path, **arrays())
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["x_train.npy"] = header_only((650_000, 32, 32, 3), "|u1")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in parts.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(part)
                for _ in range(650 if name == "x_train.npy" else 0):
                    file.write(bytes(1000 * 3072))
    refused_quickly(path, "650000 images in x_train but 9 labels")


def test_more_than_the_memory_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("senet_lib.data.sources._most_bytes", lambda: 40_000)
    refused_quickly(Path(save(tmp_path / "a.npz", **arrays())), "memory is enough for")


def patched(path: Path, offset: int, value: int) -> None:
    """Change a field of every member's local and central header in a zip."""
    content = bytearray(path.read_bytes())
    for signature, base in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(signature)
        while start >= 0:
            struct.pack_into("<H", content, start + base + offset, value)
            start = content.find(signature, start + 4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "value", "message"), [(0, 1, "encrypted"), (2, 99, "compression method")]
)
def test_encrypted_or_of_unknown_compression(tmp_path, offset, value, message):
    path = Path(save(tmp_path / "a.npz", **arrays()))
    patched(path, offset, value)
    refused_quickly(path, f"cannot be read.*{message}")


def test_an_array_stored_twice(tmp_path):
    path = Path(save(tmp_path / "a.npz", **arrays()))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("y_train.npy", header_only((9,), "|u1") + bytes(9))
    refused_quickly(path, "holds y_train twice")


def test_flipped_bytes_are_found_or_harmless(tmp_path):
    """In content a flip fails the checksum; in a header it is refused or changes nothing."""
    rng, whole = np.random.default_rng(1), tmp_path / "a.npz"
    expected = load_data(save(whole, **arrays())).fingerprint
    content, path, found = whole.read_bytes(), tmp_path / "b.npz", 0
    with zipfile.ZipFile(whole) as archive:
        headers = [info.header_offset for info in archive.infolist()]
    tail = content.find(b"PK\1\2")
    places = [start + int(k) for start in headers for k in rng.integers(0, 200, 20)]
    places += [int(k) for k in rng.integers(tail, len(content), 60)]
    places += [int(k) for k in rng.integers(0, len(content), 60)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert load_data(str(path)).fingerprint == expected
        except DataError as error:
            found += 1
            line = str(error)
            assert "\n" not in line
    assert found > 100


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
