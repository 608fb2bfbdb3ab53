"""Folders of pictures: what is read, how it is made 32x32, what is left out and said."""

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

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


def test_transparent_ground_is_white_and_modes_of_8_bits_are_read(tmp_path):
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (8, 8, 24, 24))
    for mode in ("RGBA", "LA"):
        pixels = square(image.convert(mode))
        assert (pixels[0, 0] == 255).all(), mode
        assert (pixels[16, 16] == 0).all(), mode
        assert pixels.mean() == pytest.approx(191.25), mode  # a quarter is black
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 16, 32))
    image.save(tmp_path / "a.gif", transparency=0)
    pixels, _ = read_picture(tmp_path / "a.gif")
    assert (pixels[0, 0] == [255, 0, 0]).all()
    assert (pixels[0, 31] == 255).all()
    whites = {"1": 1, "L": 255, "CMYK": (0,) * 4, "YCbCr": (255, 128, 128)}
    for mode, colour in whites.items():
        assert (square(Image.new(mode, (20, 20), colour)) == 255).all(), mode


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, orientation):
    """Stored so that a viewer, which follows EXIF, shows red on the left and blue on the right."""
    back = {5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270",
            2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM"}  # fmt: skip
    image = Image.new("RGB", (64, 48), "red")
    image.paste((0, 0, 255), (32, 0, 64, 48))
    stored = image.transpose(Image.Transpose[back[orientation]]) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tiff"):
        stored.save(tmp_path / name, exif=exif)
        pixels, size = read_picture(tmp_path / name)
        assert size == (64, 48)
        assert (pixels[:, :15] == [255, 0, 0]).all()
        assert (pixels[:, 17:] == [0, 0, 255]).all()


def test_the_middle_of_other_aspects_and_antialiasing():
    """Of 48x16, columns 16 to 31; a fine chequerboard becomes grey."""
    image = Image.new("RGB", (48, 16), "red")
    image.paste((0, 255, 0), (16, 0, 32, 16))
    assert (square(image) == [0, 255, 0]).all()
    assert (square(image.rotate(90, expand=True)) == [0, 255, 0]).all()
    board = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = square(Image.fromarray(board)).astype(int)
    assert np.abs(small[2:-2, 2:-2] - 127.5).max() < 12


def test_every_kind_that_pillow_reads_and_the_rest_is_named(tmp_path, caplog):
    root = folder(tmp_path)
    assert len(load_data(str(root)).x_train) == 2
    assert not [r for r in caplog.records if r.levelname != "INFO"]
    kinds = ["webp", "bmp", "gif", "tif", "TIFF", "JFIF", "jpe", "ppm", "tga", "ico", "PNG", "jp2"]
    for kind in kinds:
        noise().save(root / "train" / "a" / f"x.{kind}")
    for name in ("notes.txt", "b.mat", "c.mat", ".hidden.png", "Thumbs.db", "plain"):
        (root / "train" / "a" / name).write_bytes(b"x")
    (root / "train" / "a" / "more").mkdir()
    noise().save(root / "train" / "loose.png")
    caplog.clear()
    dataset = load_data(str(root))
    assert (dataset.y_train == 0).sum() == 1 + len(kinds)
    (record,) = caplog.records
    for words in (f"{4 + len(kinds)} pictures", "2 .mat", "1 .txt", "2 hidden", "1 without",
                  "1 folders", "1 beside"):  # fmt: skip
        assert words in record.getMessage()


def test_folders_that_cannot_be_read_are_one_line(tmp_path, monkeypatch):
    for k, name in enumerate(("two\nlines", "bell\a", " ")):
        with pytest.raises(DataError, match="printable"):
            load_data(str(folder(tmp_path / str(k), ("b", name))))
    root = folder(tmp_path / "c")
    (root / "train" / "a" / "gone.png").symlink_to("elsewhere.png")
    with pytest.raises(DataError, match=r"gone\.png.*elsewhere\.png"):
        load_data(str(root))

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"train: Permission denied"):
        load_data(str(root))


def test_what_systems_leave_behind_is_no_class_and_test_goes_before_val(tmp_path, caplog):
    root = folder(tmp_path, splits=("train", "test", "val"))
    noise().save(root / "val" / "a" / "1.png")
    for name in ("__MACOSX", ".DS_Store", "@eaDir", "._a"):
        (root / "train" / name).mkdir()
    dataset = load_data(str(root))
    assert (dataset.classes, len(dataset.x_test)) == (("a", "b"), 2)
    assert "4 hidden" in caplog.text
    assert "val is not used" in caplog.text


def test_names_in_two_unicode_forms_are_one(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    root = folder(tmp_path, ("b", composed))
    (root / "test" / composed).rename(root / "test" / decomposed)
    assert load_data(str(root)).classes == ("b", composed)
    (root / "train" / decomposed).mkdir()
    with pytest.raises(DataError, match="two folders café"):
        load_data(str(root))


@pytest.mark.parametrize("side", [13_000, 20_000])  # our limit, and Pillow's
def test_a_huge_png_is_refused_before_it_is_decoded(tmp_path, side, monkeypatch):
    with Image.new("1", (side, side)) as image:
        image.save(tmp_path / "huge.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=r"huge\.png .*pixels"):
        read_picture(tmp_path / "huge.png")


def test_damaged_pictures_are_refused_in_one_line():
    """Truncations and single flipped bits of five kinds: read, or one line that names the file;
    and PostScript, for which Pillow would start Ghostscript."""
    refused = []
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        noise(40, 36).save(buffer, kind)
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
    assert all(line.startswith("x.png") for line in refused)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n"
    deep = io.BytesIO()  # and 16 bits a channel
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(deep, "PNG")
    for other in (content, deep.getvalue()):
        with pytest.raises(DataError, match=r"^a\.png"):
            read_picture(other, "a.png")
