"""Data that would give wrong answers in silence, and files made to hurt."""

import io
import resource
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from senet_lib.data import hold_out, load_data, load_matching
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
    assert "by number" in caplog.text


def test_data_that_was_changed_since_is_refused(tmp_path):
    content, about = arrays(), {"classes": NAMES, "num_val": 2}
    path = save(tmp_path / "a.npz", **content)
    before = hold_out(load_data(path), 2).fingerprint
    load_matching(path, fingerprint=before, **about)
    content["x_train"][0, 3, 3] ^= 1
    save(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match="was changed"):
        load_matching(path, fingerprint=before, **about)


def test_labels_without_names_leave_none_out_and_a_named_class_without_a_picture_is_said(
    tmp_path, caplog
):
    for labels in (np.arange(9) % 3 + 1, np.arange(9) % 3 * 2):
        content = arrays(None) | {"y_train": labels, "y_test": labels[:6]}
        with pytest.raises(DataError, match=r"label [01]"):
            load_data(save(tmp_path / "a.npz", **content))
    content = arrays() | {"classes": np.array([*NAMES, "mauve"])}
    assert load_data(save(tmp_path / "a.npz", **content)).num_classes == 4
    assert "mauve" in caplog.text


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (np.array(NAMES, object), "text"), (np.array(["a", "b", "a"]), "several"),
        (np.array(["a", "e\u0301", "\u00e9"]), "several"), (np.array(["a", "b", ""]), "printable"),
        (np.array(["a", "b", "c\nd"]), "printable"), (np.array([b"a", b"b", b"\xff"]), "UTF-8"),
        (np.array([str(k) for k in range(300)]), "at most 256"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_used(tmp_path, names, says):
    with pytest.raises(DataError, match=says) as caught:
        load_data(save(tmp_path / "a.npz", **arrays(None), classes=names))
    assert "\n" not in str(caught.value)


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


def test_headers_that_claim_terabytes_and_an_array_stored_twice(tmp_path, monkeypatch):
    for shape in ((10**9, 32, 32, 3), (2**40, 2**40, 32, 3)):
        headers = {"x_train.npy": header_only(shape), "y_train.npy": header_only(shape[:1])}
        refused_quickly(rewritten(tmp_path / "a.npz", headers), "x_train")
    path = Path(save(tmp_path / "a.npz", **arrays()))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("y_train.npy", header_only((9,)) + bytes(9))
    refused_quickly(path, "y_train twice")
    monkeypatch.setattr("senet_lib.data.sources._most_bytes", lambda: 40_000)
    refused_quickly(Path(save(tmp_path / "b.npz", **arrays())), "memory")


def test_a_bomb_is_not_unpacked(tmp_path):
    """Two gigabytes of zeros in two megabytes, as images that have no labels."""
    headers = {"x_train.npy": header_only((650_000, 32, 32, 3))}
    path = rewritten(tmp_path / "bomb.npz", headers, megabytes=650)
    refused_quickly(path, "650000 images in x_train but 9 labels")


def test_paths_are_seen_from_the_clones_top_and_a_known_name_is_none(tmp_path, monkeypatch):
    (tmp_path / "Snakefile").touch()
    for name in ("senet_lib", "notebooks/shapes", "mine"):
        (tmp_path / name).mkdir(parents=True)
    save(tmp_path / "mine" / "a.npz", **arrays())
    monkeypatch.chdir(tmp_path / "notebooks")
    assert load_data("mine/a.npz").num_classes == 3
    shutil.copytree(tmp_path / "mine", tmp_path / "notebooks" / "mine")
    save(tmp_path / "notebooks" / "mine" / "a.npz", **arrays(("red", "white", "blue")))
    assert "white" in load_data("mine/a.npz").classes  # what lies here goes first
    assert load_data("shapes").num_classes == 10  # not the folder beside one
