import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from senet_lib.data.augment import crop_flip, cut_out, draw_epoch, normalise, pad_images

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (12, 32, 32, 3), dtype=torch.uint8)


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_and_flip_equal_torchvision(images, padding):
    index = torch.tensor([3, 3, 0, 11, 7, 5, 1, 2])
    dy = torch.tensor([0, 2, 1, 2, 0, 1, 2, 0]) * padding
    dx = torch.tensor([0, 2, 2, 0, 1, 1, 0, 2]) * padding
    flipped = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1], dtype=torch.bool)
    crops = crop_flip(pad_images(images, padding), index, dy, dx, flipped, 32)
    for k in range(len(index)):
        image = Image.fromarray(images[index[k]].numpy())
        image = functional.pad(image, [padding], fill=0)  # as RandomCrop(32, padding) does
        image = functional.crop(image, int(dy[k]), int(dx[k]), 32, 32)
        if flipped[k]:
            image = functional.hflip(image)
        np.testing.assert_array_equal(crops[k].numpy(), np.asarray(image))


def test_normalise_equals_torchvision_in_channels_last(images):
    batch = normalise(images, MEAN, STD)
    expected = [functional.to_tensor(Image.fromarray(image.numpy())) for image in images]
    expected = functional.normalize(torch.stack(expected), MEAN, STD)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch, expected, rtol=0, atol=2e-6)
    half = normalise(images, MEAN, STD, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, batch.to(torch.bfloat16))
    black = normalise(torch.zeros((2, 32, 32, 3), dtype=torch.uint8), (0.0,) * 3, (0.0,) * 3)
    assert torch.equal(black, torch.zeros(2, 3, 32, 32))  # a constant channel


def test_normalise_made_in_inference_mode_serves_training(images):
    mean = (0.123, 0.456, 0.789)  # of no other test, so nothing is kept from before
    with torch.inference_mode():
        normalise(images, mean, STD)
    weight = torch.ones((), requires_grad=True)
    (normalise(images, mean, STD) * weight).sum().backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad)


def test_an_epoch_shows_every_image_once_with_uniform_offsets():
    n, padding = 20_000, 4
    plan = draw_epoch(n, seed=0, epoch=0, padding=padding, flip=0.5)
    assert torch.equal(plan.order.sort().values, torch.arange(n))
    assert not torch.equal(plan.order, torch.arange(n))
    for offset in (plan.offset_y, plan.offset_x):
        counts = torch.bincount(offset, minlength=9).double()
        assert len(counts) == 9  # 0 to 2 * padding, both ends included
        chi_squared = float(((counts - n / 9) ** 2 / (n / 9)).sum())
        assert chi_squared < 26.1  # 99.9 % point with 8 degrees of freedom
    together = torch.bincount(plan.offset_y * 9 + plan.offset_x, minlength=81).double()
    assert float(((together - n / 81) ** 2 / (n / 81)).sum()) < 124.9  # 80 degrees of freedom
    share = plan.flipped.double().mean()
    assert abs(float(share) - 0.5) < 4 * (0.25 / n) ** 0.5
    none = draw_epoch(100, seed=0, epoch=0, padding=0, flip=0.0)
    assert not any(moved.any() for moved in (none.flipped, none.offset_y, none.offset_x))
    assert draw_epoch(100, seed=0, epoch=0, padding=0, flip=1.0).flipped.all()


def test_an_epoch_depends_on_its_arguments_alone():
    def drawn(seed: int, epoch: int, padding: int = 4) -> list[list[float]]:
        return [t.tolist() for t in draw_epoch(500, seed, epoch, padding, 0.5)]

    first = drawn(1, 7)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 (the global generator must not matter)
    state = torch.get_rng_state()
    assert drawn(1, 7) == first
    assert torch.equal(torch.get_rng_state(), state)
    for other in (drawn(1, 8), drawn(2, 7), drawn(7, 1)):
        assert all(a != b for a, b in zip(first, other, strict=True))
    assert drawn(1, 7, padding=2)[0] == first[0]


@pytest.mark.parametrize("side", [1, 4, 5, 40])
def test_cut_out_covers_one_square_as_a_loop_does(side, monkeypatch):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (20, 12, 16, 3), dtype=np.uint8))
    y, x = torch.from_numpy(rng.random((2, 20), dtype=np.float32))
    y[0], x[0] = 0.0, 0.999  # a corner
    fill = torch.tensor((1, 2, 3), dtype=torch.uint8)
    expected = images.clone()
    for i in range(20):
        top, left = int(y[i] * 12) - side // 2, int(x[i] * 16) - side // 2
        for row in range(max(top, 0), min(top + side, 12)):
            for column in range(max(left, 0), min(left + side, 16)):
                expected[i, row, column] = fill
    assert torch.equal(cut_out(images, y, x, side, fill), expected)
    monkeypatch.delattr(torch, "tensor")  # a copy that a GPU is waited for, at each step
    assert torch.equal(cut_out(images, y, x, side, fill), expected)
