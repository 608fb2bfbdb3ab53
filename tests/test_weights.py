"""Files of weights: the same network is the same bytes, and a changed byte is noticed."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from senet_lib.errors import CheckpointError
from senet_lib.runs.weights import NetSpec, load_network, save_weights

SPEC = NetSpec(
    model="resnet20", overrides={}, classes=("a", "b"), mean=(0.5,) * 3, std=(0.2,) * 3, data="d"
)


def test_equal_networks_are_equal_bytes_in_every_process(tmp_path):
    code = (
        "import sys, torch; sys.path.insert(0, 'tests'); from test_weights import *; "
        "torch.manual_seed(0); save_weights(Path(sys.argv[1]), SPEC.build(), SPEC)"
    )
    files = [tmp_path / f"{n}.safetensors" for n in range(3)]
    for path in files:
        script = f"from pathlib import Path; {code}"
        subprocess.run([sys.executable, "-c", script, path], check=True, env=os.environ)
    assert len({path.read_bytes() for path in files}) == 1


def test_weights_are_as_readable_as_the_umask_says(tmp_path):
    for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            save_weights(tmp_path / "w.safetensors", SPEC.build(), SPEC)
        finally:
            os.umask(before)
        assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == mode


def test_a_changed_byte_anywhere_is_noticed_without_any_record(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, SPEC.build(), SPEC)
    whole = path.read_bytes()
    for at in [*range(8, 1200, 97), *range(2000, len(whole), len(whole) // 9)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=r"w\.safetensors"):
            load_network(path)
    path.write_bytes(whole)
    assert load_network(path)[1] == SPEC


def test_weights_from_before_the_checksum_are_read(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, SPEC.build(), SPEC)
    metadata = {"format": "senet_lib/1", "spec": json.dumps(SPEC.to_dict())}
    save_file(load_file(path), path, metadata=metadata)
    assert load_network(path)[1] == SPEC
