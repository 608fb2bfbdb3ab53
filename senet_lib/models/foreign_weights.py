"""Weights from other libraries: the ImageNet-size networks under timm's and torchvision's names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from senet_lib.errors import CheckpointError

# Ours to theirs, the same in both libraries; squeeze-and-excitation exists in timm only.
_RULES = (
    (r"^stem\.conv\.", "conv1."),
    (r"^stem\.norm\.", "bn1."),
    (r"^stage(\d)\.", r"layer\1."),
    (r"\.norm(\d)\.", r".bn\1."),
    (r"\.shortcut\.conv\.", ".downsample.0."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.attention\.gate\.reduce\.", ".se.fc1."),
    (r"\.attention\.gate\.expand\.", ".se.fc2."),
    (r"^head\.linear\.", "fc."),
)


def copy_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copy the weights and running statistics of timm's or torchvision's network into ours;
    CheckpointError where a name or shape does not fit, the model left as it was.

    Args:
        model: resnet50, se_resnet50, resnext50_32x4d or se_resnext50_32x4d; changed in place.
        state_dict: of resnet50 or resnext50_32x4d (both libraries), or of seresnet50 or
            seresnext50_32x4d (timm).
    """
    own = model.state_dict()
    theirs = {name: name for name in own}
    for pattern, replacement in _RULES:
        theirs = {name: re.sub(pattern, replacement, other) for name, other in theirs.items()}
    missing = [other for other in theirs.values() if other not in state_dict]
    surplus = sorted(set(state_dict).difference(theirs.values()))
    for what, names in (("lack", missing), ("have besides", surplus)):
        if names:
            raise CheckpointError(
                f"these weights are not timm's or torchvision's of this network: they {what} "
                f"{names[0]} and {len(names) - 1} more"
            )
    copied = {}
    for name, other in theirs.items():
        value = state_dict[other]
        if ".attention." in name and value.dim() == 4:
            value = value.flatten(1)  # a 1x1 convolution there, a linear layer here
        if value.shape != own[name].shape:
            raise CheckpointError(
                f"{other} has shape {tuple(value.shape)}, the model needs {tuple(own[name].shape)}"
            )
        copied[name] = value
    with torch.no_grad():
        model.load_state_dict(copied)
