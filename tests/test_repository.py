"""What is kept in git: notebooks without outputs, no home paths, no large files."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 5 * 1024 * 1024
# Put together here, so that this file does not hold what it looks for.
HOME_PATH = re.compile(
    "(/" + r"home|/Users|C:\\Users)[/\\][A-Za-z0-9_.-]+[/\\]|(?<![\w.$~}])/" + r"root/"
)


@cache
def tracked() -> list[Path]:
    """Every file git tracks; skips the test outside a checkout, as in an unpacked archive."""
    try:
        listing = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, timeout=30
        ).stdout.decode()
    except (OSError, subprocess.SubprocessError):
        pytest.skip("not in a git checkout")
    files = [ROOT / name for name in listing.split("\0") if name]
    if not files:
        pytest.skip("nothing is committed yet")
    return [path for path in files if path.is_file()]


def sources() -> list[Path]:
    """The notebooks people edit; executed ones are kept under outputs/published."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_there_are_notebooks():
    assert {"train", "report"} <= {path.stem for path in sources()}


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_notebook_is_committed_without_outputs(path):
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_no_tracked_file_names_a_home_folder():
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {m[0]}" for m in HOME_PATH.finditer(text)]
    assert not found


def test_pattern_of_home_folders_finds_one_and_spares_others():
    assert HOME_PATH.search("/" + "home/someone/data")
    assert HOME_PATH.search('open("/' + 'root/x")')
    assert not HOME_PATH.search("~/.cache/senet")
    assert not HOME_PATH.search("outputs/runs/" + "root/x")


def test_no_tracked_file_is_large():
    large = {str(p.relative_to(ROOT)): p.stat().st_size for p in tracked()}
    assert not {name: size for name, size in large.items() if size >= MAX_BYTES}


def test_nothing_that_is_made_here_is_tracked():
    names = [path.relative_to(ROOT).as_posix() for path in tracked()]
    made = re.compile(
        r"^outputs/(?!published/)|^\.venv/|^\.snakemake/|\.pyc$|\.egg-info/|\.partial\.ipynb$"
    )
    assert not [name for name in names if made.search(name)]


def test_readme_gives_the_two_commands_on_its_first_screen():
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert any(line.strip().startswith("make study") for line in first_screen)
    assert any(line.strip().startswith("make test") for line in first_screen)


def test_links_of_the_documents_lead_somewhere():
    broken = []
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken


def test_a_study_has_the_name_of_its_file():
    """`make study STUDY=x` prints the report's path from the file's name."""
    files = sorted((ROOT / "configs").glob("*.yaml"))
    assert files
    for path in files:
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["study"] == path.stem


def test_makefile_has_the_promised_targets():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert {"help", "study", "test", "lab", "check", "clean"} <= targets


@pytest.mark.parametrize("target", ["clean", "clean-runs", "distclean"])
def test_cleaning_spares_what_is_published(target, tmp_path):
    made = [
        "outputs/runs/a/record.json",
        "outputs/reports/a/index.html",
        "build/x",
        "senet_lib/__pycache__/x.pyc",
    ]
    kept = ["outputs/published/a/record.json", "outputs/published/__pycache__/x", "senet_lib/x.py"]
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in made + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    subprocess.run(
        ["make", "-s", "-C", str(tmp_path), target], check=True, timeout=60, capture_output=True
    )
    assert all((tmp_path / name).exists() for name in kept)
    left = [name for name in made if (tmp_path / name).exists()]
    assert left == ([] if target == "clean-runs" else made[:1])
