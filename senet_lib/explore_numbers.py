"""What answers the explorer, under the name it had before `senet_lib.explore.answers`."""

from senet_lib.explore.answers import own_picture as own_picture
