"""A byte that changed or an end that is missing: noticed, or without effect; never in silence."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from victims import FULL, train

from senet_lib.data.datasets import load_data
from senet_lib.errors import RunStopped, SenetError
from senet_lib.runs.records import load_run
from senet_lib.runs.weights import load_checkpoint, load_network

DAMAGES = 500 if FULL else 40


@pytest.fixture(scope="module")
def run(tiny_data, tmp_path_factory):
    """A finished run, and one with two checkpoints."""
    folder = tmp_path_factory.mktemp("damage")
    train(tiny_data, folder / "done")
    for _ in range(2):
        with pytest.raises(RunStopped):
            train(tiny_data, folder / "stopped", max_minutes=1e-6)
    return folder


def weights_of(path):
    network, spec = load_network(path)
    return spec, {name: value.clone() for name, value in network.state_dict().items()}


READERS = {
    "done/record.json": lambda path: load_run(path).to_dict(),
    "done/history.csv": lambda path: load_run(path.parent).history.to_dict("list"),
    "done/test_logits.npz": lambda path: load_run(path.parent).test_logits(),
    "done/weights.safetensors": weights_of,
    "stopped/checkpoint.pt": load_checkpoint,
    "data.npz": lambda path: [load_data(str(path)).fingerprint],
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def harm(whole, chance):
    """A bit flipped, the end cut off, or a block of zeros, as disks and copies that break do."""
    at = chance.randrange(len(whole))
    kind = chance.choice(("flip", "flip", "flip", "cut", "zeros"))
    if kind == "flip":
        return whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
    return whole[:at] if kind == "cut" else whole[:at] + bytes(512) + whole[at + 512 :]


def said(read, path):
    """What a reader gives, or the words with which it refuses."""
    try:
        return read(path)
    except SenetError as error:
        return str(error)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_noticed_or_read_right(run, tiny_data, name):
    path, read, chance = run / name, READERS[name], random.Random(name)
    if name == "data.npz":
        path.write_bytes(Path(tiny_data).read_bytes())
    whole = path.read_bytes()
    wanted, noticed, harmless = read(path), 0, 0
    try:
        for _ in range(DAMAGES):
            path.write_bytes(harm(whole, chance))
            found = said(read, path)
            if isinstance(found, str):
                noticed += 1
                assert path.name in found
            else:
                harmless += 1
                assert same(found, wanted)
    finally:
        path.write_bytes(whole)
    print(f"{name}: of {DAMAGES} damages {noticed} noticed, {harmless} without effect, 0 silent")
    assert noticed > DAMAGES / 2


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(run, tiny_data, tmp_path, capsys):
    """One is damaged, or both: named, and the end is the same bytes."""
    whole, chance = (run / "stopped/checkpoint.pt").read_bytes(), random.Random(1)
    before = (run / "stopped/checkpoint.previous.pt").read_bytes()
    for number in range(20 if FULL else 3):
        folder = tmp_path / str(number)
        folder.mkdir()
        damaged = False
        while not damaged:  # what fills the space between two tensors may be anything
            at = len(whole) // 4 + chance.randrange(len(whole) // 2)
            content = whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :]
            (folder / "checkpoint.pt").write_bytes(content)
            damaged = isinstance(said(load_checkpoint, folder / "checkpoint.pt"), str)
        (folder / "checkpoint.previous.pt").write_bytes(before if number % 3 else before[:at])
        train(tiny_data, folder)
        printed = capsys.readouterr().err
        assert f"{folder}/checkpoint.pt is damaged" in printed
        assert ("starts over" in printed) == (number % 3 == 0)
        for name in ("weights.safetensors", "test_logits.npz"):
            assert (folder / name).read_bytes() == (run / "done" / name).read_bytes()
        assert len(list(folder.iterdir())) == 4
