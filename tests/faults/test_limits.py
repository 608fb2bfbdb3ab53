"""No room, no memory, no permission, others at the same place: one line, and nothing is lost."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from victims import train

from senet_lib.runs.records import load_run
from senet_lib.runs.weights import load_network

SENET = [sys.executable, "-m", "senet_lib.cli"]
TRAIN = [*SENET, "train", "--model", "resnet20", "--batch-size", "16", "--schedule", "--lr", "0.05",
         "--epochs", "4", "--threads", "1", "--progress", "none"]  # fmt: skip


def fails(command, *words):
    """A command ends with a code of ours and, after its notes, one line that holds the words."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (1, 2), done.stderr
    *notes, error = done.stderr.strip().splitlines()
    assert all(note.startswith("note: ") for note in notes), done.stderr
    assert all(word in error for word in words), done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for one checkpoint and not for two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(small_disk, tiny_data, tmp_path):
    out = small_disk / "run"
    words = [*TRAIN, "--data", tiny_data, "--out", str(out), "--checkpoint-minutes", "0"]
    fails(words, str(out / "checkpoint.pt"), "No space left")
    assert load_network(out)[1].model == "resnet20"
    for kind in ("torchscript", "pt2"):
        export = [*SENET, "export", "--checkpoint", str(out), "--format", kind]
        fails(export, str(out), "No space left")
    assert {path.name for path in out.iterdir()} == {"checkpoint.pt"}
    roomy = shutil.copytree(out, tmp_path / "roomy")
    subprocess.run([*TRAIN, "--data", tiny_data, "--out", str(roomy)], check=True)
    assert load_run(roomy).recipe["epochs"] == 4


def test_a_limit_on_memory_is_said_in_one_line(tiny_data, tmp_path):
    """`ulimit -v`: enough to start, too little for a large network, or even to plan it."""
    out = tmp_path / "run"
    words = [*TRAIN, "--data", tiny_data, "--out", str(out), "--model", "wrn16_8"]
    code = (
        "import resource, sys, torch, senet_lib.training.fit\n"
        "from senet_lib.cli import main\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    fails([sys.executable, "-c", code, *words[3:]], "memory")


def test_of_four_processes_on_one_folder_one_trains(start, tiny_data, tmp_path):
    started = [start(train, tiny_data, tmp_path / "run") for _ in range(4)]
    for process in started:
        process.join()
    assert any(process.exitcode == 0 for process in started)
    load_run(tmp_path / "run").verify()
    assert len(list((tmp_path / "run").iterdir())) == 4


def test_of_two_notebooks_on_one_output_the_second_is_refused(tmp_path):
    notebook = nbformat.v4.new_notebook()
    cells = ("seconds = 20  # how long\nname = 'a'  # which", "import time; time.sleep(seconds)",
             "print(name)")  # fmt: skip
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook.cells[0].metadata.tags = ["parameters"]
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, tmp_path / "n.ipynb")
    out = tmp_path / "out" / "o.ipynb"
    words = [*SENET, "notebook", str(tmp_path / "n.ipynb"), "--out", str(out)]
    first = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (out.parent / f".{out.name}.lock").exists():
        assert first.poll() is None
        time.sleep(0.05)
    fails([*words, "-p", "name=b"], str(out), "another process")
    assert first.wait() == 0
    assert [Path(path).name for path in out.parent.iterdir()] == ["o.ipynb"]
    cells = nbformat.read(out, as_version=4).cells
    assert cells[-1].outputs[0].text == "a\n"
