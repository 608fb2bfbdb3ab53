"""Networks of other libraries by name, `timm:NAME` and `torchvision:NAME`, with random weights.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from types import ModuleType

import torch.nn.functional as F
from torch import Tensor, nn

from senet_lib.errors import SenetError, need, one_line, unknown

LIBRARIES = ("timm", "torchvision")


class Neighbour(nn.Module):
    """A network of another library, shown its images enlarged.

    Args:
        num_classes: K.
        in_channels: C; torchvision's networks take 3.
        library: "timm" or "torchvision".
        network: its name there, without a tag of trained weights.
        size: side in pixels to which images are enlarged or reduced. Most of these networks reduce
            an image by 32 and begin by 4, so at 128 the stages see of 32x32 pixels what ours do.
    Raises:
        SenetError: the library cannot build it so.
    """

    def __init__(
        self, num_classes: int, in_channels: int, *, library: str, network: str, size: int = 128
    ) -> None:
        super().__init__()
        if type(size) is not int or not 1 <= size <= 4096:
            raise SenetError(f"size must be a whole number from 1 to 4096, not {size!r}")
        self.size = size
        try:
            self.network = _build(library, network, num_classes, in_channels, size)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise SenetError(
                f"{library} builds no {network} for {in_channels} channels of {size}x{size} "
                f"pixels: {one_line(error)}"
            ) from None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear")  # (N, C, size, size)
        return self.network(x)  # (N, K)


def list_neighbours(library: str) -> list[str]:
    """Names of the classifiers that timm or torchvision has; UnknownNameError for another library,
    MissingDependencyError where timm is not installed."""
    if library not in LIBRARIES:
        raise unknown("library of networks", library, LIBRARIES)
    if library == "timm":
        return load_timm().list_models()
    from torchvision import models

    return models.list_models(module=models)


def load_timm() -> ModuleType:
    """The library timm; MissingDependencyError where it is not installed."""
    need("timm", "timm")
    import timm

    return timm


def _build(library: str, name: str, classes: int, channels: int, size: int) -> nn.Module:
    more: dict[str, object] = {"num_classes": classes}
    if library == "timm":
        timm = load_timm()
        about = timm.get_pretrained_cfg(name)
        more |= {"img_size": size} if about and about.fixed_input_size else {}
        return timm.create_model(name, in_chans=channels, **more)
    from torchvision import models

    if channels != 3:
        raise ValueError("its networks take 3 channels")
    if name in ("googlenet", "inception_v3"):  # as trained they give three logits for an image
        more |= {"aux_logits": False, "init_weights": True}
    more |= {"image_size": size} if name.startswith("vit_") else {}
    return models.get_model(name, weights=None, **more)
