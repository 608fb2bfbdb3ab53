"""The kernels against PyTorch's own operations, for every set of instructions that is here."""

import copy
import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from senet_lib import kernels
from senet_lib.device import Setup
from senet_lib.kernels import blocks, convolution, gates, native, norm
from senet_lib.models import create_model
from senet_lib.models.attention import AttentionSpec, ExciteGate

COMPILER = shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs g++ or clang++")
HERE = torch.backends.cpu.get_cpu_capability()
SETS = list(native.INSTRUCTION_SETS)
RUNNABLE = SETS[: SETS.index(HERE) + 1] if HERE in SETS else ["DEFAULT"]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-8}  # relative; bf16 maps are rounded so
CASES = [(name, torch.float32) for name in RUNNABLE] + [(RUNNABLE[-1], torch.bfloat16)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{str(case[1]).removeprefix('torch.')}")
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.dtype]:
    """The type of the maps; the kernels are those of one set of instructions."""
    name, dtype = request.param
    monkeypatch.setattr(native, "instruction_set", lambda: name)
    _forget()
    assert kernels.missing(dtype) == ""
    yield dtype
    _forget()


def _forget() -> None:
    native.library.cache_clear()
    native.missing.cache_clear()


def maps(shape: tuple[int, ...], dtype: torch.dtype, mean: float = 0.0) -> torch.Tensor:
    """A random map as the kernels take it."""
    x = (torch.randn(shape) + mean).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def leaf(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same values as a leaf of their type, and as one in float64."""
    return x.clone().requires_grad_(), x.double().requires_grad_()


def assert_close(ours: torch.Tensor, exact: torch.Tensor, tolerance: float) -> None:
    """The distance relative to the size of what is exact."""
    error = (ours.detach().double() - exact.detach()).norm() / exact.detach().norm()
    assert error < tolerance, f"{error:.1e}"


def compare_gradients(ours, exact, leaves, near: float) -> None:
    """Those of the leaves, by random gradients of the results that are slices of channels."""
    gradients = [maps((y.shape[0], 2 * y.shape[1], *y.shape[2:]), y.dtype) for y in ours]
    gradients = [g[:, : y.shape[1]] for g, y in zip(gradients, ours, strict=True)]
    torch.autograd.backward(ours, gradients)
    torch.autograd.backward(exact, [g.double() for g in gradients])
    for mine, other in leaves:
        assert_close(mine.grad, other.grad, near)


@needs_compiler
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("extra", ["", "residual", "plus", "residual plus"])
@pytest.mark.parametrize("shape", [(8, 13, 6, 6), (3, 52, 4, 4), (4, 16, 5, 3), (2, 7, 3, 3)])
def test_normalise_is_batch_norm_and_what_follows(dtype, shape, extra, relu) -> None:
    near, channels = TOLERANCE[dtype], shape[1]
    layer = torch.nn.BatchNorm2d(channels)
    torch.nn.init.normal_(layer.weight, 1, 0.3)
    torch.nn.init.normal_(layer.bias, 0, 0.3)
    exact_layer = copy.deepcopy(layer).double()
    x, exact_x = leaf(maps(shape, dtype, mean=2))
    leaves = [(x, exact_x), (layer.weight, exact_layer.weight), (layer.bias, exact_layer.bias)]
    exact, more = exact_layer(exact_x), {}
    if "residual" in extra:
        more["residual"], exact_residual = leaf(maps(shape, dtype))
        leaves.append((more["residual"], exact_residual))
        exact = exact + exact_residual
    exacts = [F.relu(exact) if relu else exact]
    if "plus" in extra:
        wide, exact_wide = leaf(maps((shape[0], 3 * channels, *shape[2:]), dtype))
        middle = slice(channels, 2 * channels)  # a slice of channels: rows further apart
        more["plus"] = wide[:, middle]
        leaves.append((wide, exact_wide))
        exacts.append(exacts[0] + exact_wide[:, middle])

    found = norm.normalise(layer, x, relu=relu, **more)
    ours = [y for y in found if y is not None]
    for mine, other in zip(ours, exacts, strict=True):
        assert_close(mine, other, near)
    assert_close(layer.running_mean, exact_layer.running_mean, near)
    assert_close(layer.running_var, exact_layer.running_var, near)
    assert layer.num_batches_tracked == 1
    compare_gradients(ours, exacts, leaves, 2 * near)


@needs_compiler
@pytest.mark.parametrize(
    ("shape", "out"),
    [
        ((8, 13, 32, 32), 13),  # streams of Res2Net-29
        ((5, 26, 16, 16), 26),
        ((3, 52, 8, 8), 52),
        ((2, 64, 16, 16), 64),
        ((3, 20, 12, 20), 70),  # rows of an odd number of tiles
        ((1, 9, 4, 4), 8),  # a single tile
        ((7, 40, 8, 4), 33),
        ((3, 3, 8, 8), 5),  # fewer channels than a vector has
    ],
)
def test_conv3x3_is_the_convolution(dtype, shape: tuple[int, int, int, int], out: int) -> None:
    near, (n, c, h, w) = TOLERANCE[dtype], shape
    wide, exact_wide = leaf(maps((n, 2 * c, h, w), dtype, mean=0.5))
    x, exact_x = wide[:, c:], exact_wide[:, c:]  # a slice of channels: rows further apart
    weight, exact_weight = leaf(torch.randn(out, c, 3, 3) / (3 * c**0.5))
    y, mean, variance = convolution._Conv3x3.apply(x, weight)
    exact = F.conv2d(exact_x, exact_weight, padding=1)
    assert y.shape == exact.shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_close(y, exact, near)
    assert_close(mean, exact.mean((0, 2, 3)), near)
    assert_close(variance, exact.var((0, 2, 3), correction=0), near)
    leaves = [(wide, exact_wide), (weight, exact_weight)]
    compare_gradients([y], [exact], leaves, near)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("size", "stride"), [((4, 4), (1, 1)), ((8, 6), (2, 2)), ((5, 7), (2, 1))])
def test_the_convolution_of_small_maps_is_the_convolution(dtype, size, stride) -> None:
    x, exact_x = leaf(maps((3, 6, *size), dtype))
    weight, exact_weight = leaf(torch.randn(5, 6, 3, 3))
    y = convolution._SmallConv3x3.apply(x, weight, stride)
    exact = F.conv2d(exact_x, exact_weight, stride=stride, padding=1)
    assert_close(y, exact, 2 * TOLERANCE[dtype])
    compare_gradients([y], [exact], [(x, exact_x), (weight, exact_weight)], 2 * TOLERANCE[dtype])


@needs_compiler
@pytest.mark.parametrize(("width", "count"), [(13, 4), (52, 4), (3, 2), (20, 3)])
def test_split_is_chunk_and_the_first_sum(dtype, width: int, count: int) -> None:
    x, exact_x = leaf(maps((3, width * count, 5, 4), dtype))
    parts = gates.split(x, count)
    first, second, *others = exact_x.chunk(count, 1)
    exact = (first, second + first, *others)
    for ours, theirs in zip(parts, exact, strict=True):
        assert_close(ours, theirs, TOLERANCE[dtype])
    compare_gradients(parts, exact, [(x, exact_x)], TOLERANCE[dtype])


@needs_compiler
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("shape", [(8, 13, 6, 6), (3, 52, 4, 4), (4, 16, 5, 3), (2, 208, 2, 2)])
def test_squeeze_and_scale_are_those_of_squeeze_and_excitation(dtype, shape, with_residual) -> None:
    x, exact_x = leaf(maps(shape, dtype, mean=1))
    residual, exact_residual = leaf(maps(shape, dtype))
    weight, exact_weight = leaf(torch.randn(shape[1], shape[1]) / shape[1])
    same, mean = gates.squeeze(x)
    assert_close(mean, exact_x.mean((2, 3)), 1e-5)
    y = gates.scale(same, torch.sigmoid(mean @ weight), residual if with_residual else None)
    exact = exact_x * torch.sigmoid(exact_x.mean((2, 3)) @ exact_weight)[:, :, None, None]
    exact = F.relu(exact + exact_residual) if with_residual else exact
    assert_close(y, exact, TOLERANCE[dtype])
    leaves = [(x, exact_x), (weight, exact_weight)]
    leaves += [(residual, exact_residual)] if with_residual else []
    near = (3 if dtype == torch.bfloat16 else 1) * TOLERANCE[dtype]
    compare_gradients([y], [exact], leaves, near)


@needs_compiler
def test_no_digits_are_lost_where_the_mean_is_far_from_zero(dtype) -> None:
    x = maps((16, 13, 8, 8), dtype, mean=200)
    y, _ = norm.normalise(torch.nn.BatchNorm2d(13), x, relu=False)
    near = max(TOLERANCE[dtype], 200 * 2**-22)
    assert_close(y, torch.nn.BatchNorm2d(13).double()(x.double()), near)


def _step(x: torch.Tensor, weight: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
    layer, (leaf_x, _), (leaf_w, _) = torch.nn.BatchNorm2d(13), leaf(x), leaf(weight)
    made, *moments = convolution._Conv3x3.apply(norm.normalise(layer, leaf_x)[0], leaf_w)
    made.backward(g)
    return [made.detach(), *moments, leaf_x.grad, layer.weight.grad, layer.running_var, leaf_w.grad]


@needs_compiler
def test_equal_threads_give_equal_bits(dtype) -> None:
    """All but the gradient of a convolution's weight is the same for any number of threads."""
    shape = (32, 13, 16, 16)
    given = maps(shape, dtype), torch.randn(13, 13, 3, 3), maps(shape, dtype)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(_step(*given))
    finally:
        torch.set_num_threads(before)
    one, two, again = results
    assert all(map(torch.equal, two, again))
    assert all(map(torch.equal, one[:-1], two[:-1]))
    torch.testing.assert_close(one[-1], two[-1], rtol=1e-5, atol=1e-4)


NETWORKS = [
    *("se_res2net29", "se_res2net29+gate_at=output", "se_res2net29_last", "se_res2net29_first2"),
    *("se_res2net29+gate_at=literal", "se_res2net29+gate_at=streams"),
    *("res2net29", "resnet20", "se_resnet20", "se_resnet20+position=pre"),
    *("se_resnet20+position=identity", "se_resnet20+position=post", "se_resnet20+squeeze=max"),
    *("resnet20+attention=cbam", "resnet20+shortcut=A", "preact_resnet110"),
]


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_as_near_to_float64_as_pytorch_is(name: str) -> None:
    plain = create_model(name).to(memory_format=torch.channels_last)
    ours, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    kernels.enable(ours)
    assert list(ours.state_dict()) == list(plain.state_dict())
    images, labels = maps((8, 3, 32, 32), torch.float32), torch.arange(8) % 10
    logits = [m(images.double() if m is exact else images) for m in (ours, plain, exact)]
    F.cross_entropy(logits[0], labels).backward()
    assert all(p.grad is not None for p in ours.parameters())
    error, theirs = ((found - logits[2]).norm() for found in logits[:2])
    assert error < max(3 * theirs, 1e-5 * logits[2].norm())
    for (key, mine), other in zip(ours.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=key)


@needs_compiler
def test_a_block_is_the_plain_one_where_kernels_do_not_apply() -> None:
    x = maps((2, 3, 32, 32), torch.float32)
    stem = create_model("resnet20").stem
    kernels.enable(stem)
    assert blocks.applies(stem, x)
    assert not blocks.applies(stem, x.double())
    assert not blocks.applies(stem, x.bfloat16())  # only where autocast says so
    with torch.autocast("cpu", torch.bfloat16):
        assert blocks.applies(stem, x.bfloat16())
    seen = []
    handle = stem.conv.register_forward_hook(lambda *_: seen.append(1))
    assert not blocks.applies(stem, x)
    stem(x)
    assert seen == [1]
    handle.remove()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not blocks.applies(stem, x)
    handle.remove()
    assert blocks.applies(stem, x)
    assert not blocks.applies(stem.eval(), x)


def trained_both(name: str, images: torch.Tensor, change=lambda model: None) -> list:
    """Logits, gradients and buffers of a network after one step forward and back, plain and with
    kernels."""
    results, plain = [], create_model(name).to(memory_format=torch.channels_last)
    for model in (plain, copy.deepcopy(plain)):
        if results:
            kernels.enable(model)
        change(model)
        logits = model(images)
        logits.square().mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append([gradient, logits.detach(), *model.buffers()])
    return results


def assert_same(plain: list, ours: list) -> None:
    """The gradients less nearly: a rectifier at zero lets pass what another order of sums stops."""
    assert len(plain) == len(ours) > 10
    assert_close(ours[0], plain[0], 0.1)
    for mine, other in zip(ours[1:], plain[1:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "size"),
    [("se_res2net29", 32), ("se_res2net29", 30), ("se_resnet20", 32), ("densenet_bc100_12", 30)],
)
def test_gradients_are_those_of_the_plain_network_for_odd_sizes_too(name: str, size: int) -> None:
    def spread(model: torch.nn.Module) -> None:  # so that the gates' part of a gradient counts
        for gate in (m for m in model.modules() if isinstance(m, ExciteGate)):
            gate.expand.weight.data *= 50

    assert_same(*trained_both(name, maps((4, 3, size, size), torch.float32), spread))


class Flat(ExciteGate):
    """Gates that never look."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 0.7)


class Halved(torch.nn.Identity):
    """What is no identity at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def _scaled(conv: torch.nn.Conv2d) -> torch.nn.Conv2d:
    conv.forward = lambda x: conv._conv_forward(x, conv.weight, None) / 2
    return conv


@needs_compiler
@pytest.mark.parametrize("name", ["se_resnet20", "se_cnn7"])
@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("attention.gate", lambda gate: Flat(gate.reduce.in_features, AttentionSpec())),
        ("attention.gate", lambda _: Halved()),
        ("attention", lambda _: Halved()),
        ("shortcut.norm", lambda _: Halved()),
        ("conv2", _scaled),
    ],
)
def test_a_part_that_was_exchanged_is_used_as_it_is(name, part, change) -> None:
    def exchange(model: torch.nn.Module) -> None:
        for path, module in list(model.named_modules()):
            if path.endswith(f".{part}"):
                model.set_submodule(path, change(module))

    assert_same(*trained_both(name, maps((4, 3, 16, 16), torch.float32), exchange))


