"""What is kept in git: no home paths, no large files, no broken links, nothing that is cleaned."""

import re
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 5 * 1024 * 1024
# Put together here, so that this file does not hold what it looks for.
HOME_PATH = re.compile(
    "(/" + r"home|/Users|C:\\Users)[/\\][A-Za-z0-9_.-]+[/\\]|(?<![\w.$~}])/" + r"root/"
)


def tracked() -> list[Path]:
    """Every file git tracks; skips the test outside a checkout, as in an unpacked archive."""
    words = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        listing = subprocess.run(words, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.SubprocessError):
        pytest.skip("not in a git checkout")
    return [path for name in listing.split("\0") if (path := ROOT / name).is_file()]


def test_no_tracked_file_names_a_home_folder_or_is_large():
    assert HOME_PATH.search("/" + "home/someone/data")
    assert not HOME_PATH.search("outputs/runs/" + "root/x")
    assert tracked()
    for path in tracked():
        assert path.stat().st_size < MAX_BYTES, path
        with suppress(UnicodeDecodeError):
            assert not HOME_PATH.search(path.read_text(encoding="utf-8")), path


def headings(page: Path) -> set[str]:
    """The places in a page of Markdown that a link can lead to, as its headings give them."""
    heads = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_links_of_the_documents_lead_somewhere():
    broken = []
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        text = page.read_text(encoding="utf-8")
        for target, place in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text):
            there = page.parent / target if target else page
            if "://" in target or (there.exists() and not place):
                continue
            if not there.exists() or place not in headings(there):
                broken.append(f"{page.name}: {target}#{place}")
    assert not broken


def test_a_study_that_is_not_there_is_said_before_anything_is_installed(tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "smoke.yaml").touch()
    make = ["make", "-C", str(tmp_path), "study", "STUDY=smok"]
    done = subprocess.run(make, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no study 'smok'; there are: smoke" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("target", ["clean", "clean-runs", "distclean"])
def test_cleaning_spares_what_is_published(target, tmp_path):
    made = ["outputs/runs/a/record.json", "outputs/reports/a/index.html", "build/x",
            "senet_lib/__pycache__/x.pyc"]  # fmt: skip
    kept = ["outputs/published/a/record.json", "outputs/published/__pycache__/x", "senet_lib/x.py"]
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in made + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "-s", "-C", str(tmp_path), target], check=True, capture_output=True)
    assert all((tmp_path / name).exists() for name in kept)
    left = [name for name in made if (tmp_path / name).exists()]
    assert left == ([] if target == "clean-runs" else made[:1])
