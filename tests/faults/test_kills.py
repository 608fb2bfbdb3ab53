"""A run that is killed at any moment, started again, ends with the bytes it would have had."""

import random
import time

import pytest
from victims import FULL, train, train_until_write

from senet_lib.runs.records import load_run

SAME = ("weights.safetensors", "test_logits.npz")
LEFT = {"record.json", "history.csv", *SAME}
KILLS = 50 if FULL else 4
EVERY = 1 if FULL else 11
MOST_MOMENTS = 200


@pytest.fixture(scope="module")
def undisturbed(start, tiny_data, tmp_path_factory):
    """The run that nothing happened to, and how long it took in seconds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for name in ("first", "run"):  # the first starts the fork server
        began = time.perf_counter()
        process = start(train, tiny_data, folder / name)
        process.join()
        assert process.exitcode == 0
    return folder / "run", time.perf_counter() - began


def finish_and_compare(start, data, folder, whole):
    """Start a run again without harm, and compare what it leaves with the undisturbed one."""
    process = start(train, data, folder)
    process.join()
    assert process.exitcode == 0
    assert {path.name for path in folder.iterdir()} == LEFT
    for name in SAME:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    ours, theirs = load_run(folder), load_run(whole)
    ours.verify()
    assert (ours.test_error, ours.test_loss) == (theirs.test_error, theirs.test_loss)


def test_kills_at_random_moments(start, tiny_data, tmp_path, undisturbed):
    whole, seconds = undisturbed
    chance, killed, number = random.Random(0), 0, 0
    while killed < KILLS and number < 5 * KILLS:
        folder, number = tmp_path / str(number), number + 1
        for _ in range(chance.randint(1, 3)):
            process = start(train, tiny_data, folder)
            process.join(chance.uniform(0, seconds))
            process.kill()
            process.join()
            killed += process.exitcode == -9
        finish_and_compare(start, tiny_data, folder, whole)
    print(f"{killed} kills in {number} runs, every run bit-identical")
    assert killed >= KILLS


def test_kills_inside_every_write(start, tiny_data, tmp_path, undisturbed):
    whole, _ = undisturbed
    killed = 0
    for moment in range(0, MOST_MOMENTS, EVERY):
        folder = tmp_path / str(moment)
        process = start(train_until_write, tiny_data, folder, moment)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
        killed += 1
        finish_and_compare(start, tiny_data, folder, whole)
    print(f"{killed} kills inside writes, every run bit-identical")
    assert killed >= 30 / EVERY
    assert process.exitcode == 0  # all moments were met
