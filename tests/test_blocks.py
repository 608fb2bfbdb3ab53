"""Blocks and attentions against naive loops written from their equations."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.errors import SenetError
from senet_lib.models import AttentionSpec
from senet_lib.models import attention as attention_module
from senet_lib.models.attention import build_attention
from senet_lib.models.blocks import (
    BasicBlock,
    Bottleneck,
    PreactBasic,
    PreactBottleneck,
    make_shortcut,
)
from senet_lib.models.densenet import DenseLayer
from senet_lib.models.res2net import GATE_PLACES, Res2NetBlock

NAIVE_SQUEEZE = {
    "avg": lambda values: sum(values) / len(values),
    "max": max,
    "std": lambda values: math.sqrt(
        sum((v - sum(values) / len(values)) ** 2 for v in values) / len(values) + 1e-5
    ),
}
NAIVE_GATE = {
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "relu": lambda v: max(v, 0.0),
    "hard_sigmoid": lambda v: min(max(v + 3, 0.0), 6.0) / 6,
}
SE = AttentionSpec(attention="se", reduction=2)


def naive_squeeze(x: Tensor, squeeze: str) -> list[list[float]]:
    """One statistic an image and channel, (N, C, H, W) to N x C numbers."""
    return [[NAIVE_SQUEEZE[squeeze](c.flatten().tolist()) for c in image] for image in x]


def naive_dense(layer: nn.Linear, vector: list[float]) -> list[float]:
    """W v + b by loops."""
    rows = layer.weight.tolist()
    offset = [0.0] * len(rows) if layer.bias is None else layer.bias.tolist()
    products = [sum(w * v for w, v in zip(row, vector, strict=True)) for row in rows]
    return [product + b for product, b in zip(products, offset, strict=True)]


def naive_excite(gate: nn.Module, squeezed: list[list[float]]) -> list[list[float]]:
    """W2 relu(W1 z), before the last non-linearity, for each image."""
    hidden = [[max(h, 0.0) for h in naive_dense(gate.reduce, z)] for z in squeezed]
    return [naive_dense(gate.expand, h) for h in hidden]


def scaled(x: Tensor, gates: list[list[float]], gate: str = "sigmoid") -> Tensor:
    """x with channel c of image n multiplied by the non-linearity of gates[n][c], by loops."""
    out = x.clone()
    for n, row in enumerate(gates):
        for c, value in enumerate(row):
            out[n, c] = x[n, c] * NAIVE_GATE[gate](value)
    return out


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def randomise(module: nn.Module) -> nn.Module:
    """Eval mode, with every parameter and running statistic drawn afresh."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
    return module.eval()


