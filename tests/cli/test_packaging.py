"""The wheel: what is in it, what is not, and one version number."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import dcformat

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    directory = tmp_path_factory.mktemp("wheel")
    arguments = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (path,) = directory.iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


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
    assert "dcformat = dcformat_cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()
    base = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not any("torch" in line for line in base)


def test_there_is_one_version_number() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "dcformat/__init__.py"
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {dcformat.__version__}" in changelog
