"""The ImageNet-size networks give torchvision's and timm's logits once the weights are copied."""

import pytest
import torch
from torch import nn

from senet_lib.errors import CheckpointError
from senet_lib.models import copy_weights, create_model

PAIRS = [
    ("resnet50", "torchvision", "resnet50"),
    ("resnext50_32x4d", "torchvision", "resnext50_32x4d"),
    ("resnet50", "timm", "resnet50"),
    ("resnext50_32x4d", "timm", "resnext50_32x4d"),
    ("se_resnet50", "timm", "seresnet50"),
    ("se_resnext50_32x4d", "timm", "seresnext50_32x4d"),
]


def other_network(library: str, name: str, num_classes: int) -> nn.Module:
    """A network of the other library with random weights and running statistics, in eval mode."""
    if library == "timm":
        network = pytest.importorskip("timm").create_model(name, num_classes=num_classes)
    else:
        models = pytest.importorskip("torchvision").models
        network = models.get_model(name, weights=None, num_classes=num_classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.2, 0.8)
            nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


@pytest.mark.parametrize(("name", "library", "other_name"), PAIRS)
def test_same_logits(name: str, library: str, other_name: str) -> None:
    torch.manual_seed(0)
    other = other_network(library, other_name, 7)
    model = create_model(name, num_classes=7)
    copy_weights(model, other.state_dict())
    model.eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected, logits = other(images), model(images)
    assert expected.std() > 1e-2
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in other.parameters())
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_weights_that_do_not_fit_leave_the_model_alone(untouched) -> None:
    other = other_network("torchvision", "resnet50", 7)
    model = create_model("se_resnet50", num_classes=7)
    with untouched(model), pytest.raises(CheckpointError, match=r"lack layer1\.0\.se\.fc1\.weight"):
        copy_weights(model, other.state_dict())
    with pytest.raises(CheckpointError, match=r"fc\.weight has shape"):
        copy_weights(create_model("resnet50", num_classes=8), other.state_dict())
    surplus = {**other.state_dict(), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="have besides extra"):
        copy_weights(create_model("resnet50", num_classes=7), surplus)
