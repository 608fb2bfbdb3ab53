"""The files that describe the installation say the same thing: names, bounds, pins and versions."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
EVERYTHING = [*PROJECT["dependencies"], *chain(*EXTRAS.values())]

# conda's name of a package, where it is another than pip's.
PIP_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "snakemake-minimal": "snakemake"}
# The import name, where it is another than the distribution's.
IMPORT_NAMES = {
    "grad-cam": "pytorch_grad_cam", "scikit-learn": "sklearn", "pyyaml": "yaml",
    "ipython": "IPython", "pytest-xdist": "xdist",
}  # fmt: skip
# All that training, evaluation and run records may import. Pillow comes with torchvision, and
# filelock with torch.
BARE = {"torch", "torchvision", "numpy", "yaml", "safetensors", "tqdm", "PIL", "filelock"}


def bounds(requirements: Iterable[str]) -> dict[str, SpecifierSet]:
    """Specifier by canonical name."""
    parsed = [Requirement(line) for line in requirements]
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def pins() -> dict[str, Version]:
    """Pinned version by canonical name, from constraints.txt; each is there once, and no GPU's."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = re.findall(r"^([^#\s]+)==(\S+)", text, re.MULTILINE)
    found = {canonicalize_name(name): Version(version) for name, version in lines}
    assert len(found) == len(lines) == len(re.findall(r"^[^#\s]", text, re.MULTILINE))
    assert not [name for name in found if re.match(r"nvidia|cuda|triton", name)]
    return found


def third_party(folder: str) -> dict[str, str]:
    """Imported name -> one file that imports it, without ours and the standard library."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    ours, found = sys.stdlib_module_names | {"senet_lib", *(path.stem for path in paths)}, {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            tops = {name.partition(".")[0] for name in names}
            found |= {name: str(path.relative_to(ROOT)) for name in tops - ours}
    return found


def import_name(distribution: str) -> str:
    return IMPORT_NAMES.get(distribution, distribution.replace("-", "_"))


def test_conda_environment_has_the_names_and_bounds_of_pyproject():
    wanted = bounds(PROJECT["dependencies"])
    wanted["python"] = SpecifierSet(PROJECT["requires-python"])
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert content["name"] == "senet"
    *lines, ours = content["dependencies"]
    assert ours == {"pip": ["-e ."]}  # the package itself
    requirements = [Requirement(line) for line in lines if line != "pip"]
    found = {PIP_NAMES.get(r.name, r.name): r.specifier for r in requirements}
    assert {canonicalize_name(name): bound for name, bound in found.items()} == wanted


@pytest.mark.parametrize("group", ["", *EXTRAS])
def test_every_requirement_has_a_lower_bound_and_a_pin_that_satisfies_it(group):
    lines = EXTRAS[group] if group else PROJECT["dependencies"]
    pinned = pins()
    for name, specifier in bounds(lines).items():
        assert [s.operator for s in specifier] == [">="], name
        assert pinned[name] in specifier, name
        if group in ("", "dev"):
            assert metadata.version(name) in specifier, name


def test_version_is_the_same_everywhere():
    import senet_lib

    assert PROJECT["dynamic"] == ["version"]
    assert PROJECT["scripts"] == {"senet": "senet_lib.cli:main"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.search(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)
    assert latest is not None, "CHANGELOG.md names no version"
    assert latest[1] == str(citation["version"]) == senet_lib.__version__


@pytest.mark.parametrize(
    ("folder", "groups"), [("senet_lib", ("cluster", "export", "sweep", "timm")), ("tests", EXTRAS)]
)
def test_what_is_imported_is_declared(folder, groups):
    lines = chain(PROJECT["dependencies"], *(EXTRAS[group] for group in groups))
    declared = {import_name(name) for name in bounds(lines)} | BARE
    assert not {n: file for n, file in third_party(folder).items() if n not in declared}


def test_training_imports_only_the_bare_packages():
    """In a fresh interpreter in which every other package of ours is as good as not installed."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split()))\n"
        "import senet_lib, senet_lib.cli, senet_lib.training.fit, senet_lib.data\n"
        "import senet_lib.runs.records; print(*sorted(senet_lib.list_models('*res2net29')))\n"
    )
    forbidden = {import_name(name) for name in bounds(EVERYTHING)} - BARE
    words = [sys.executable, "-c", code, " ".join(sorted(forbidden))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["res2net29", "se_res2net29"]


def test_what_starts_a_study_or_a_notebook_does_without_torch():
    """It would be in memory, 440 MB of it, for as long as they take."""
    code = ["import sys; sys.modules['torch'] = None", "import senet_lib.workflow"]
    snakefile = (ROOT / "Snakefile").read_text(encoding="utf-8")
    code += [line for line in snakefile.splitlines() if line.startswith("from senet_lib")]
    assert len(code) > 2
    subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=ROOT, check=True)


def test_every_data_file_of_the_package_is_covered_by_package_data():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = content["tool"]["setuptools"]["package-data"]["senet_lib"]
    package, code = ROOT / "senet_lib", (".py", ".pyc", ".typed")
    covered = {path for pattern in patterns for path in package.glob(pattern)}
    others = {p for p in package.rglob("*") if p.is_file() and p.suffix not in code}
    assert not others - covered
