import numpy as np
import pytest

from senet_lib.data.datasets import make_shapes
from senet_lib.data.shapes import CLASSES, OBJECTS, draw_shapes
from senet_lib.errors import DataError

# The bytes of the embedded dataset as it was published: a change is a new dataset, and makes runs
# before and after it incomparable.
FINGERPRINT = "479159c12112f3673429a23b48a8dcc984b8cb01bb390f3bed33d4a1ecf3d368"


def area(name: str) -> float:
    """Share of the square [-1.5, 1.5]^2 that the object fills, times 9: its area."""
    axis = (np.arange(1500) + 0.5) / 500 - 1.5
    u, v = np.meshgrid(axis.astype(np.float32), axis.astype(np.float32))
    return float((OBJECTS[name](u, v) <= 0).mean() * 9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("disc", np.pi * 0.72),
        ("ring", np.pi * (0.92**2 - 0.48**2)),
        ("square", 1.48**2),
        ("triangle", 0.75 * 3**0.5),  # inscribed in the unit circle
        ("cross", 2 * 1.76 * 0.52 - 0.52**2),
        ("diamond", 2 / 1.9),
        ("star", 1.12257),  # pentagram of circumradius 1: 10 tan 18 / (3 - tan^2 18)
        ("arrow", 1.05**2 / 1.3 + 0.48 * 0.85),
        ("heart", 3.66199 / 1.25**2),  # (x^2 + y^2 - 1)^3 = x^2 y^3, integrated numerically
    ],
)
def test_objects_have_the_area_of_their_geometry(name, expected):
    assert area(name) == pytest.approx(expected, rel=3e-3)


def test_crescent_is_a_disc_less_its_bite():
    u, v = np.float32([-0.8, 0.48, 0.0, 0.95]), np.float32([0.0, 0.0, 0.8, 0.0])
    assert (OBJECTS["crescent"](u, v) <= 0).tolist() == [True, False, True, False]


def test_the_embedded_dataset_is_the_published_one(shapes):
    assert shapes.fingerprint == FINGERPRINT
    assert shapes.classes == CLASSES
    assert np.bincount(shapes.y_train).tolist() == [200] * 10
    assert len({image.tobytes() for image in (*shapes.x_train, *shapes.x_test)}) == 3000


def test_masks_follow_the_canonical_order(shapes):
    """The mask of an image is the one drawn with it, after both were sorted."""
    columns = zip(*draw_shapes(2000, 0, 0), strict=True)
    drawn = {x.tobytes(): (int(y), m.tobytes()) for x, y, m in columns}
    for image, label, mask in zip(shapes.x_train, shapes.y_train, shapes.masks_train, strict=True):
        assert drawn[image.tobytes()] == (int(label), mask.tobytes())


def test_masks_show_the_object(shapes):
    """A mask is one compact object, and its colours stand out from those around it."""
    masks = shapes.masks_test
    filled = masks.sum(axis=(1, 2))
    assert filled.min() >= 25
    assert filled.max() <= 500
    pixels, inside = shapes.x_test.astype(np.float64), masks[..., None]
    colour, ground = (
        (pixels * where).sum(axis=(1, 2)) / where.sum(axis=(1, 2)) for where in (inside, ~inside)
    )
    contrast = np.abs(colour - ground).sum(axis=1)
    assert np.median(contrast) > 180
    assert np.quantile(contrast, 0.01) > 90


def test_seed_and_split_decide_the_images():
    first, again, other = (make_shapes(40, 20, seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (len(first.masks_train), len(first.y_test)) == (40, 20)
    assert not np.array_equal(draw_shapes(20, 3, 0)[0], draw_shapes(20, 3, 1)[0])
    assert np.bincount(draw_shapes(25, 0, 0)[1]).tolist() == [3] * 5 + [2] * 5
    for arguments in ((0, 0, 0), (10, -1, 0)):
        with pytest.raises(DataError, match="cannot draw"):
            draw_shapes(*arguments)
