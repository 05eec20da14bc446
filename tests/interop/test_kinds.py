"""Files of other kinds are refused by their content, not by their name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dcformat_interop import UnfitError, read_checkpoint
from dcformat_interop.kinds import is_program, looks_like, looks_like_checkpoint

import dcformat
from dcformat.model import Model


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return out.getvalue()


def _zip(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return out.getvalue()


def _npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.ones(3))
    return out.getvalue()


OTHERS = {
    "a .dcf file": dcformat.dumps(Model({"w": dcformat.from_dense("w", np.ones(3, np.float32))})),
    "GGUF": b"GGUF\3\0\0\0" + bytes(100),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "TFLite": b"\x1c\0\0\0TFL3" + bytes(100),
    "ONNX": b"\x08\x07\x12\x07pytorch\x1a\x052.1.0",
    "Core ML: give the model": b"\x08\x04\x12\xa0\x01\n\x10\n\x05image" + bytes(200),
    "a single array": _npy(),
    "gzip": gzip.compress(b"x"),
    "bzip2": bz2.compress(b"x"),
    "xz": lzma.compress(b"x"),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(20),
    "a tar archive": _tar(),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "an HTML": b"<!DOCTYPE html><title>404</title>",
    "a Python pickle": pickle.dumps({"w": np.ones(3)}),
    "a Keras archive": _zip("config.json", "model.weights.h5"),
    "a torch.export program": _zip("m/archive_format", "m/data/weights/model.pt"),
    "a TorchScript archive": _zip("m/data.pkl", "m/code/x.py", "m/constants.pkl"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("suffix", [".pt", ".npz", ".safetensors", ""])
def test_another_kind_is_named(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(OTHERS[kind])
    with pytest.raises(UnfitError, match=rf"a{suffix}: not a checkpoint \(looks like {kind}.*\): give safetensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["ONNX", "TFLite", "a torch.export program"])
def test_a_network_in_a_pipe_is_to_be_a_file(kind: str) -> None:
    with pytest.raises(UnfitError, match=rf"looks like {kind}: give it as a file to dcformat pack\)"):
        read_checkpoint(io.BytesIO(OTHERS[kind]))


def test_a_real_torchscript_archive_and_no_advice_to_load_it_without_care(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "a.pt")
    with pytest.raises(UnfitError, match="TorchScript archive: save the module's state_dict") as caught:
        read_checkpoint(tmp_path / "a.pt")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_archive(tmp_path: Path, share: float) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pt")
    for path in (tmp_path / "a.npz", tmp_path / "a.pt"):
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(UnfitError, match="a damaged zip archive: its end is missing, so the file is truncated"):
            read_checkpoint(path)


def test_whether_a_file_looks_like_a_checkpoint(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:20])
    (tmp_path / "none.npz").write_bytes(b"x")
    found = {path.name: looks_like_checkpoint(path) for path in tmp_path.iterdir()}
    assert found == {"a.npz": True, "cut.npz": False, "none.npz": False}


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"PK\3\4" + bytes(60), "a zip archive, as .npz and PyTorch files are: use dcformat pack"),
        (b"\x1c\0\0\0TFL3" + bytes(60), "TFLite"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "a PNG image"),
        (b"\x08\x08\x12\x0aten letters\x1a\x05", "ONNX"),
        (b"\x08\x08\x12\x0a\x0a\x08\x0a\x06", "Core ML: give the model that it was made from"),
        (b"\n\r\n  <html>Not found</html>", "an HTML or XML page"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b"\0\1\2\3" * 20, None),
    ],
)
def test_what_bytes_look_like(head: bytes, kind: str | None) -> None:
    assert looks_like(head) == kind


def test_bytes_of_no_kind(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(UnfitError, match=r"a\.h5: not a checkpoint \(bytes of no known kind\): give safetensors"):
        read_checkpoint(tmp_path / "a.h5")
    (tmp_path / "b.pt").write_bytes(b"")
    with pytest.raises(UnfitError, match=r"b\.pt: not a checkpoint \(an empty file\)"):
        read_checkpoint(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (_zip("a/archive_format", "a/data.pkl"), True),
        (_zip("serialized_exported_program.json"), True),
        (_zip("a/data.pkl", "a/version"), False),
        (_zip("archive_format")[:-30], False),
        (b"PK\3\4", False),
        (b"", False),
    ],
)
def test_programs_are_told_by_their_members(data: bytes, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    assert is_program(tmp_path / "a") is expected
