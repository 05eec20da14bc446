"""Sharded checkpoints are found and read, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dcformat_interop import UnfitError, read_checkpoint
from dcformat_interop.packing.packed_files import opened_files
from dcformat_interop.packing.shards import find_shards, is_streamed, size_note

from tests.interop.packing.checkpoints import INDEX, arrays, safetensors, write


def names(path: Path) -> list[str]:
    return [entry.name for shard in find_shards(path).shards for entry in shard.layout.entries]


def test_a_directory_an_index_and_a_file(tmp_path: Path) -> None:
    everything = write(tmp_path / "in")
    assert names(tmp_path / "in") == names(tmp_path / "in" / INDEX) == list(everything)
    one = tmp_path / "in" / "model-00002-of-00003.safetensors"
    assert names(one) == list(arrays(1))
    assert find_shards(tmp_path / "in").metadata == {"format": "pt"}
    assert all(map(is_streamed, (tmp_path / "in", tmp_path / "in" / INDEX, one)))
    (tmp_path / "other").write_bytes(b"PK\3\4 and so on")
    assert not is_streamed(tmp_path / "other") and not is_streamed(tmp_path / "missing")


def test_a_directory_without_an_index(tmp_path: Path) -> None:
    everything = write(tmp_path)
    (tmp_path / INDEX).unlink()
    assert names(tmp_path) == list(everything)
    (tmp_path / "zz.safetensors").write_bytes(safetensors(arrays(1)))
    with pytest.raises(UnfitError, match=r"1.weight: expected each tensor in one file, not in model-00002-of-00003"):
        find_shards(tmp_path)


def test_a_snapshot_whose_files_are_links(tmp_path: Path) -> None:
    everything = write(tmp_path / "files")
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "files").iterdir())):
        path.rename(blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / f"{number:040x}")
    assert names(snapshot) == names(snapshot / INDEX) == list(everything)
    (blobs / f"{0:040x}").unlink()
    with pytest.raises(UnfitError, match=r"the file 'model-00001-of-00003\.safetensors', which the index names"):
        find_shards(snapshot)


def change(directory: Path, **changes: Any) -> None:
    """Change the files of tensors in an index; None removes a tensor."""
    index = json.loads((directory / INDEX).read_text())
    for name, file in changes.items():
        if file is None:
            del index["weight_map"][name]
        else:
            index["weight_map"][name] = file
    (directory / INDEX).write_text(json.dumps(index))


FIRST, SECOND = "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.weight": SECOND}, f"0.weight: expected the tensor in {SECOND}, where the index has it, found it in"),
        ({"more": FIRST}, f"more: expected the tensor in {FIRST}, where the index has it, found a file without it"),
        ({"0.weight": None}, f"0.weight: expected an index that names every tensor of its files, found none for this "
         f"one in {FIRST}"),
        ({"0.weight": None, "0.half": None}, "(and 1 more)"),
        ({"x": "../secret.safetensors"}, "expected names of files in the directory of the index, found '../secret"),
        ({"x": "/etc/passwd"}, "found '/etc/passwd'"),
        ({"x": "C:\\x"}, "expected names of files in the directory of the index"),
        ({"x": "a/../../b"}, "expected names of files in the directory of the index"),
        ({"x": ""}, "expected names of files in the directory of the index"),
        ({"x": "gone.safetensors"}, "expected the file 'gone.safetensors', which the index names, found none"),
        ({"x": 5}, "expected an index with a weight_map of tensors to files"),
    ],
)  # fmt: skip
def test_an_index_that_lies(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(UnfitError) as error:
        find_shards(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": {"a": "x", "a": "y"}}',
        '{"weight_map": {}}',
        '{"weight_map": [1]}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_an_index_that_is_damaged(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / INDEX).write_text(text, "latin-1")
    with pytest.raises(UnfitError, match="expected an index with a weight_map of tensors to files"):
        find_shards(tmp_path)


def test_a_shard_swapped_for_another(tmp_path: Path) -> None:
    write(tmp_path)
    one, two = (tmp_path / name for name in (FIRST, SECOND))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    with pytest.raises(UnfitError, match=f"0.weight: expected the tensor in {FIRST}, where the index has it"):
        find_shards(tmp_path)
    two.write_bytes(first)
    with pytest.raises(UnfitError, match=r"0\.weight: .*, found it in model-00002"):
        find_shards(tmp_path)


def test_a_truncated_download(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / SECOND
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(UnfitError, match=r"00002-of-00003.safetensors: expected .* bytes of data, found .* truncated"):
        find_shards(tmp_path)
    path.write_bytes(whole[:200])
    with pytest.raises(UnfitError, match=r"expected a header of .* bytes, found 192: the file is truncated"):
        find_shards(tmp_path)
    path.write_bytes(whole + b"x")
    with pytest.raises(UnfitError, match="bytes of data, found"):
        find_shards(tmp_path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(UnfitError, match="found looks like a Git LFS pointer"):
        find_shards(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(UnfitError, match="expected a safetensors file, found other bytes"):
        find_shards(tmp_path)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), "found an empty one$"),
        (
            ("saved_model.pb", "variables.index"),
            "found a TensorFlow SavedModel: convert it to TensorFlow Lite or ONNX$",
        ),
        (("Manifest.json", "model.bin"), "found a Core ML package: give the model that it was made from$"),
        ((".metadata", "__0_0.distcp"), "found a distributed checkpoint of PyTorch: .*dcp_to_torch_save$"),
        (("config.json", "pytorch_model.bin"), r"found pytorch_model\.bin: give the file$"),
        (("a.BIN", "b.dcf", "c.txt"), r"found a\.BIN and 1 more: give the file$"),
        (("a.npy", "b", "c\n"), r"found only a\.npy and 2 more$"),
    ],
)
def test_directories_of_other_kinds(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    for read in (find_shards, read_checkpoint):
        with pytest.raises(UnfitError, match=found):
            read(tmp_path)


def test_a_directory_as_one_checkpoint(tmp_path: Path) -> None:
    everything = write(tmp_path / "in")
    for path in (tmp_path / "in", tmp_path / "in" / INDEX):
        read = read_checkpoint(path, skip=["*.weight"])
        assert read.path == str(path) and read.metadata == {"format": "pt"}
        assert set(read.left_out) == {name for name in everything if name.endswith(".weight")}
        assert set(read.tensors) | set(read.left_out) == set(everything)
    with pytest.raises(UnfitError, match="at most"):
        read_checkpoint(tmp_path / "in", max_memory=1000)


def test_directories_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="expected a directory with safetensors files or an index"):
        find_shards(tmp_path)
    write(tmp_path)
    (tmp_path / "other.safetensors.index.json").write_bytes((tmp_path / INDEX).read_bytes())
    with pytest.raises(UnfitError, match="expected a directory with one index, or the index itself, found several"):
        find_shards(tmp_path)


@pytest.mark.parametrize(
    ("stated", "shown"), [(1234, "1,234"), ("12 GB", "'12 GB'"), (["x" * 99], "['xxx"), (-1, "-1")]
)
def test_another_total_size_is_noted(tmp_path: Path, stated: object, shown: str) -> None:
    write(tmp_path)
    assert size_note(find_shards(tmp_path)) is None
    index = json.loads((tmp_path / INDEX).read_text())
    index["metadata"]["total_size"] = stated
    (tmp_path / INDEX).write_text(json.dumps(index))
    found = size_note(find_shards(tmp_path))
    assert found is not None and found.startswith(f"the index states {shown}") and len(found) < 130


def test_the_memory_of_indexes_and_headers_is_counted(tmp_path: Path) -> None:
    write(tmp_path)
    index = (tmp_path / INDEX).stat().st_size
    with pytest.raises(UnfitError, match=rf"{INDEX}: .* takes at most 99 bytes .*found one that takes {48 * index:,}"):
        find_shards(tmp_path, max_memory=99)
    header = int.from_bytes((tmp_path / FIRST).read_bytes()[:8], "little")
    with pytest.raises(UnfitError, match=rf": header: .*found one that takes {48 * (index + header):,} or more"):
        find_shards(tmp_path, max_memory=48 * (index + header) - 1)
    headers = sum(len(shard.layout.header) for shard in find_shards(tmp_path, max_memory=None).shards)
    assert len(find_shards(tmp_path, max_memory=48 * (index + headers)).shards) == 3
    (tmp_path / "a.dcf.index.json").write_text('{"weight_map": {"w": "a.dcf"}}')
    with (
        pytest.raises(UnfitError, match=r"found one that takes 1,440 or more"),
        opened_files(tmp_path, max_memory=1439),
    ):
        pass
