"""The wheel and the source distribution: the files that they contain and leave out, and the one version number."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import dcformat

ROOT = Path(__file__).resolve().parents[2]


#: Folders of the source distribution: the packages, and what tests and documents refer to.
FOLDERS = (
    "benchmarks",
    "cli",
    "data",
    "dcformat",
    "docs",
    "fuzz",
    "interop",
    "models",
    "packaging",
    "pruning",
    "runtime",
    "spec",
    "tests",
)
FILES = (
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "constraints.txt",
    "constraints-lowest.txt", "mkdocs.yml", "pyproject.toml",
)  # fmt: skip


def build(target: str, directory: Path) -> Path:
    arguments = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(directory)]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = directory.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


@pytest.mark.slow
def test_the_source_distribution_is_the_whole_tree(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        top = f"dcformat-{dcformat.__version__}"
        held = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    kinds = {
        ".css", ".csv", ".dcf", ".gz", ".hex", ".ipynb", ".js", ".json", ".md", ".png", ".py", ".sh", ".svg", ".toml",
        ".txt", ".typed",
    }  # fmt: skip
    expected = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds and "__pycache__" not in path.parts and ROOT / "fuzz" / "work" not in path.parents
    }
    assert expected | {*FILES, "PKG-INFO", ".gitignore", ".ci/run"} <= held
    assert {name for name in expected if name.startswith("data/mnist/")} == {
        "data/mnist/t10k-images-idx3-ubyte.gz", "data/mnist/t10k-labels-idx1-ubyte.gz",
        "data/mnist/train-images-idx3-ubyte.gz", "data/mnist/train-labels-idx1-ubyte.gz",
    }  # fmt: skip
    assert {"docs/result.png", "docs/study-criteria.png", "models/lenet-5.dcf"} <= held


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    packages = {"dcformat", "dcformat_runtime", "dcformat_interop", "dcformat_cli", "dcformat_pruning"}
    assert tops == packages | {f"dcformat-{dcformat.__version__}.dist-info"}
    assert {f"{package}/py.typed" for package in packages} <= set(wheel.namelist())


def test_every_module_of_the_tree_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    rooms = ("runtime", "interop", "cli", "pruning")
    for package in (ROOT / "dcformat", *(ROOT / room / f"dcformat_{room}" for room in rooms)):
        for path in package.rglob("*.py"):
            assert path.relative_to(package.parent).as_posix() in wheel.namelist()


def test_the_metadata(wheel: zipfile.ZipFile) -> None:
    info = f"dcformat-{dcformat.__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert f"Version: {dcformat.__version__}" in metadata
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert "dcformat = dcformat_cli.entry:main" in wheel.read(f"{info}/entry_points.txt").decode()
    text = metadata.partition("\n\n")[2]
    assert text.startswith("# dcformat\n")
    assert "| LeNet-5 | record |" in text
    assert set(re.findall(r"\]\((\w+)", text)) == {"https"}, "an index page has no files of the repository"
    base = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not any("torch" in line for line in base)


def test_a_repository_with_an_address() -> None:
    home = "https://example.org/dcformat"
    hook = runpy.run_path(str(ROOT / "packaging" / "readme_hook.py"))
    readme = (ROOT / "README.md").read_text("utf-8")
    text = hook["description"](readme, home)
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert f"{home}/raw/HEAD/docs/result.png" in targets
    assert f"{home}/blob/HEAD/docs/faq.md" in targets
    assert all(target.startswith(("https://", "#")) for target in targets)
    local = [target for target in re.findall(r"\]\(([^)]*)\)", readme) if not target.startswith(("http", "#"))]
    assert len(local) == sum(target.startswith(home) for target in targets)
    assert hook["urls"](home) == {
        "Source": home, "Documentation": f"{home}/blob/HEAD/docs/README.md",
        "Changelog": f"{home}/blob/HEAD/CHANGELOG.md", "Issues": f"{home}/issues",
    }  # fmt: skip
    assert hook["urls"]("") == {}


def test_the_extras_are_listed(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read(f"dcformat-{dcformat.__version__}.dist-info/METADATA").decode()
    extras = set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE))
    assert extras == set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    readme = (ROOT / "README.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE)) >= extras - {"dev"}


def test_there_is_one_version_number() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "dcformat/__init__.py"
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {dcformat.__version__}" in changelog


def test_the_lowest_constraints_are_the_lower_ends_of_the_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lower = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(ranges), re.MULTILINE))
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE))
    assert set(re.findall(r"^[\w-]+", "\n".join(project["dependencies"]), re.MULTILINE)) <= set(pins)
    for name, pin in pins.items():
        if name != "llvmlite":  # It comes with its Numba.
            assert (pin + ".0").startswith(lower[name] + "."), name
