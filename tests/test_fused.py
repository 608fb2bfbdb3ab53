"""The fused kernels against PyTorch's own operations."""

import copy
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from senet_lib import fused
from senet_lib.device import Setup
from senet_lib.fused import native
from senet_lib.models import create_model
from senet_lib.models.blocks import Conv3x3

needs_kernels = pytest.mark.skipif(
    fused.library() is None, reason="needs g++ or clang++ and a processor with AVX-512 BF16"
)
BF16_STEP = 2**-8  # relative distance of neighbouring bfloat16 numbers


def maps(shape: tuple[int, int, int, int], mean: float = 0.0) -> torch.Tensor:
    """A random map as the kernels take it."""
    x = (torch.randn(shape) + mean).bfloat16()
    return x.contiguous(memory_format=torch.channels_last)


def leaf(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same values as a leaf in bf16, and as one in float64."""
    return x.clone().requires_grad_(), x.double().requires_grad_()


def assert_close(ours: torch.Tensor, exact: torch.Tensor) -> None:
    """Within the rounding of bf16 inputs, relative to the size of the map."""
    scale = exact.abs().max().item() + 1e-6
    torch.testing.assert_close(ours.double(), exact, rtol=BF16_STEP, atol=BF16_STEP * scale)


@needs_kernels
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("with_plus", [False, True])
@pytest.mark.parametrize("shape", [(8, 13, 6, 6), (3, 52, 4, 4), (4, 16, 5, 3), (2, 7, 3, 3)])
def test_norm_act_is_batch_norm_and_what_follows(
    shape: tuple[int, int, int, int], with_plus: bool, with_residual: bool, relu: bool
) -> None:
    torch.manual_seed(0)
    channels = shape[1]
    norm = torch.nn.BatchNorm2d(channels)
    torch.nn.init.normal_(norm.weight, 1, 0.3)
    torch.nn.init.normal_(norm.bias, 0, 0.3)
    exact_norm = copy.deepcopy(norm).double()
    x, exact_x = leaf(maps(shape, mean=2))
    residual, exact_residual = leaf(maps(shape))
    wide, exact_wide = leaf(maps((shape[0], 3 * channels, *shape[2:])))
    middle = slice(channels, 2 * channels)  # a slice of channels: rows further apart

    y, total = fused.norm_act(
        x,
        norm,
        relu=relu,
        residual=residual if with_residual else None,
        plus=wide[:, middle] if with_plus else None,
    )
    exact = exact_norm(exact_x)
    exact = exact + exact_residual if with_residual else exact
    exact = F.relu(exact) if relu else exact
    assert_close(y, exact)
    assert_close(norm.running_mean, exact_norm.running_mean)
    assert_close(norm.running_var, exact_norm.running_var)
    assert norm.num_batches_tracked == 1

    gradient = maps((shape[0], 2 * channels, *shape[2:]))[:, :channels]  # a slice again
    ours, theirs = [y], [exact]
    gradients = [gradient]
    if with_plus:
        assert_close(total, exact + exact_wide[:, middle])
        ours, theirs = [y, total], [exact, exact + exact_wide[:, middle]]
        gradients.append(maps(shape))
    else:
        assert total is None
    torch.autograd.backward(ours, gradients)
    torch.autograd.backward(theirs, [g.double() for g in gradients])
    assert_close(x.grad, exact_x.grad)
    assert_close(norm.weight.grad, exact_norm.weight.grad)
    assert_close(norm.bias.grad, exact_norm.bias.grad)
    if with_residual:
        assert_close(residual.grad, exact_residual.grad)
    if with_plus:
        assert_close(wide.grad, exact_wide.grad)


def distance(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative to the size of what is exact."""
    return ((ours.double() - exact).norm() / exact.norm()).item()


@needs_kernels
@pytest.mark.parametrize(
    ("shape", "out"),
    [
        ((8, 13, 32, 32), 13),  # streams of Res2Net-29
        ((5, 26, 16, 16), 26),
        ((3, 52, 8, 8), 52),
        ((2, 64, 16, 16), 64),
        ((3, 20, 6, 10), 70),  # rows of an odd number of tiles, and more than 64 channels made
        ((1, 9, 2, 2), 8),  # a single tile
        ((7, 40, 4, 2), 33),
        ((2, 256, 4, 4), 272),  # sums larger than a cache
    ],
)
def test_conv3x3_is_the_convolution(shape: tuple[int, int, int, int], out: int) -> None:
    torch.manual_seed(0)
    n, c, h, w = shape
    wide, exact_wide = leaf(maps((n, 2 * c, h, w), mean=0.5))
    x, exact_x = wide[:, c:], exact_wide[:, c:]  # a slice of channels: rows further apart
    weight = (torch.randn(out, c, 3, 3) / (3 * c**0.5)).requires_grad_()
    exact_weight = weight.detach().double().requires_grad_()
    gradient = maps((n, 2 * out, h, w))[:, :out]

    y = fused.conv3x3(x, weight)
    exact = F.conv2d(exact_x, exact_weight, padding=1)
    assert y.shape == exact.shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert distance(y, exact) < 2 * BF16_STEP
    version, mean, variance = y.moments
    assert version == y._version
    assert_close(mean, exact.mean((0, 2, 3)))
    assert_close(variance, exact.var((0, 2, 3), correction=0))

    y.backward(gradient)
    exact.backward(gradient.double())
    assert distance(wide.grad, exact_wide.grad) < 2 * BF16_STEP
    assert distance(weight.grad, exact_weight.grad) < 2 * BF16_STEP


@needs_kernels
@pytest.mark.parametrize(("width", "count"), [(13, 4), (52, 4), (3, 2), (20, 3)])
def test_split_and_join_are_chunk_and_cat(width: int, count: int) -> None:
    torch.manual_seed(0)
    x, exact_x = leaf(maps((3, width * count, 5, 4)))
    streams = fused.split(x, count, add=True)
    first, second, *others = exact_x.chunk(count, 1)
    exact = (first, second + first, *others)
    for ours, theirs in zip(streams, exact, strict=True):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        assert_close(ours, theirs)
    plain = fused.split(x, count)
    assert torch.equal(fused.join(plain), x)
    assert torch.equal(fused.join([plain[0].float(), *plain[1:]]), x)  # as an attention may give it

    gradients = [maps((3, width, 5, 4)) for _ in range(count)]
    torch.autograd.backward(streams, gradients)
    torch.autograd.backward(exact, [g.double() for g in gradients])
    assert_close(x.grad, exact_x.grad)
    x.grad = None
    whole = maps(tuple(x.shape))
    fused.join(plain).backward(whole)
    assert torch.equal(x.grad, whole)


@needs_kernels
def test_avg_pool2_is_the_mean_of_four_pixels() -> None:
    torch.manual_seed(0)
    x, exact_x = leaf(maps((3, 21, 6, 4)))
    gradient = maps((3, 21, 3, 2))
    y, exact = fused.avg_pool2(x), F.avg_pool2d(exact_x, 2)
    assert_close(y, exact)
    y.backward(gradient)
    exact.backward(gradient.double())
    assert_close(x.grad, exact_x.grad)


@needs_kernels
def test_conv3x3_takes_the_border_for_zeros() -> None:
    """Exact where all numbers are small integers and no rounding is possible."""
    x = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 16, 4, 4).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.zeros(16, 16, 3, 3)
    for tap in range(9):  # channel k of y is x of channel k moved by one of the nine steps
        weight[tap, tap, tap // 3, tap % 3] = 1
    y = fused.conv3x3(x, weight)
    assert torch.equal(y.float(), F.conv2d(x.float(), weight, padding=1))


@needs_kernels
def test_a_normalisation_uses_the_moments_of_an_unchanged_map_alone() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 16, 3, 3) / 12
    y = fused.conv3x3(maps((4, 16, 8, 8)), weight)
    norm, again = torch.nn.BatchNorm2d(16), torch.nn.BatchNorm2d(16)
    first, _ = fused.norm_act(y, norm, relu=False)
    y.add_(3)  # the normalised map stays, the running mean does not
    second, _ = fused.norm_act(y, again, relu=False)
    torch.testing.assert_close(first, second, rtol=0.05, atol=0.05)
    torch.testing.assert_close(again.running_mean, norm.running_mean + 0.3, rtol=0.01, atol=0.01)


