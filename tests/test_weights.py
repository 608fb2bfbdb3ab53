"""Files of weights: the same network is the same bytes, and a changed byte is noticed."""

import json
import os

import pytest
from safetensors.torch import load_file, save_file

from senet_lib.errors import CheckpointError
from senet_lib.runs.weights import NetSpec, load_network, save_weights

SPEC = NetSpec(
    model="resnet20", overrides={}, classes=("a", "b"), mean=(0.5,) * 3, std=(0.2,) * 3, data="d"
)


def test_weights_are_as_readable_as_the_umask_says(tmp_path):
    for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            save_weights(tmp_path / "w.safetensors", SPEC.build(), SPEC)
        finally:
            os.umask(before)
        assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == mode


def test_weights_of_before_the_checksum_are_read_and_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, SPEC.build(), SPEC)
    whole = path.read_bytes()
    for at in (8, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=r"w\.safetensors"):
            load_network(path)
    path.write_bytes(whole)
    metadata = {"format": "senet_lib/1", "spec": json.dumps(SPEC.to_dict())}
    save_file(load_file(path), path, metadata=metadata)
    assert load_network(path)[1] == SPEC
