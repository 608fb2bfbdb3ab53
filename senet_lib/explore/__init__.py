"""The interactive explorer: any image, any network, maps and gates."""

from senet_lib.explore.app import Explorer, open

__all__ = ["Explorer", "open"]