@needs_kernels
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("shape", [(8, 13, 6, 6), (3, 52, 4, 4), (4, 16, 5, 3), (2, 208, 2, 2)])
def test_squeeze_and_scale_are_those_of_squeeze_and_excitation(
    shape: tuple[int, int, int, int], with_residual: bool
) -> None:
    torch.manual_seed(0)
    x, exact_x = leaf(maps(shape, mean=1))
    residual, exact_residual = leaf(maps(shape))
    weight, exact_weight = leaf(torch.randn(shape[1], shape[1]).bfloat16())

    same, mean = fused.squeeze(x)
    assert_close(mean, exact_x.mean((2, 3)))
    gates = torch.sigmoid(mean.bfloat16() @ weight)[:, :, None, None]
    y = fused.scale(same, gates, residual if with_residual else None)
    exact_gates = torch.sigmoid(exact_x.mean((2, 3)) @ exact_weight)[:, :, None, None]
    exact = exact_x * exact_gates
    exact = F.relu(exact + exact_residual) if with_residual else exact
    # The gates pass through bf16 several times, so two steps of it.
    torch.testing.assert_close(y.double(), exact, rtol=0.05, atol=0.05)

    gradient = maps(shape)
    y.backward(gradient)
    exact.backward(gradient.double())
    for ours, theirs in ((x, exact_x), (weight, exact_weight)):
        error = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm()
        # With a rectifier, a few signs differ: the exact map is not rounded.
        assert error < (0.1 if with_residual else 0.02)
    if with_residual:
        same_sign = (y > 0).double() == (exact > 0).double()
        assert_close(residual.grad[same_sign], exact_residual.grad[same_sign])


