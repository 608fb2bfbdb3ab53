"""The commands that README.md and docs/*.md show are understood, and run as they are written."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from browser import chromium  # noqa: F401 (a fixture)
from fake_runs import save_shapes
from PIL import Image

from senet_lib import cli
from senet_lib.data.datasets import data_dir, load_data

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
# What is read and not run, by how it begins.
NOT_RUN = (
    "make test",  # would run this again
    "make study STUDY=",  # hours; `make study` with a file that test_workflow.py reads
    "make docs",  # the last test here
    *("make lab", "senet lab", "make app", "tensorboard"),  # servers, in tests of their own
    *("pip install", "conda"),  # need a network
    *("snakemake --workflow-profile", "sbatch"),  # need a cluster: tests/faults/test_slurm.py
)
# The other pages take minutes each; with SENET_DOCS=full all of them are run.
FULL = os.environ.get("SENET_DOCS") == "full"
ALWAYS = ("own-attention.md",)
rarely = pytest.mark.skipif(not FULL, reason="SENET_DOCS=full runs the commands of this page")
RUN_ALL_THE_SAME = "make study STUDY=own"
ALONE = ("digits.md", "sweeps.md")  # asked more of, in tests of their own
# Behind a training that would take hours, or several networks on all drawn images.
SHORT = "--data few.npz --train-images 32 --epochs 1 --schedule --progress none"
TRAINING = re.compile(r"(senet|python -m senet_lib\.cli) train ")


def shown(page: str) -> list[str]:
    """The lines of a page's shell blocks, without comments."""
    blocks = "".join(re.findall(r"(?ms)^```sh\n(.*?)^```", PAGES[page].read_text("utf-8")))
    lines = (re.sub(r"(^|\s+)#.*", "", line) for line in blocks.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


def mentioned(page: str) -> list[str]:
    """The commands of ours within a page's sentences and tables."""
    text = re.sub(r"(?ms)^```.*?^```", "", PAGES[page].read_text("utf-8"))
    ours = r"`((?:senet [a-z]|make [a-z]|python (?:docs|benchmarks)/|snakemake )[^`]*)`"
    return [line.replace(" ...", "") for line in re.findall(ours, text)]


def program(line: str) -> list[str]:
    """The words of a command, without what is set for it alone."""
    return shlex.split(re.sub(r"^(\w+=\S* )+", "", line))


def runs(line: str) -> bool:
    command = shlex.join(program(line))
    if command == "senet data cifar10":
        return (data_dir() / "cifar10.npz").is_file()
    return command == RUN_ALL_THE_SAME or not any(map(command.startswith, NOT_RUN))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_understood(page, capsys):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for line in shown(page) + mentioned(page):
        name, *words = program(line)
        files = [w for w in words if re.match(r"(configs|profiles|benchmarks|docs)/", w)]
        files += [w for w in words if re.fullmatch(r"\w+\.(ya?ml|txt)", w)]
        assert all((ROOT / file).exists() for file in files), line
        if name == "senet" and words[0] in ("study", "sweep") and "." not in words[1]:
            assert (ROOT / "configs" / f"{words[1]}.yaml").is_file(), line
        if name == "python" and words[0].startswith(("benchmarks/", "docs/")):
            text = (ROOT / words[0]).read_text("utf-8")
            assert all(f'"{word}"' in text for word in words if word.startswith("--")), line
        if name == "senet" or words[:2] == ["-m", "senet_lib.cli"]:
            words = words if name == "senet" else words[2:]
            with suppress(SystemExit):  # of --help; of a mistake there is a line
                cli.make_parser().parse_args(words if len(words) > 1 else [*words, "--help"])
            assert not (error := capsys.readouterr().err), (line, error)
        elif name == "make":
            assert words[0] in targets, line
            for study in re.findall(r"STUDY=([a-z]\w*)", line):
                assert (ROOT / "configs" / f"{study}.yaml").is_file(), line
        else:
            assert name in ("python", "pip", "conda", "snakemake", "sbatch", "tensorboard"), line
            for extra in re.findall(r"\.\[(\w+)\]", line):
                assert extra in extras["optional-dependencies"], line


@pytest.fixture
def clone(tmp_path) -> Path:
    """What git has, with an environment, few images, and studies of one epoch on them."""
    for name in ("senet_lib", "notebooks", "configs", "profiles", "docs", "outputs/published"):
        ignored = shutil.ignore_patterns("__pycache__", "api")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    (tmp_path / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        (tmp_path / ".venv" / path.name).symlink_to(path)
    (tmp_path / ".venv" / ".installed").unlink(missing_ok=True)  # the environment's own mark
    (tmp_path / ".venv" / ".installed").touch()
    few = load_data(save_shapes(tmp_path / "few.npz", 80, 60))
    Image.fromarray(few.x_test[0]).save(tmp_path / "picture.png")
    for path in tmp_path.glob("configs/*.yaml"):
        study = smaller(yaml.safe_load(path.read_text("utf-8")))
        path.write_text(yaml.safe_dump(study), "utf-8")
    return tmp_path


def smaller(study: dict) -> dict:
    """The study, or the sweep, over one epoch of few images."""
    recipe = study.get("recipe", {}) | {"epochs": 1, "batch_size": 16, "schedule": []}
    recipe.pop("train_images", None)
    study |= {"models": ["resnet20"], "data": "few.npz", "recipe": recipe}
    if study["study"] == "sweep":
        return study | {"num_val": 16, "trials": 3, "pruner": "none", "space": {"lr": [0.01, 0.1]}}
    study |= {"seeds": study["seeds"][:1], "gradcam": [], "excitation": [], "axes": []}
    study |= {"more_seeds": [], "more_seeds_of": []}
    if study["study"] == "own":
        networks = ["resnet20", "se_resnet20", "resnet20+attention=alone"]
        study |= {"models": networks, "axes": ["attention"]}
    return study | {"compile": "off"}


def shortened(line: str) -> str:
    """The line; a training that would take hours with settings behind it that make it short."""
    if not TRAINING.match(line):
        return line
    if "--out" not in line and "--seeds" not in line and "--config" not in line:
        line += f" --out outputs/runs/paper/{re.search('--model ([^ ]+)', line)[1]}/seed0"
    return f"{line} {SHORT}" + " --val 16" * ("--val" in line)


def run(line: str, folder: Path) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "BROWSER": "true",
        **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),  # no network
    }
    how = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(["bash", "-c", line], **how)
    assert done.returncode == 0, (line, done.stdout[-1000:], done.stderr[-2000:])
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=() if p in ALWAYS else rarely) for p in PAGES if p not in ALONE]
)
def test_every_command_of_a_page_runs(page, clone):
    for package in ("snakemake", "onnxruntime", "tensorboard", "optuna"):
        pytest.importorskip(package)
    for line in filter(runs, shown(page)):
        run(shortened(line), clone)
    if page == "own-attention.md":
        found = clone / "outputs" / "reports" / "own" / "ablation-attention.html"
        assert "alone" in found.read_text("utf-8")
        kept = clone / "outputs/runs/own/resnet20+attention=alone/seed0/record.json"
        assert list(json.loads(kept.read_text("utf-8"))["plugins"]) == ["own_attention.py"]


