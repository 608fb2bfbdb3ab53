"""Errors on CIFAR-10 that others have published, to be drawn beside ours and never mixed with them.

Nothing here was measured by this study. Parameters and MACs are exact where it is known how the
public network is built (they are then that network's own arithmetic), rounded where the possible
readings agree to three digits or the source rounds, and None where it is open which network it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

EVIDENCE = {
    "read": "read in the public file that is named",
    "second hand": "read in a secondary copy of the paper",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPoint:
    """One network's error as someone else published it."""

    network: str
    """Short name of the network; points of one network share it."""
    error: float
    """Test error on CIFAR-10, a fraction."""
    num_params: int | None
    """Parameters; None where the source does not settle them."""
    macs: int | None
    """Multiply-accumulates of convolutions and linear layers for one image, likewise."""
    source: str
    """Where it stands."""
    evidence: str
    """Key of EVIDENCE: read, or second hand."""
    recipe: str
    """What is known of how it was trained and chosen."""


_HE = ("He et al. 2015 (arXiv:1512.03385)", "read", "as published; at depth 110 the best of 5")
_AKA = ("akamaster/pytorch_resnet_cifar10 README", "read", "best epoch on the test set")
_CHEN = ("chenyaofo/pytorch-cifar-models README", "read", "recipe not checked, better than He's")
_SE = (
    "Hu et al. 2018 (arXiv:1709.01507)", "second hand",
    "the plain errors equal published medians of 5 of pre-activation networks",
)  # fmt: skip
_JY = ("Jyouhou/SENet-cifar10 README", "read", "lr 0.1, wd 1e-4, batch 128; r not stated")
_JY64 = (_JY[0], "read", "lr 0.1, wd 1e-4, batch 64; r not stated")
_OSMR = ("osmr/imgclsmob PyTorch README", "read", "recipe not stated, clearly stronger than He's")
_QUEEQ = ("Queequeg92/SE-Net-CIFAR README", "read", "recipe not stated")
_MOSK = ("moskomule/senet.pytorch README", "read", "200 epochs; best epoch, in whole percent")
_HYSTS = ("hysts README", "read", "median of 3, last epoch")
_BEAR = ("bearpaw/pytorch-classification README", "read", "recipe not checked")
_LIU = ("liuzhuang13/DenseNet README", "read", "crop and flip")
_KUANG = ("kuangliu/pytorch-cifar README", "read", "stale: re-runs reach below 5 %")

# Parameters and MACs: option A of the shortcut has no weights, option B a 1x1 projection.
_R20A, _R20B = (269_722, 40_551_040), (272_474, 40_813_184)
_R32A, _R32B = (464_154, 68_862_592), (466_906, 69_124_736)
_R44A, _R44B = (658_586, 97_174_144), (661_338, 97_436_288)
_R56A, _R56B = (853_018, 125_485_696), (855_770, 125_747_840)
_R110A, _R110B = (1_727_962, 252_887_680), (1_730_714, 253_149_824)
_SE20_BIAS, _SE56_BIAS, _SE110_BIAS = 274_847, 862_889, 1_744_952
_R164, _SE164_BIAS, _WRN16_8, _WRN28_10 = 1_704_154, 1_906_258, 10_961_370, 36_479_194
_DENSE = (769_162, 287_929_692)
_R18 = (11_173_962, 555_422_720)
_ABOUT_R110, _ABOUT_SE110 = (1_730_000, 253_000_000), (1_740_000, 253_000_000)
_ABOUT_1_7M = (1_700_000, None)
_OPEN = (None, None)

