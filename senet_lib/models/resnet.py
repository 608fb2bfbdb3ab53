"""ResNet, pre-activation ResNet, Wide ResNet and ResNeXt: numbers for the blocks.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from torch import nn

from senet_lib.models import blocks
from senet_lib.models.attention import NO_ATTENTION, AttentionSpec


class ResNet(blocks.Network):
    """stem - stages of basic blocks or bottlenecks - mean - linear.

    Args:
        num_classes, in_channels: K, and channels of an image.
        num_blocks: blocks of each stage; every stage but the first halves H and W.
        channels: output channels of each stage.
        stem_channels: channels of the stem.
        widths: inner width of each stage's bottlenecks; None means basic blocks.
        groups: groups of the bottlenecks' 3x3 convolution.
        large: whether the stem is the one for ImageNet-size images.
        shortcut: A (no parameters) or B (projection) where the shape changes.
        attention: which attention, where.
    Source: He et al. 2016 (arXiv:1512.03385), sections 3.4 and 4.2.
    Differs from the paper: shortcut B on 32x32 images too, where section 4.2 has A.
    """

    def __init__(
        self, num_classes: int, in_channels: int, *, num_blocks: tuple[int, ...],
        channels: tuple[int, ...], stem_channels: int, widths: tuple[int, ...] | None = None,
        groups: int = 1, large: bool = False, shortcut: str = "B",
        attention: AttentionSpec = NO_ATTENTION,
    ) -> None:  # fmt: skip
        attention.check_stages(len(channels))

        def make(stage: int, previous: int, out: int, stride: int) -> nn.Module:
            spec = attention.at(stage + 1)
            if widths is None:
                return blocks.BasicBlock(previous, out, stride, shortcut, spec)
            return blocks.Bottleneck(previous, out, widths[stage], stride, groups, shortcut, spec)

        stages = blocks.make_stages(stem_channels, num_blocks, channels, make)
        stem = blocks.Stem(in_channels, stem_channels, large=large)
        super().__init__(stem, stages, blocks.Head(channels[-1], num_classes))


class PreactResNet(blocks.Network):
    """3x3 conv - stages of pre-activation blocks - BN - ReLU - mean - linear.

    Args:
        num_classes, in_channels: K, and channels of an image.
        num_blocks: blocks of each of the three stages.
        widen: factor on the widths 16, 32, 64 (k of a Wide ResNet).
        bottleneck: whether the blocks are bottlenecks with four times the width at their ends.
        shortcut, attention: as in `ResNet`.
    Source: He et al. 2016 (arXiv:1603.05027); Zagoruyko and Komodakis 2016 (arXiv:1605.07146).
    Differs from the paper: no dropout; a first block that changes no shape adds its input as the
    first convolution left it, where the paper's appendix normalises and rectifies it first.
    """

    def __init__(
        self, num_classes: int, in_channels: int, *, num_blocks: int, widen: int = 1,
        bottleneck: bool = False, shortcut: str = "B", attention: AttentionSpec = NO_ATTENTION,
    ) -> None:  # fmt: skip
        attention.check_stages(3)
        widths = [16 * widen, 32 * widen, 64 * widen]
        channels = [4 * width if bottleneck else width for width in widths]

        def make(stage: int, previous: int, out: int, stride: int) -> nn.Module:
            spec = attention.at(stage + 1)
            if bottleneck:
                return blocks.PreactBottleneck(previous, out, widths[stage], stride, shortcut, spec)
            return blocks.PreactBasic(previous, out, stride, shortcut, spec)

        stages = blocks.make_stages(16, [num_blocks] * 3, channels, make)
        stem = blocks.conv3x3(in_channels, 16)
        super().__init__(stem, stages, blocks.Head(channels[-1], num_classes, norm=True))