@needs_kernels
def test_no_digits_are_lost_where_the_mean_is_far_from_zero() -> None:
    torch.manual_seed(0)
    x = maps((16, 13, 8, 8), mean=200)
    norm = torch.nn.BatchNorm2d(13)
    y, _ = fused.norm_act(x, norm, relu=False)
    assert_close(y, torch.nn.BatchNorm2d(13).double()(x.double()))


@needs_kernels
def test_the_number_of_threads_changes_no_bit() -> None:
    torch.manual_seed(0)
    x, g, weight = maps((32, 13, 16, 16)), maps((32, 13, 16, 16)), torch.randn(13, 13, 3, 3)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            norm, leaf_x = torch.nn.BatchNorm2d(13), x.clone().requires_grad_()
            y, _ = fused.norm_act(leaf_x, norm, relu=True)
            made = fused.conv3x3(y, weight)
            made.backward(g)
            results.append(
                (made.detach(), *made.moments[1:], leaf_x.grad, norm.weight.grad, norm.running_var)
            )
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@needs_kernels
@pytest.mark.parametrize(
    "name",
    [
        "se_res2net29",
        "se_res2net29_last",
        "se_resnet20",
        "se_resnet20+position=pre",
        "se_resnet20+squeeze=max",
        "densenet_bc100_12",
        "preact_resnet110",
    ],
)
def test_a_network_gives_the_loss_it_gave(name: str) -> None:
    """One forward and backward pass: as near to float32 as PyTorch's own bf16 is."""
    torch.manual_seed(0)
    plain = create_model(name).to(memory_format=torch.channels_last)
    other, wide = copy.deepcopy(plain), copy.deepcopy(plain)
    fused.enable(other)
    images, labels = maps((16, 3, 32, 32)), torch.arange(16) % 10
    found = []
    for model, bf16 in ((wide, False), (plain, True), (other, True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(images if bf16 else images.float()).float()
        F.cross_entropy(logits, labels).backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append((logits.detach(), grads))
    (exact, exact_grads), (theirs, their_grads), (ours, our_grads) = found
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm()
    assert (our_grads - exact_grads).norm() < 1.3 * (their_grads - exact_grads).norm()


@needs_kernels
def test_auto_takes_the_kernels_for_bf16_on_a_cpu_alone() -> None:
    def chosen(precision: str, compile: str) -> bool:
        return Setup.choose(device="cpu", precision=precision, compile=compile, threads=0).fused

    assert chosen("bf16", "auto")
    assert not chosen("fp32", "auto")
    assert not chosen("bf16", "off")
    assert not chosen("bf16", "on")


@needs_kernels
def test_nothing_is_fused_in_eval_mode_or_unless_enabled() -> None:
    norm, x = torch.nn.BatchNorm2d(4), maps((2, 4, 3, 3))
    assert not fused.applies(norm, x)
    fused.enable(norm)
    assert fused.applies(norm, x)
    assert not fused.applies(norm, x.float())
    assert not fused.applies(norm.eval(), x)
    for unusual in ({"affine": False}, {"track_running_stats": False}, {"momentum": None}):
        other = torch.nn.BatchNorm2d(4, **unusual)
        fused.enable(other)
        assert not fused.applies(other, x)


@needs_kernels
def test_winograd_is_taken_where_it_pays() -> None:
    def taken(size: int = 4, **settings: int) -> bool:
        conv = Conv3x3(**{"in_channels": 16, "channels": 16} | settings)
        fused.enable(conv)
        return fused.applies(conv, maps((2, conv.in_channels, size, size)))

    assert taken()
    assert not taken(stride=2)
    assert not taken(groups=2)
    assert not taken(in_channels=3)
    assert not taken(size=5)


@pytest.mark.skipif(
    not (shutil.which("g++") and torch.cpu._is_avx512_bf16_supported()),
    reason="needs g++ and a processor with AVX-512 BF16",
)
def test_the_kernels_compile(tmp_path: Path) -> None:
    """Where they do not, training falls back to PyTorch and the tests above are skipped."""
    native._compile("g++", tmp_path / "kernels.so")
    assert [file.name for file in tmp_path.iterdir()] == ["kernels.so"]


def test_without_a_compiler_there_are_no_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert native.library.__wrapped__() is None


def test_a_compiler_that_fails_means_no_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise subprocess.CalledProcessError(1, "g++")

    monkeypatch.setattr(native, "CACHE", tmp_path)
    monkeypatch.setattr(native.subprocess, "run", fail)
    assert native.library.__wrapped__() is None
    assert list(tmp_path.iterdir()) == []