def python_of(page: str) -> str:
    """What a page's blocks of Python say, one after the other."""
    return "\n".join(re.findall(r"(?ms)^```python\n(.*?)^```", PAGES[page].read_text("utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",  # that of maps takes minutes
    [
        pytest.param(p, marks=rarely if p == "maps.md" else ())
        for p in PAGES
        if python_of(p) and p != "digits.md"  # which is run after its commands
    ],
)
def test_the_python_of_a_page_runs(page, clone):
    for package in ("timm", "optuna"):
        pytest.importorskip(package)
    if page == "maps.md" and not (data_dir() / "cifar10.npz").is_file():
        pytest.skip("CIFAR-10 is not here")
    shutil.copytree(clone / "outputs/published/runs", clone / "outputs/runs")
    (clone / "page.py").write_text(python_of(page), "utf-8")
    run("python page.py", clone)


@rarely
@pytest.mark.slow
def test_a_sweep_its_notebook_and_a_network_of_another_library(clone):
    pytest.importorskip("optuna")
    said = [run(shortened(line), clone) for line in filter(runs, shown("sweeps.md"))]
    assert len(said) == 8
    assert len(re.findall(r"^trial\d: error ", said[0], re.MULTILINE)) == 3
    assert "senet train --study sweep" in said[1].splitlines()[-1]
    assert said[2].count("finished") == 3
    assert (clone / "outputs" / "reports" / "sweep" / "index.html").is_file()
    assert len(said[4].splitlines()) > 3
    rows = [line.split() for line in said[5].splitlines() if line.startswith("torchvision:")]
    large, small = (int(row[2].replace(",", "")) for row in rows)  # MACs
    assert 2 * small < large < 4 * small  # of 128x128 and of 64x64 pixels
    assert (clone / "outputs" / "figures" / "mobilenet" / "index.html").is_file()


@pytest.mark.slow
def test_from_a_folder_of_digits_to_a_network_elsewhere(clone):
    pytest.importorskip("sklearn")
    pytest.importorskip("onnxruntime")
    said = [run(line, clone) for line in shown("digits.md")]
    assert len(said) == 6
    assert float(re.search(r"error ([\d.]+) %", said[2])[1]) < 10
    assert "they agree" in said[2]
    assert (clone / "outputs" / "figures" / "digits" / "index.html").is_file()
    three, seven = said[5].splitlines()[1:]
    assert "three" in three.split("0045.png")[1].split("%")[0]
    assert "seven" in seven.split("0350.png")[1].split("%")[0]
    (clone / "page.py").write_text(python_of("digits.md"), "utf-8")
    assert run("python page.py", clone) == "three\n"


@cache
def content(page: Path) -> str:
    return page.read_text("utf-8", errors="replace")


def broken(page: Path, folder: Path) -> list[str]:
    """What a page links to and is not there: files, places in them, and other machines' files."""
    found = []
    for tag, address in re.findall(r"<(\w+)\b[^>]*?\s(?:href|src)=\"([^\"]*)\"", content(page)):
        link = urlsplit(address)
        target = (page.parent / unquote(link.path) if link.path else page).resolve()
        place = f'id="{unquote(link.fragment)}"' if link.fragment else ""
        if link.scheme or link.netloc:
            there = tag == "a"
        else:
            there = target.is_file() and folder in target.parents and place in content(target)
        found += [] if there else [address]
    return found


@pytest.mark.slow
@pytest.mark.browser
def test_the_pages_have_no_broken_link_and_ask_no_other_machine(clone, chromium):  # noqa: F811
    pytest.importorskip("sphinx")
    run("make docs", clone)
    folder = clone / "outputs" / "docs"
    made = [*folder.glob("*.html"), *folder.glob("api/*.html")]
    assert {"index", "numbers", "faq", "senet_lib.analysis.cam"} <= {page.stem for page in made}
    modules = [path for path in (clone / "senet_lib").rglob("*.py") if path.stem != "__main__"]
    assert len([*folder.glob("api/*.html")]) == len(modules)
    assert not {page.name: found for page in made if (found := broken(page, folder.resolve()))}
    page, asked = chromium.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    for name, part in (("numbers", "math"), ("api/senet_lib.analysis.cam", "dt.sig")):
        page.goto((folder / f"{name}.html").as_uri())
        assert page.locator(part).count() > 5
    page.goto((folder / "search.html").as_uri() + "?q=Dunnett")
    page.locator("ul.search li").first.wait_for()
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
