"""An attention of one's own, as an example: SE without the exchange between channels."""

import torch
from torch import Tensor, nn

from senet_lib.models import AttentionSpec, register_attention


@register_attention("alone", options=())
class Alone(nn.Module):
    """x * sigmoid(a * mean(x) + b): each channel is gated by its own mean, a and b are learnt."""

    def __init__(self, channels: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(channels, 1, 1))
        self.b = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.a * x.mean((2, 3), keepdim=True) + self.b)