def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    """Batch normalisation by its formula, from the running statistics."""
    mean, var, weight, bias = (
        v[None, :, None, None]
        for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 8, 4, 6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gate", NAIVE_GATE)
@pytest.mark.parametrize("squeeze", NAIVE_SQUEEZE)
def test_se_equals_loop(x: Tensor, squeeze: str, gate: str, bias: bool) -> None:
    spec = AttentionSpec(attention="se", reduction=3, squeeze=squeeze, gate=gate, gate_bias=bias)
    module = build_attention(8, spec)
    assert module.gate.reduce.weight.shape == (2, 8)  # 8 // 3 hidden units
    close(module(x), scaled(x, naive_excite(module.gate, naive_squeeze(x, squeeze)), gate))


def test_hook_on_gate_reads_the_gates(x: Tensor) -> None:
    module, seen = build_attention(8, SE), []
    module.gate.register_forward_hook(lambda _m, _i, out: seen.append(out))
    close(module(x), x * seen[0])
    assert seen[0].shape == (3, 8, 1, 1)
    assert 0 < seen[0].min() < seen[0].max() < 1


@pytest.mark.parametrize(
    ("channels", "size"), [(16, 3), (32, 3), (64, 3), (128, 5), (256, 5), (512, 5)]
)
def test_eca_kernel_size(channels: int, size: int) -> None:
    # t = (log2 C + 1) / 2, truncated, then the next odd number
    module = build_attention(channels, AttentionSpec(attention="eca"))
    assert module.gate.conv.weight.numel() == size


@pytest.mark.parametrize("squeeze", NAIVE_SQUEEZE)
def test_eca_and_ge_equal_loops(x: Tensor, squeeze: str) -> None:
    squeezed = naive_squeeze(x, squeeze)
    ge = build_attention(8, AttentionSpec(attention="ge", squeeze=squeeze))
    close(ge(x), scaled(x, squeezed))
    assert not list(ge.parameters())
    module = build_attention(8, AttentionSpec(attention="eca", squeeze=squeeze, gate="tanh"))
    kernel = module.gate.conv.weight.flatten().tolist()
    edge = [0.0] * (len(kernel) // 2)
    rows = [edge + z + edge for z in squeezed]
    gates = [[sum(k * z[c + i] for i, k in enumerate(kernel)) for c in range(8)] for z in rows]
    close(module(x), scaled(x, gates, "tanh"))


def test_cbam_equals_loop(x: Tensor) -> None:
    module = build_attention(8, AttentionSpec(attention="cbam", reduction=2))
    mean, peak = (naive_excite(module.gate, naive_squeeze(x, kind)) for kind in ("avg", "max"))
    y = scaled(x, (np.array(mean) + np.array(peak)).tolist())
    expected = y.clone()
    kernel = module.spatial_gate.conv.weight[0]  # (2, 7, 7)
    for n, i, j in itertools.product(range(3), range(4), range(6)):
        total = 0.0
        for a, b in itertools.product(range(7), range(7)):
            r, s = i + a - 3, j + b - 3
            if 0 <= r < 4 and 0 <= s < 6:
                pixel = y[n, :, r, s]
                total += kernel[0, a, b] * pixel.mean() + kernel[1, a, b] * pixel.max()
        expected[n, :, i, j] *= torch.sigmoid(total)
    close(module(x), expected)


def test_scse_equals_loop(x: Tensor) -> None:
    module = build_attention(8, AttentionSpec(attention="scse", reduction=2))
    weights, spatial = module.gate.spatial.weight.flatten().tolist(), x.clone()
    for n, i, j in itertools.product(range(3), range(4), range(6)):
        q = sum(w * float(x[n, c, i, j]) for c, w in enumerate(weights))
        spatial[n, :, i, j] *= NAIVE_GATE["sigmoid"](q)
    channels = scaled(x, naive_excite(module.gate.channel, naive_squeeze(x, "avg")))
    close(module(x), channels + spatial)


def test_std_squeeze_has_a_finite_gradient_on_a_constant_map() -> None:
    module = build_attention(8, AttentionSpec(attention="se", squeeze="std"))
    flat = torch.ones(2, 8, 4, 4, requires_grad=True)
    module(flat).sum().backward()
    assert torch.isfinite(flat.grad).all()


def test_the_controls_scale_by_constants_alone(x: Tensor) -> None:
    scale = build_attention(8, AttentionSpec(attention="scale"))
    half = build_attention(8, AttentionSpec(attention="half"))
    assert torch.equal(scale(x), x)  # before training
    assert torch.equal(half(x), x / 2)
    assert not [*half.parameters(), *half.state_dict()]
    (weight,) = scale.parameters()
    with torch.no_grad():
        weight.copy_(torch.arange(8.0))
    for c in range(8):
        assert torch.equal(scale(x)[:, c], c * x[:, c])
    scale(x).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum((0, 2, 3)))


@pytest.mark.parametrize("position", attention_module.POSITIONS)
@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (12, 2)])
def test_basic_block_equals_equation(x: Tensor, channels: int, stride: int, position: str) -> None:
    spec = AttentionSpec(attention="se", reduction=2, position=position)
    block = randomise(BasicBlock(8, channels, stride=stride, shortcut="B", attention=spec))
    attend = block.attention
    inner = attend(x) if position == "pre" else x
    inner = F.relu(norm(F.conv2d(inner, block.conv1.weight, None, stride, 1), block.norm1))
    inner = norm(F.conv2d(inner, block.conv2.weight, None, 1, 1), block.norm2)
    shortcut = x
    if stride == 2:
        weight = block.shortcut.conv.weight[..., 0, 0]
        projected = torch.einsum("nchw,dc->ndhw", x[:, :, ::2, ::2], weight)
        shortcut = norm(projected, block.shortcut.norm)
    expected = {
        "standard": lambda: F.relu(attend(inner) + shortcut),
        "pre": lambda: F.relu(inner + shortcut),
        "post": lambda: attend(F.relu(inner + shortcut)),
        "identity": lambda: F.relu(inner + attend(shortcut)),
    }[position]()
    close(block(x), expected)


@pytest.mark.parametrize("position", attention_module.POSITIONS)
@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (12, 2)])
def test_preact_block_equals_equation(x: Tensor, channels: int, stride: int, position: str) -> None:
    spec = AttentionSpec(attention="se", reduction=2, position=position)
    block = randomise(PreactBasic(8, channels, stride=stride, shortcut="B", attention=spec))
    attend = block.attention
    active = F.relu(norm(attend(x) if position == "pre" else x, block.norm1))
    inner = F.conv2d(active, block.conv1.weight, None, stride, 1)
    inner = F.conv2d(F.relu(norm(inner, block.norm2)), block.conv2.weight, None, 1, 1)
    shortcut = x
    if stride == 2:
        shortcut = F.conv2d(active, block.shortcut.conv.weight, None, 2)
    expected = {
        "standard": lambda: attend(inner) + shortcut,
        "pre": lambda: inner + shortcut,
        "post": lambda: attend(inner + shortcut),
        "identity": lambda: inner + attend(shortcut),
    }[position]()
    close(block(x), expected)


