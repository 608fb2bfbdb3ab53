"""The blocks of the networks, with the kernels doing what they can.

Each class here has the state of the plain one it stands for and the same equation; `FASTER` says
which for which. Where the kernels do not apply (see `applies`) a block is the plain one.

Legend: N images, C channels, H x W pixels, K classes; s streams of w = C / s channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.kernels.convolution import convolve
from senet_lib.kernels.gates import scale, split, squeeze
from senet_lib.kernels.native import missing
from senet_lib.kernels.norm import normalise
from senet_lib.models import attention, blocks, cnn, densenet, res2net


def applies(block: nn.Module, x: Tensor) -> bool:
    """Whether the kernels are to do this block's work on this map.

    They do in training on a CPU, in float32 or bfloat16, unless somebody listens: a hook, a
    dispatch mode or another `forward` of a part would not see what happens inside.
    """
    autocast = torch.is_autocast_enabled("cpu")
    return (
        block.training
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.numel() > 0
        and x.dtype == (torch.get_autocast_dtype("cpu") if autocast else torch.float32)
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and not nn.modules.module._has_any_global_hook()
        and not any(map(_is_heard, block.modules()))
        and not missing(x.dtype)
    )


def _is_heard(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in vars(module)
    )


def conv_norm(
    conv: nn.Module, norm: nn.Module, x: Tensor, relu: bool = True, residual: Tensor | None = None
) -> Tensor:
    """conv - norm - [add residual] - [ReLU]."""
    return normalise(norm, *convolve(conv, x), relu=relu, residual=residual)[0]


class _Faster:
    """A block that is `fast` where the kernels apply and the plain one elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fast(x) if applies(self, x) else super().forward(x)


class SqueezeExcite(_Faster, attention.SqueezeExcite):
    def fast(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x * gate(x), or relu(x * gate(x) + residual)."""
        if type(self.gate) is not attention.ExciteGate:
            x = x * self.gate(x)
            return x if residual is None else F.relu(x + residual)
        if self.gate.squeeze is attention.SQUEEZES["avg"]:  # it alone has a kernel
            x, squeezed = squeeze(x)
        else:
            squeezed = self.gate.squeeze(x).float()
        with torch.autocast("cpu", enabled=False):  # float32 is faster for so few numbers
            gates = self.gate.excite(squeezed)  # (N, C)
        return scale(x, gates, residual)


class Stem(_Faster, blocks.Stem):
    def fast(self, x: Tensor) -> Tensor:
        return self.pool(conv_norm(self.conv, self.norm, x))


class Projection(_Faster, blocks.Projection):
    def fast(self, x: Tensor) -> Tensor:
        return conv_norm(self.conv, self.norm, x, relu=False)


class _Residual(_Faster):
    """`inner` is the branch up to its last convolution, which it returns with its normalisation."""

    def fast(self, x: Tensor) -> Tensor:
        conv, norm, inner = self.inner(self._attend("pre", x))
        shortcut = self._attend("identity", self.shortcut(x))
        if self.position != "standard" or type(self.attention) is nn.Identity:
            return self._attend("post", conv_norm(conv, norm, inner, residual=shortcut))
        residual = conv_norm(conv, norm, inner, relu=False)
        if isinstance(self.attention, SqueezeExcite):
            return self.attention.fast(residual, shortcut)
        return F.relu(self.attention(residual) + shortcut)


class BasicBlock(_Residual, blocks.BasicBlock):
    def inner(self, x: Tensor) -> tuple[nn.Module, nn.Module, Tensor]:
        return self.conv2, self.norm2, conv_norm(self.conv1, self.norm1, x)


class Bottleneck(_Residual, blocks.Bottleneck):
    def inner(self, x: Tensor) -> tuple[nn.Module, nn.Module, Tensor]:
        x = conv_norm(self.conv1, self.norm1, x)
        return self.conv3, self.norm3, conv_norm(self.conv2, self.norm2, x)


class Res2NetBlock(_Residual, res2net.Res2NetBlock):
    def fast(self, x: Tensor) -> Tensor:
        if self.gate_at == "literal":
            return F.relu(self.streams(x) + self.shortcut(x))
        return super().fast(x)

    def streams(self, x: Tensor) -> Tensor:
        """The gated Z of a block's input."""
        x = self.pool(conv_norm(self.conv1, self.norm1, x))  # (N, C, H/stride, W/stride)
        return self.gated(self.cascade(x))

    def inner(self, x: Tensor) -> tuple[nn.Module, nn.Module, Tensor]:
        return self.conv3, self.norm3, self.streams(x)

    def cascade(self, x: Tensor) -> list[Tensor]:
        if not applies(self, x):
            return super().cascade(x)
        first, total, *others = split(x, self.scale)
        outputs = [first]
        for conv, norm, following in zip(self.convs, self.norms, [*others, None], strict=True):
            output, total = normalise(norm, *convolve(conv, total), plus=following)
            outputs.append(output)
        return outputs


class _Preact(_Faster):
    """The branch of a subclass begins after the first normalisation and its rectifier."""

    def fast(self, x: Tensor) -> Tensor:
        active = normalise(self.norm1, self._attend("pre", x))[0]
        residual = self._attend("standard", self.inner(active))
        keep = isinstance(self.shortcut, nn.Identity)
        shortcut = self._attend("identity", x if keep else self.shortcut(active))
        return self._attend("post", residual + shortcut)


class PreactBasic(_Preact, blocks.PreactBasic):
    def inner(self, x: Tensor) -> Tensor:
        return convolve(self.conv2, conv_norm(self.conv1, self.norm2, x))[0]


class PreactBottleneck(_Preact, blocks.PreactBottleneck):
    def inner(self, x: Tensor) -> Tensor:
        x = conv_norm(self.conv1, self.norm2, x)
        return self.conv3(conv_norm(self.conv2, self.norm3, x))


class DenseLayer(_Faster, densenet.DenseLayer):
    def fast(self, x: Tensor) -> Tensor:
        new = conv_norm(self.conv1, self.norm2, normalise(self.norm1, x)[0])
        return torch.cat([x, self.attention(convolve(self.conv2, new)[0])], 1)


class Transition(_Faster, densenet.Transition):
    def fast(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(normalise(self.norm, x)[0]))


class PoolBlock(_Faster, cnn.PoolBlock):
    def fast(self, x: Tensor) -> Tensor:
        x = normalise(self.norm1, self.pool(convolve(self.conv1, x)[0]))[0]
        if type(self.attention) is nn.Identity:
            return conv_norm(self.conv2, self.norm2, x)
        return F.relu(self.attention(conv_norm(self.conv2, self.norm2, x, relu=False)))


FASTER = {
    faster.__bases__[1]: faster
    for faster in (
        *(SqueezeExcite, Stem, Projection, BasicBlock, Bottleneck, Res2NetBlock),
        *(PreactBasic, PreactBottleneck, DenseLayer, Transition, PoolBlock),
    )
}