_Row = tuple[str, float, tuple[int | None, int | None], tuple[str, str, str]]
_ROWS: tuple[_Row, ...] = (
    ("ResNet-20", 8.75, _R20A, _HE), ("ResNet-32", 7.51, _R32A, _HE),
    ("ResNet-44", 7.17, _R44A, _HE), ("ResNet-56", 6.97, _R56A, _HE),
    ("ResNet-110", 6.43, _R110A, _HE),
    ("ResNet-20", 8.27, _R20A, _AKA), ("ResNet-32", 7.37, _R32A, _AKA),
    ("ResNet-44", 6.90, _R44A, _AKA), ("ResNet-56", 6.61, _R56A, _AKA),
    ("ResNet-110", 6.32, _R110A, _AKA),
    ("ResNet-20", 7.40, _R20B, _CHEN), ("ResNet-32", 6.47, _R32B, _CHEN),
    ("ResNet-44", 5.99, _R44B, _CHEN), ("ResNet-56", 5.63, _R56B, _CHEN),
    ("ResNet-110", 6.37, _ABOUT_R110, _SE), ("SE-ResNet-110", 5.21, _ABOUT_SE110, _SE),
    ("ResNet-164", 5.46, (1_700_000, None), _SE), ("SE-ResNet-164", 4.39, (1_900_000, None), _SE),
    ("WRN-16-8", 4.27, (_WRN16_8, None), _SE), ("SE-WRN-16-8", 3.88, _OPEN, _SE),
    ("ResNet-20", 7.92, _OPEN, _JY), ("SE-ResNet-20", 7.85, _OPEN, _JY),
    ("ResNet-32", 7.45, _OPEN, _JY), ("SE-ResNet-32", 7.04, _OPEN, _JY),
    ("ResNet-44", 7.24, _OPEN, _JY), ("SE-ResNet-44", 6.47, _OPEN, _JY),
    ("ResNet-56", 6.38, _OPEN, _JY), ("SE-ResNet-56", 5.98, _OPEN, _JY),
    ("ResNet-110", 6.30, _OPEN, _JY), ("SE-ResNet-110", 5.30, _OPEN, _JY),
    ("ResNet-20", 7.50, _OPEN, _JY64), ("SE-ResNet-20", 7.21, _OPEN, _JY64),
    ("ResNet-110", 5.39, _OPEN, _JY64), ("SE-ResNet-110", 5.19, _OPEN, _JY64),
    ("ResNet-20", 5.97, _R20B, _OSMR), ("SE-ResNet-20", 6.01, (_SE20_BIAS, None), _OSMR),
    ("ResNet-56", 4.52, _R56B, _OSMR), ("SE-ResNet-56", 4.13, (_SE56_BIAS, None), _OSMR),
    ("ResNet-110", 3.69, _R110B, _OSMR), ("SE-ResNet-110", 3.63, (_SE110_BIAS, None), _OSMR),
    ("ResNet-164", 3.68, (_R164, None), _OSMR),
    ("SE-ResNet-164", 3.39, (_SE164_BIAS, None), _OSMR),
    ("PreResNet-20", 6.51, _OPEN, _OSMR), ("SE-PreResNet-20", 6.18, _OPEN, _OSMR),
    ("PreResNet-56", 4.49, _OPEN, _OSMR), ("SE-PreResNet-56", 4.51, _OPEN, _OSMR),
    ("PreResNet-110", 3.86, _OPEN, _OSMR), ("SE-PreResNet-110", 4.54, _OPEN, _OSMR),
    ("PreResNet-164", 3.64, _OPEN, _OSMR), ("SE-PreResNet-164", 3.73, _OPEN, _OSMR),
    ("PreResNet-164", 5.08, _OPEN, _QUEEQ), ("SE-PreResNet-164", 4.88, _OPEN, _QUEEQ),
    ("WRN-28-10", 3.90, (_WRN28_10, 5_243_300_000), _QUEEQ),
    ("SE-WRN-28-10", 3.90, _OPEN, _QUEEQ),
    ("ResNet-20", 8.0, _OPEN, _MOSK), ("SE-ResNet-20", 7.0, _OPEN, _MOSK),
    ("ResNet-110", 6.52, _OPEN, _HYSTS), ("PreResNet-110", 6.47, _OPEN, _HYSTS),
    ("PreResNet-164", 5.90, _OPEN, _HYSTS), ("DenseNet-BC-100-12", 4.69, _DENSE, _HYSTS),
    ("ResNet-110", 6.11, _ABOUT_1_7M, _BEAR), ("PreResNet-110", 4.94, _ABOUT_1_7M, _BEAR),
    ("DenseNet-BC-100-12", 4.54, _DENSE, _BEAR), ("DenseNet-BC-100-12", 4.51, _DENSE, _LIU),
    ("DenseNet-BC-100-12", 4.16, _DENSE, _OSMR), ("ResNet-18", 6.98, _R18, _KUANG),
)  # fmt: skip

PUBLISHED: tuple[PublishedPoint, ...] = tuple(
    PublishedPoint(
        network=network,
        error=percent_wrong / 100,
        num_params=num_params,
        macs=macs,
        source=source,
        evidence=evidence,
        recipe=recipe,
    )
    for network, percent_wrong, (num_params, macs), (source, evidence, recipe) in _ROWS
)

# Parameters in millions and FLOPs in millions, as the second source document prints them under
# "Complexity per Block (C=64, s=4, r=16)"; it does not say for which size of input.
CLAIMED_BLOCKS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "ResNet (2 conv)": (0.18, 34.0),
        "SE-ResNet": (0.36, 68.0),
        "Res2Net": (0.19, 35.0),
        "SE-Res2Net": (0.20, 36.0),
    }
)
