"""Caches of machine code that a process has filled."""

import shutil

import pytest

from tests.jit.processes import RIGHT, run


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """Return a cache folder that a process has filled."""
    cache = tmp_path_factory.mktemp("cache")
    first = run(cache)
    assert first["out"] == RIGHT
    assert first["states"] == ["compiled"] * 6
    return cache


@pytest.fixture
def cache(filled, tmp_path):
    """Return a copy of `filled`, which a test may damage."""
    shutil.copytree(filled / "kernels", tmp_path / "kernels")
    return tmp_path
