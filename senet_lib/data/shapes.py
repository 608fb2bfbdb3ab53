"""Draw the embedded dataset: one object of ten kinds on a textured background, with its exact mask.

Everything random is an integer or a uniform number of a seeded PCG64; sines and cosines are rounded
to 1/65536, and the rest is + - * / and square roots, one operation at a time, which IEEE 754
fixes to the last bit. So the images are the same bytes on every platform.

Legend: n images, S = 3 samples along each side of a pixel, u v coordinates of the object.
"""

from collections.abc import Callable

import numpy as np

from senet_lib.errors import DataError

SIZE = 32
SAMPLES = 3
CHUNK = 48  # images drawn at once: their samples fit the processor's cache


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Pentagram: a point is inside if it lies beyond at most one of the five lines."""
    largest = second = np.full_like(u, -9.0)
    normals = ((0, 1), (0.9510565, 0.309017), (0.5877853, -0.809017))
    for x, y in (*normals, (-0.9510565, 0.309017), (-0.5877853, -0.809017)):
        beyond = u * x + v * y - 0.309017
        second = np.maximum(second, np.minimum(largest, beyond))
        largest = np.maximum(largest, beyond)
    return second


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(a, b) - 0.26, np.maximum(a, b) - 0.88)


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    bite = u - 0.48
    return np.maximum(u * u + v * v - 0.85, 0.5 - (bite * bite + v * v))


def _arrow(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a = np.abs(u)
    head = np.maximum(v - 0.05, 1.3 * a - v - 1)
    shaft = np.maximum(a - 0.24, np.abs(v - 0.45) - 0.45)
    return np.minimum(head, shaft)


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = 1.25 * u, -1.25 * v + 0.1
    round_part = x * x + y * y - 1
    return round_part * round_part * round_part - x * x * y * y * y


# Each function is negative inside its object, which fills about the unit circle; v points down.
OBJECTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "arrow": _arrow,
    "crescent": _crescent,
    "cross": _cross,
    "diamond": lambda u, v: 1.9 * np.abs(u) + np.abs(v) - 1,
    "disc": lambda u, v: u * u + v * v - 0.72,
    "heart": _heart,
    "ring": lambda u, v: np.abs(np.sqrt(u * u + v * v) - 0.7) - 0.22,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.74,
    "star": _star,
    "triangle": lambda u, v: np.maximum(v - 0.5, 0.8660254 * np.abs(u) - 0.5 * v - 0.5),
}
CLASSES = tuple(OBJECTS)


# The colour each class leans towards, by 0 to 90 %: a hint that is learnt within an epoch, so
# that even a minute of training shows something; the rest it must tell by shape.
HUES = np.array([
    (220, 60, 50), (60, 190, 70), (70, 90, 230), (230, 210, 60), (200, 70, 210),
    (70, 210, 215), (245, 150, 50), (150, 80, 40), (235, 235, 235), (245, 150, 190),
], np.float32)  # fmt: skip


def draw_shapes(
    num_images: int, seed: int, split: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw images with their labels and masks; the classes are as equal in number as they can be.

    Args:
        num_images: how many, at least 1.
        seed: 0 or more.
        split: 0 for train, 1 for test: another stream of random numbers.
    Returns:
        images (n, 32, 32, 3) uint8, labels (n,) int64, which index `CLASSES`, and masks
        (n, 32, 32) bool: pixels of which the object covers at least half.
    """
    if num_images < 1 or seed < 0:
        raise DataError(f"cannot draw {num_images} shapes from seed {seed}: need at least 1 and 0")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, split])))
    labels = np.arange(num_images) % len(CLASSES)
    images = np.empty((num_images, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((num_images, SIZE, SIZE), bool)
    coverage = _draw_objects(rng, labels)
    for start in range(0, num_images, CHUNK):
        part = slice(start, min(start + CHUNK, num_images))
        images[part] = _compose(rng, coverage[part], labels[part])
        masks[part] = 2 * coverage[part].astype(np.int64) >= SAMPLES * SAMPLES
    return images, labels.astype(np.int64), masks


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> np.ndarray:
    """Uniform float32 numbers shaped to be broadcast over an image."""
    return (low + (high - low) * rng.random(shape)).astype(np.float32)


def _direction(
    rng: np.random.Generator, *shape: int, turn: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of angles uniform within `turn` of a full turn about 0, rounded so that no
    maths library can change them."""
    angle = (rng.random(shape) - 0.5) * (2 * np.pi * turn)
    return tuple(
        (np.round(wave * 65536) / 65536).astype(np.float32)
        for wave in (np.cos(angle), np.sin(angle))
    )


def _draw_objects(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Samples (0 to 9) of each pixel that the object covers, (n, 32, 32) uint8."""
    n = len(labels)
    radius = _uniform(rng, 7.0, 13.0, n, 1, 1)
    room = SIZE / 2 - 0.9 * radius
    centre_x = SIZE / 2 + room * _uniform(rng, -1, 1, n, 1, 1)
    centre_y = SIZE / 2 + room * _uniform(rng, -1, 1, n, 1, 1)
    stretch = _uniform(rng, 0.85, 1.0, n, 1, 1)
    cosine, sine = _direction(rng, n, 1, 1, turn=0.25)
    grid = ((np.arange(SIZE * SAMPLES) + 0.5) / SAMPLES).astype(np.float32)
    coverage = np.empty((n, SIZE, SIZE), np.uint8)
    for label, level in enumerate(OBJECTS.values()):
        members = np.flatnonzero(labels == label)
        for start in range(0, len(members), CHUNK):
            i = members[start : start + CHUNK]
            x = (grid[None, None, :] - centre_x[i]) / radius[i]
            y = (grid[None, :, None] - centre_y[i]) / radius[i]
            u = (x * cosine[i] + y * sine[i]) / stretch[i]
            v = y * cosine[i] - x * sine[i]
            inside = level(u, v) <= 0  # (n, 32 S, 32 S)
            cells = inside.reshape(-1, SIZE, SAMPLES, SIZE, SAMPLES)
            coverage[i] = cells.sum(axis=(2, 4), dtype=np.uint8)
    return coverage


def _compose(rng: np.random.Generator, coverage: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Background, distractors, object and grain of one chunk, (n, 32, 32, 3) uint8."""
    n = len(coverage)
    ground, paint = _colours(rng, n)
    hue = HUES[labels][:, None, None, :]
    leaning = paint + _uniform(rng, 0.0, 0.9, n, 1, 1, 1) * (hue - paint)
    clear = np.abs(leaning - ground).sum(axis=-1, keepdims=True) >= 180
    paint = np.where(clear, leaning, paint)
    picture = ground + _texture(rng, n)
    for _ in range(3):
        # Half of the distractors come near the object's colour, so that colour alone tells little.
        near = paint + _uniform(rng, -25, 25, n, 1, 1, 3)
        ink = np.where(rng.random((n, 1, 1, 1)) < 0.5, near, _uniform(rng, 10, 245, n, 1, 1, 3))
        picture = picture + _stroke(rng, n)[..., None] * (ink - picture)
    alpha = (coverage / np.float32(SAMPLES * SAMPLES))[..., None]
    cosine, sine = _direction(rng, n, 1, 1)
    grid = ((np.arange(SIZE) - 15.5) / 16).astype(np.float32)
    shade = _uniform(rng, 0, 30, n, 1, 1) * (grid[:, None] * sine + grid * cosine)
    picture = picture + alpha * (paint + shade[..., None] - picture)
    grain = rng.integers(-9, 10, size=picture.shape, dtype=np.int8)
    return np.clip(np.floor(picture + grain + np.float32(0.5)), 0, 255).astype(np.uint8)


def _colours(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, 1, 1, 3) of ground and object, which differ clearly."""
    dark = _uniform(rng, 15, 130, n, 1, 1, 3)
    light = _uniform(rng, 90, 245, n, 1, 1, 3)
    for _ in range(12):
        close = (light - dark).sum(axis=-1, keepdims=True) < 180
        light = np.where(close, _uniform(rng, 90, 245, n, 1, 1, 3), light)
    inverted = rng.random((n, 1, 1, 1)) < 0.15
    return np.where(inverted, light, dark), np.where(inverted, dark, light)


def _texture(rng: np.random.Generator, n: int) -> np.ndarray:
    """Coloured clouds, and stripes or checks on two images of three, (n, 32, 32, 3) float32."""
    clouds = _clouds(rng, n, 4, 3) * _uniform(rng, 4, 24, n, 1, 1, 1)
    clouds = clouds + _clouds(rng, n, 9, 1) * _uniform(rng, 2, 16, n, 1, 1, 1)
    grid = np.arange(SIZE, dtype=np.float32)
    cosine, sine = _direction(rng, n, 1, 1)
    frequency = _uniform(rng, 0.06, 0.25, n, 1, 1)
    waves = []
    for a, b in ((cosine, sine), (-sine, cosine)):
        phase = (grid * a + grid[:, None] * b) * frequency + _uniform(rng, 0, 1, n, 1, 1)
        waves.append(4 * np.abs(phase - np.floor(phase) - np.float32(0.5)) - 1)  # -1 to 1
    kind = rng.integers(0, 3, size=(n, 1, 1))
    wave = np.where(kind == 0, 0, np.where(kind == 1, waves[0], waves[0] * waves[1] * 2))
    tint = _uniform(rng, -20, 20, n, 1, 1, 3)
    return clouds + wave.astype(np.float32)[..., None] * tint


def _clouds(rng: np.random.Generator, n: int, cells: int, channels: int) -> np.ndarray:
    """Uniform noise in [-1, 1] on a grid of cells, interpolated linearly, (n, 32, 32, channels)."""
    knots = _uniform(rng, -1, 1, n, cells + 1, cells + 1, channels)
    place = ((np.arange(SIZE) + 0.5) * cells / SIZE).astype(np.float32)
    left = np.floor(place).astype(np.int64)
    part = place - left
    rows = knots[:, left] + part[:, None, None] * (knots[:, left + 1] - knots[:, left])
    return rows[:, :, left] + part[:, None] * (rows[:, :, left + 1] - rows[:, :, left])


def _stroke(rng: np.random.Generator, n: int) -> np.ndarray:
    """Opacity (n, 32, 32) of a short bent stroke: two segments from one joint."""
    x, y = _uniform(rng, 0, SIZE, n, 1, 1), _uniform(rng, 0, SIZE, n, 1, 1)
    width = _uniform(rng, 0.5, 1.5, n, 1, 1)
    grid = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    px, py = grid[None, None, :] - x, grid[None, :, None] - y
    nearest = np.full((n, SIZE, SIZE), 1e9, np.float32)
    for _ in range(2):
        cosine, sine = _direction(rng, n, 1, 1)
        length = _uniform(rng, 2, 6, n, 1, 1)
        along = np.clip(px * cosine + py * sine, 0, length)
        ex, ey = px - along * cosine, py - along * sine
        nearest = np.minimum(nearest, ex * ex + ey * ey)
    return np.clip(width + np.float32(0.5) - np.sqrt(nearest), 0, 1)