def test_bottleneck_equals_equation(x: Tensor) -> None:
    block = randomise(Bottleneck(8, 16, width=4, stride=2, groups=2, shortcut="B", attention=SE))
    inner = F.relu(norm(F.conv2d(x, block.conv1.weight), block.norm1))
    halves = [  # two groups: each half of the output sees its half of the input
        F.conv2d(part, weight, None, 2, 1)
        for part, weight in zip(inner.chunk(2, 1), block.conv2.weight.chunk(2), strict=True)
    ]
    inner = F.relu(norm(torch.cat(halves, 1), block.norm2))
    inner = norm(F.conv2d(inner, block.conv3.weight), block.norm3)
    shortcut = norm(F.conv2d(x, block.shortcut.conv.weight, None, 2), block.shortcut.norm)
    expected = F.relu(block.attention(inner) + shortcut)
    close(block(x), expected)


def test_preact_bottleneck_equals_equation(x: Tensor) -> None:
    block = randomise(PreactBottleneck(8, 16, width=4, stride=2, shortcut="B", attention=SE))
    active = F.relu(norm(x, block.norm1))
    inner = F.relu(norm(F.conv2d(active, block.conv1.weight), block.norm2))
    inner = F.relu(norm(F.conv2d(inner, block.conv2.weight, None, 2, 1), block.norm3))
    inner = block.attention(F.conv2d(inner, block.conv3.weight))
    expected = inner + F.conv2d(active, block.shortcut.conv.weight, None, 2)
    close(block(x), expected)


def test_shortcut_a_subsamples_and_pads_with_zeros(x: Tensor) -> None:
    shortcut = make_shortcut(8, 12, 2, "A")
    y = shortcut(x)
    assert y.shape == (3, 12, 2, 3)
    for c, i, j in itertools.product(range(12), range(2), range(3)):
        expected = x[:, c, 2 * i, 2 * j] if c < 8 else torch.zeros(3)
        assert torch.equal(y[:, c, i, j], expected)
    assert not list(shortcut.parameters())
    with pytest.raises(SenetError, match="use B"):
        make_shortcut(8, 4, 2, "A")


def by_loop(gate: nn.Module, part: Tensor, whole: Tensor) -> Tensor:
    """A part of Z times the gates that squeeze what is given as the whole, by loops."""
    return scaled(part, naive_excite(gate, naive_squeeze(whole, "avg")))


GATED = {
    "fused": slice(0, 12), "literal": slice(0, 12), "last": slice(9, 12), "first2": slice(0, 6),
}  # fmt: skip
FROM_Z = {"last_from_z": slice(9, 12), "first2_from_z": slice(0, 6)}


@pytest.mark.parametrize("gate_at", ["none", *GATE_PLACES])
@pytest.mark.parametrize("stride", [1, 2])
def test_res2net_block_equals_equations(x: Tensor, stride: int, gate_at: str) -> None:
    width, scale = 3, 4
    place, spec = ("fused", AttentionSpec()) if gate_at == "none" else (gate_at, SE)
    about = {"base_width": width, "scale": scale, "stride": stride}
    block = randomise(Res2NetBlock(8, **about, gate_at=place, attention=spec))
    inner = F.relu(norm(F.conv2d(x, block.conv1.weight), block.norm1))
    if stride == 2:
        inner = sum(inner[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)) / 4
    streams = {i: inner[:, (i - 1) * width : i * width] for i in range(1, scale + 1)}
    y = {1: streams[1]}
    for i in range(2, scale + 1):
        kernel, layer = block.convs[i - 2].weight, block.norms[i - 2]
        y[i] = F.relu(norm(F.conv2d(streams[i] + y[i - 1], kernel, None, 1, 1), layer))
    z = torch.cat([y[i] for i in range(1, scale + 1)], 1)
    whole, z = z, z.clone()
    if gate_at in GATED:
        z[:, GATED[gate_at]] = block.attention(whole[:, GATED[gate_at]])
    elif gate_at in FROM_Z:
        assert block.attention.gate.reduce.weight.shape == (6, 12)
        part = FROM_Z[gate_at]
        z[:, part] = by_loop(block.attention.gate, whole[:, part], whole)
    elif gate_at == "streams":
        for i, gate in enumerate(block.attention.gate.streams):
            part = slice(width * i, width * (i + 1))
            z[:, part] = by_loop(gate, whole[:, part], whole[:, part])
    inner = z if gate_at == "literal" else norm(F.conv2d(z, block.conv3.weight), block.norm3)
    if gate_at == "output":
        inner = block.attention(inner)
    shortcut = norm(F.conv2d(x, block.shortcut.conv.weight, None, stride), block.shortcut.norm)
    close(block(x), F.relu(inner + shortcut))


def test_dense_layer_equals_equation(x: Tensor) -> None:
    layer = randomise(DenseLayer(8, 4, SE))
    new = F.conv2d(F.relu(norm(x, layer.norm1)), layer.conv1.weight)
    new = layer.attention(F.conv2d(F.relu(norm(new, layer.norm2)), layer.conv2.weight, None, 1, 1))
    y = layer(x)
    assert torch.equal(y[:, :8], x)
    close(y[:, 8:], new)