@needs_compiler
def test_frozen_normalisations_stay_as_they_are() -> None:
    def freeze(model: torch.nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.constant_(module.running_mean, 0.1)
                module.eval()

    plain, ours = trained_both("resnet20", maps((4, 3, 32, 32), torch.float32), freeze)
    assert_same(plain, ours)
    assert (ours[2] == 0.1).all()  # the stem's running mean


@needs_compiler
def test_no_images_and_whole_numbers_as_settings() -> None:
    def change(model: torch.nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1

    assert_same(*trained_both("resnet20", maps((4, 3, 32, 32), torch.float32), change))
    ours = create_model("se_resnet20")
    kernels.enable(ours)
    assert ours(torch.empty(0, 3, 32, 32)).shape == (0, 10)


@needs_compiler
def test_other_defaults_of_pytorch_change_nothing() -> None:
    images, model = maps((4, 3, 32, 32), torch.float32), create_model("resnet20")
    kernels.enable(model)
    found = []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            model.zero_grad()
            model(images).square().mean().backward()
        finally:
            torch.set_default_dtype(torch.float32)
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(a.equal(b) for a, b in zip(*found, strict=True))


@needs_compiler
def test_what_pytorch_refuses_or_we_cannot_do_is_said() -> None:
    with pytest.raises(ValueError, match="more than 1 value"):
        norm.normalise(torch.nn.BatchNorm2d(4), maps((1, 4, 1, 1), torch.float32))
    model, images = create_model("resnet20"), maps((2, 3, 32, 32), torch.float32)
    kernels.enable(model)
    first = torch.autograd.grad(model(images).sum(), model.stem.conv.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first[0].sum().backward()


@needs_compiler
def test_winograd_is_taken_where_it_pays() -> None:
    def taken(size: int = 8, **settings: object) -> bool:
        chosen = {"in_channels": 16, "out_channels": 16, "padding": 1, "bias": False} | settings
        conv = torch.nn.Conv2d(kernel_size=3, **chosen)
        x = maps((2, conv.in_channels, size, size), torch.float32)
        y, moments = convolution.convolve(conv, x)
        torch.testing.assert_close(y, conv(x), rtol=1e-4, atol=1e-5)
        return moments is not None

    assert taken()
    for unusual in ({"stride": 2}, {"groups": 2}, {"in_channels": 3}, {"bias": True}):
        assert not taken(**unusual)
    assert not taken(size=6)
    assert not taken(dilation=2, padding=2)


@pytest.mark.parametrize(("amx", "intel", "least"), [(1, 1, 257), (0, 1, 8), (0, 0, 17)])
def test_the_least_channels_are_those_of_the_processor(monkeypatch, amx, intel, least) -> None:
    monkeypatch.setattr(convolution, "has_amx", lambda: amx)
    monkeypatch.setattr(convolution, "is_intel", lambda: intel)
    chosen = convolution.least_channels.__wrapped__
    assert (chosen(torch.bfloat16), chosen(torch.float32)) == (least, 8)


@needs_compiler
@pytest.mark.parametrize("unusual", [{"affine": False}, {"momentum": None}])
def test_an_unusual_normalisation_is_left_to_pytorch(unusual: dict) -> None:
    layer, x = torch.nn.BatchNorm2d(4, **unusual), maps((2, 4, 3, 3), torch.float32)
    y, total = norm.normalise(layer, x, plus=x)
    exact = F.relu(copy.deepcopy(layer)(x))
    torch.testing.assert_close((y, total), (exact, x + exact))


def test_auto_takes_the_kernels_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(compile: str) -> Setup:
        return Setup.choose(device="cpu", precision="fp32", compile=compile, threads=0)

    monkeypatch.setattr(kernels, "missing", lambda dtype: "")
    assert chosen("auto").fused
    assert not chosen("off").fused
    monkeypatch.setattr(kernels, "missing", lambda dtype: "no compiler")
    assert not chosen("auto").fused
    assert chosen("auto").kernels_missing == "no compiler"
    assert chosen("off").kernels_missing == ""


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SETS if name not in RUNNABLE])
def test_the_kernels_compile_for_other_processors(name: str, tmp_path: Path) -> None:
    """Where they do not, training falls back to PyTorch."""
    if torch.backends.cpu.get_cpu_capability() not in SETS[1:]:
        pytest.skip("the flags of an x86 compiler")
    made = native.build(COMPILER, native.flags(name, torch.float32), tmp_path / "kernels")
    assert list(tmp_path.iterdir()) == [made]


def test_the_line_of_a_compiler_that_fails_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise subprocess.CalledProcessError(1, "g++", stderr=b"a.cpp:1\nfatal error: no header\n")

    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    with pytest.raises(native.KernelsMissingError, match="compiler"):
        native.library.__wrapped__(torch.float32)
    monkeypatch.setattr(native, "CACHE", tmp_path)
    monkeypatch.setattr(native.shutil, "which", lambda name: name)
    monkeypatch.setattr(native.subprocess, "run", fail)
    with pytest.raises(native.KernelsMissingError, match="no header"):
        native.library.__wrapped__(torch.float32)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    monkeypatch.setattr(native, "CACHE", tmp_path / "file" / "cache")
    with pytest.raises(native.KernelsMissingError, match="cache: Not a directory"):
        native.library.__wrapped__(torch.float32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder for kernels that are compiled in no time."""
    source = tmp_path / "small.cpp"
    source.write_text('extern "C" int answer() { return 42; }')
    monkeypatch.setattr(native, "SOURCES", [source])
    monkeypatch.setattr(native, "CACHE", tmp_path / "made")
    return native.CACHE


@needs_compiler
def test_two_builds_at_once_leave_one_whole_file(small: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        built = [pool.submit(native.build, COMPILER, ("-fPIC",), small / "k") for _ in range(2)]
    assert {made.result() for made in built} == set(small.iterdir())
    (path,) = small.iterdir()
    assert ctypes.CDLL(str(path)).answer() == 42


@needs_compiler
def test_kernels_that_were_damaged_are_made_again(small: Path) -> None:
    assert native.library.__wrapped__(torch.float32).answer() == 42
    (path,) = small.iterdir()
    whole, inode = path.read_bytes(), path.stat().st_ino
    assert native.library.__wrapped__(torch.float32).answer() == 42
    assert path.stat().st_ino == inode
    # The system notices the first alone; a process that loads one of the others is killed.
    for damaged in (b"", whole[: len(whole) // 2], bytes(len(whole))):
        path.unlink()  # a new file, for this process has loaded the whole one
        path.write_bytes(damaged)
        assert native.library.__wrapped__(torch.float32).answer() == 42
        assert path.read_bytes() == whole
