"""Output files come into being whole, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

import dcformat
from dcformat.errors import FormatError
from dcformat.files import check_output, replacing
from dcformat.model import Model, Tensor
from tests.format.strategies import small_model


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.dcf"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_model_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.dcf"
    dcformat.save(small_model(), path)
    before = path.read_bytes()
    bad = Tensor("w", (1,), "float32", np.array([np.nan], "<f4"))
    with pytest.raises(FormatError):
        dcformat.save(Model({"w": bad}), path)
    assert path.read_bytes() == before == dcformat.dumps(small_model())
    assert len(list(tmp_path.iterdir())) == 1


def test_permissions_are_kept_and_new_ones_follow_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    path.chmod(0o640)
    with replacing(path) as file:
        file.write(b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "b") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["missing/a.dcf", "file/a.dcf", "."])
def test_where_nothing_can_be_written_the_error_names_the_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    for attempt in (check_output, lambda path: replacing(path).__enter__()):
        with pytest.raises(OSError) as caught:
            attempt(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_device_is_written_to_as_it_is() -> None:
    dcformat.save(small_model(), "/dev/null")
    assert Path("/dev/null").is_char_device()
