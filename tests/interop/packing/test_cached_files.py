"""Files in the cache of Hugging Face must have the digests by which it names them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from dcformat_interop import UnfitError, read_checkpoint
from dcformat_interop.packing.cached_files import check_cached_files
from dcformat_interop.packing.shards import find_shards

from tests.interop.packing.checkpoints import INDEX, write

FIRST = "model-00001-of-00003.safetensors"


def digest(path: Path) -> str:
    """Return the name of a file in the cache: large files are kept apart from git, an index is not."""
    data = path.read_bytes()
    if path.name == INDEX:
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    write(tmp_path / "files")
    blobs, folder = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    for path in (tmp_path / "files").iterdir():
        name = digest(path)
        path.rename(blobs / name)
        (folder / path.name).symlink_to(Path("..") / ".." / "blobs" / name)
    return folder


def test_whole_files(snapshot: Path) -> None:
    seen = list[tuple[int, int, str]]()

    def note(done: int, total: int, name: str) -> None:
        seen.append((done, total, name))

    check_cached_files(find_shards(snapshot), note)
    assert [step[:2] for step in seen] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [step[2] for step in seen[::3]] == [FIRST, INDEX]
    check_cached_files(find_shards(snapshot / INDEX))
    check_cached_files(find_shards(snapshot / FIRST))


def test_a_shard_of_the_same_names_and_shapes(snapshot: Path) -> None:
    """A flipped bit plays the weights of another checkpoint: headers and index agree, only the digest does not."""
    blob = (snapshot / FIRST).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    message = (
        f"{snapshot / FIRST}: expected the content whose SHA256 the cache states, {blob.name}, "
        f"found {found}: remove {blob} and download it again"
    )
    for path in (snapshot, snapshot / INDEX, snapshot / FIRST):
        with pytest.raises(UnfitError, match=f"^{re.escape(message)}$"):
            check_cached_files(find_shards(path))
    with pytest.raises(UnfitError, match=f"^{re.escape(message)}$"):
        read_checkpoint(snapshot)


def test_an_index_that_was_altered(snapshot: Path) -> None:
    blob = (snapshot / INDEX).resolve()
    blob.write_bytes(blob.read_bytes() + b"\n")
    with pytest.raises(UnfitError, match=f"{INDEX}: expected the content whose SHA1 the cache states, {blob.name}"):
        check_cached_files(find_shards(snapshot))


@pytest.mark.parametrize("target", ["blobs/weights", f"blobs/{'f' * 39}", f"blobs/{'F' * 64}", "0" * 64])
def test_names_that_are_no_digests(tmp_path: Path, target: str) -> None:
    write(tmp_path / "files")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "files" / FIRST).rename(tmp_path / target)
    (tmp_path / "model.safetensors").symlink_to(target)
    check_cached_files(find_shards(tmp_path / "model.safetensors"))


def test_files_that_are_no_links(tmp_path: Path) -> None:
    write(tmp_path / "blobs")
    path = tmp_path / "blobs" / ("0" * 64)
    (tmp_path / "blobs" / FIRST).rename(path)
    check_cached_files(find_shards(path))
