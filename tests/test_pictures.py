"""Folders of pictures: what is read, how it is made 32x32, what is left out and said."""

import io
import os
import pickle
import resource
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from senet_lib.data import load_data, read_picture, square
from senet_lib.errors import DataError

RNG = np.random.default_rng(0)


def noise(width: int = 32, height: int = 32) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def folder(root: Path, classes: tuple[str, ...] = ("a", "b"), splits=("train", "test")) -> Path:
    """One picture of noise for each class and split."""
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            noise().save(root / split / name / "0.png")
    return root


def halves(width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


# One rule


def test_transparent_ground_is_white():
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (8, 8, 24, 24))
    for mode in ("RGBA", "LA"):
        pixels = square(image.convert(mode))
        assert (pixels[0, 0] == 255).all(), mode
        assert (pixels[16, 16] == 0).all(), mode
        assert pixels.mean() == pytest.approx(191.25), mode  # a quarter is black


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 16, 32))
    image.save(tmp_path / "a.gif", transparency=0)
    pixels, _ = read_picture(tmp_path / "a.gif")
    assert (pixels[0, 0] == [255, 0, 0]).all()
    assert (pixels[0, 31] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, orientation):
    """Stored so that a viewer, which follows EXIF, shows red on the left and blue on the right."""
    back = {5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270",
            2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM"}  # fmt: skip
    image = halves(64, 48)
    stored = image.transpose(Image.Transpose[back[orientation]]) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    pixels, size = read_picture(tmp_path / "a.png")
    assert size == (64, 48)
    assert (pixels[:, :15] == [255, 0, 0]).all()
    assert (pixels[:, 17:] == [0, 0, 255]).all()


def test_the_middle_of_other_aspects():
    """Of 48x16, columns 16 to 31; no squeezing."""
    image = Image.new("RGB", (48, 16), "red")
    image.paste((0, 255, 0), (16, 0, 32, 16))
    assert (square(image) == [0, 255, 0]).all()
    assert (square(image.rotate(90, expand=True)) == [0, 255, 0]).all()
    assert square(image, 8).shape == (8, 8, 3)


def test_resizing_is_antialiased():
    """A fine chequerboard becomes grey; plain sampling would keep black and white."""
    board = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = square(Image.fromarray(board)).astype(int)
    assert np.abs(small[2:-2, 2:-2] - 127.5).max() < 12


def test_array_and_file_follow_the_same_rule(tmp_path):
    image = noise(48, 16)
    image.save(tmp_path / "a.png")
    pixels = np.asarray(image)
    np.savez(tmp_path / "a.npz", x_train=np.stack([pixels, 255 - pixels]), y_train=[0, 1],
             x_test=pixels[None], y_test=[0])  # fmt: skip
    from_file, size = read_picture((tmp_path / "a.png").read_bytes(), "a.png")
    assert size == (48, 16)
    assert (load_data(str(tmp_path / "a.npz")).x_test[0] == from_file).all()


@pytest.mark.parametrize(
    ("mode", "colour"), [("1", 1), ("L", 255), ("CMYK", (0,) * 4), ("YCbCr", (255, 128, 128))]
)
def test_modes_of_8_bits(mode, colour):
    assert (square(Image.new(mode, (20, 20), colour)) == 255).all()


# Which files


def test_every_kind_that_pillow_reads_and_the_rest_is_named(tmp_path, caplog):
    root = folder(tmp_path)
    kinds = ["webp", "bmp", "gif", "tif", "TIFF", "JFIF", "jpe", "ppm", "tga", "ico", "PNG", "jp2"]
    for kind in kinds:
        noise().save(root / "train" / "a" / f"x.{kind}")
    for name in ("notes.txt", "b.mat", "c.mat", ".hidden.png", "Thumbs.db", "plain"):
        (root / "train" / "a" / name).write_bytes(b"x")
    (root / "train" / "a" / "more").mkdir()
    noise().save(root / "train" / "loose.png")
    dataset = load_data(str(root))
    assert (dataset.y_train == 0).sum() == 1 + len(kinds)
    assert len(caplog.records) == 1
    for words in (
        f"{4 + len(kinds)} pictures read", "2 .mat", "1 .txt", "2 hidden or of the system",
        "1 without a suffix", "1 folders within a class", "1 beside the class folders",
    ):  # fmt: skip
        assert words in caplog.text


def test_nothing_to_say_is_no_warning(tmp_path, caplog):
    caplog.set_level("INFO")
    load_data(str(folder(tmp_path)))
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", f"{tmp_path}: 4 pictures read")


def test_link_to_a_picture_that_is_gone(tmp_path):
    root = folder(tmp_path)
    (root / "train" / "a" / "gone.png").symlink_to("elsewhere.png")
    with pytest.raises(DataError, match=r"gone\.png is a link to elsewhere\.png"):
        load_data(str(root))


def test_what_systems_leave_behind_is_no_class_and_test_goes_before_val(tmp_path, caplog):
    root = folder(tmp_path, splits=("train", "test", "val"))
    noise().save(root / "val" / "a" / "1.png")
    for name in ("__MACOSX", ".DS_Store", "@eaDir", "._a"):
        (root / "train" / name).mkdir()
    dataset = load_data(str(root))
    assert (dataset.classes, len(dataset.x_test)) == (("a", "b"), 2)
    assert "left out: 4 hidden or of the system" in caplog.text
    assert "val is not used" in caplog.text


def test_names_in_two_unicode_forms_are_one(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    root = folder(tmp_path, ("b", composed))
    (root / "test" / composed).rename(root / "test" / decomposed)
    assert load_data(str(root)).classes == ("b", composed)
    (root / "train" / decomposed).mkdir()
    with pytest.raises(DataError, match="two folders café"):
        load_data(str(root))


@pytest.mark.parametrize("name", ["two\nlines", "bell\a", " "])
def test_names_that_no_line_can_hold(tmp_path, name):
    with pytest.raises(DataError, match="printable") as caught:
        load_data(str(folder(tmp_path, ("b", name))))
    assert "\n" not in str(caught.value)


def test_folder_without_permission(tmp_path, monkeypatch):
    root = folder(tmp_path)

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot read .*train: Permission denied"):
        load_data(str(root))


# Too large, and hostile


@pytest.mark.parametrize(
    ("side", "says"), [(13_000, "has 13,000 x 13,000 pixels; at"), (20_000, "has too many pixels")]
)
def test_a_huge_png_is_refused_and_takes_no_memory(tmp_path, side, says):
    with Image.new("1", (side, side)) as image:
        image.save(tmp_path / "huge.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=rf"huge\.png {says}"):
        read_picture(tmp_path / "huge.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_large_photo_is_read_at_a_fraction_of_its_size(tmp_path):
    image = Image.new("RGB", (9_000, 6_000), "red")
    image.paste((0, 0, 255), (4_500, 0, 9_000, 6_000))
    image.save(tmp_path / "photo.jpg")
    pixels, size = read_picture(tmp_path / "photo.jpg")
    assert size == (9_000, 6_000)
    assert np.abs(pixels[:, :15].astype(int) - [254, 0, 0]).max() < 4
    assert np.abs(pixels[:, 17:].astype(int) - [0, 0, 254]).max() < 4


def test_postscript_is_not_run(tmp_path):
    """Pillow would start Ghostscript for it."""
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n"
    with pytest.raises(DataError, match="is not a readable image"):
        read_picture(content, "a.png")


def test_damaged_pictures_are_refused_in_one_line():
    """Truncations and single flipped bytes of four kinds: read, or one line that names the file."""
    refused = []
    for kind, options in (("PNG", {}), ("JPEG", {}), ("GIF", {}), ("TIFF", {}), ("WEBP", {})):
        buffer = io.BytesIO()
        noise(40, 36).save(buffer, kind, **options)
        whole = buffer.getvalue()
        for _ in range(40):
            damaged = bytearray(whole)
            damaged[RNG.integers(min(len(whole), 300))] ^= 1 << int(RNG.integers(8))
            for content in (bytes(damaged), whole[: RNG.integers(len(whole))]):
                try:
                    read_picture(content, "x.png")
                except DataError as error:
                    refused.append(str(error))
    assert len(refused) > 200
    assert all(line.startswith("x.png") and "\n" not in line for line in refused)


# CIFAR's own folder


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


@pytest.mark.parametrize("hundred", [False, True])
@pytest.mark.parametrize("text", [False, True])
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
    ("content", "message"),
    [
        (pickle.dumps({"data": Danger(), "labels": []}), "wants (posix|nt).mkdir"),
        (pickle.dumps([1, 2]), "may be damaged"),
        (pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}), "3072"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 11]}), "lie in 0 to 9"),
        (pickle.dumps({"labels": [0, 1]}), "it lacks data"),
        (b"", "may be damaged"),
        (b"\x80\x04X\xff\xff\xff\x7f", "may be damaged"),
    ],
)
def test_damaged_or_dangerous_pickles(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    root, _ = cifar_folder(tmp_path)
    (root / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_data(str(root))
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


def test_a_missing_batch_is_named(tmp_path):
    root, _ = cifar_folder(tmp_path)
    (root / "data_batch_2").unlink()
    with pytest.raises(DataError, match="data_batch_2: No such file"):
        load_data(str(root))
