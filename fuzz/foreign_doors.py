"""Doors for files of other formats and for the command line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from dcformat_cli.main import cli
from dcformat_interop import Dense, UnfitError, match, read_checkpoint, read_deep_compression_net, read_tflite

import dcformat
from dcformat import datasets, from_dense
from dcformat.architectures import Architecture
from dcformat.errors import FormatError
from dcformat.graph import Conv, Graph
from dcformat.model import STORAGE, Model
from fuzz import foreign
from fuzz.doors import WORK, Door, Fault, choice, folder, most_memory, on_disk, require

#: Architectures whose names and shapes most checkpoints lack, and some may have.
_WANTED = Architecture(
    "small", {"fc1.weight": (2, 2), "fc1.bias": (2,)}, lambda names, rule: Graph.sequential((2,), (), rule)
)
_HAN = Architecture(
    "convolutions", foreign.HAN_SHAPES,
    lambda names, rule: Graph.sequential(
        (1, 5, 5), (Conv((0,), names[0], names[1]), Conv((1,), names[2], names[3])), rule
    ),
)  # fmt: skip


def _checkpoint(data: bytes, suffix: str) -> str:
    """Read a checkpoint; its tensors can be written, and its names can be matched."""
    path = on_disk(data, f"x{suffix}")
    found = read_checkpoint(path, max_memory=most_memory(data))
    tensors = found.tensors
    _check_dense(path, tensors)
    if choice(data) & 7 == 0:
        _packs(path, tensors)
    with contextlib.suppress(UnfitError):  # most names and shapes match nothing
        match(path, _WANTED, tensors, found.left_out)
    return "ok"


def _check_dense(path: Path, tensors: dict[str, Dense]) -> None:
    for name, dense in tensors.items():
        require(isinstance(name, str), "a name is no text")
        require(dense.values.dtype == STORAGE[dense.dtype], f"{dense.dtype} in another storage dtype")


def _packs(path: Path, tensors: dict[str, Dense]) -> None:
    """Write the tensors as the command `pack` does, which refuses tensors that the format cannot hold."""
    try:
        held = {n: from_dense(n, t.values, t.dtype, t.scale, exact=True) for n, t in tensors.items()}
        if sum(tensor.size for tensor in held.values()) > 5000:
            return
        written = dcformat.dumps(Model(held))
    except FormatError:
        return
    for name, tensor in dcformat.load(written).tensors.items():
        require(tensor.to_dense().tobytes() == np.ascontiguousarray(tensors[name].values).tobytes(), "other values")


def npz(data: bytes) -> str:
    """Read an ``.npz`` archive."""
    return _checkpoint(data, ".npz")


def safetensors(data: bytes) -> str:
    """Read a ``.safetensors`` file."""
    return _checkpoint(data, ".safetensors")


def torch_file(data: bytes) -> str:
    """Read a ``.pt`` file."""
    return _checkpoint(data, ".pt")


def net(data: bytes) -> str:
    """Read a ``.net`` file."""
    path = on_disk(data, "x.net")
    _check_dense(path, read_deep_compression_net(path, _HAN))
    return "ok"


def tflite(data: bytes) -> str:
    """Read a network from a ``.tflite`` file; it can be written, and reads back as it was."""
    model = read_tflite(data, max_memory=most_memory(data))
    if model.elements < 5000:
        found = dcformat.load(dcformat.dumps(model))
        require(found.graph == model.graph, "another graph")
    return "ok"


def idx(data: bytes) -> str:
    """Read a data set whose file of images has these bytes."""
    return _split(data, "")


def idx_gz(data: bytes) -> str:
    """Read a data set whose compressed file of images has these bytes."""
    return _split(data, ".gz")


def _split(data: bytes, suffix: str) -> str:
    where = folder() / f"idx{suffix}"
    where.mkdir(exist_ok=True)
    labels = where / "t10k-labels-idx1-ubyte"
    if not labels.exists():
        labels.write_bytes(b"\0\0\x08\x01\0\0\0\x02\1\2")
    (where / f"t10k-images-idx3-ubyte{suffix}").write_bytes(data)
    split = datasets.load_split("test", where, max_memory=most_memory(data))
    require(split.images.ndim == 3 and split.images.dtype == np.uint8, "images of another kind")
    return "ok"


# --- the command line -----------------------------------------------------------------------------------------------


def _invoke(*args: object, stdin: bytes = b"") -> str:
    """Run the command in this process; require exit code 0, 1 with one line, or 2, and nothing unexpected."""
    result = CliRunner().invoke(cli, [str(arg) for arg in args], input=stdin, prog_name="dcformat")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    _check_exit(result)
    return f"exit {result.exit_code}"


def _check_exit(result: Result) -> None:
    require(result.exit_code in (0, 1), f"exit code {result.exit_code}")
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("note: ", "warning: "))]
    if "unexpected " in result.stderr or "Traceback" in result.stderr:
        raise Fault(f"stderr: {' '.join(lines)[-160:]}")
    require(len(lines) == result.exit_code, f"{len(lines)} lines on stderr for exit code {result.exit_code}")


def command(data: bytes) -> str:
    """Run a verb on a `.dcf` file."""
    path = "-" if choice(data) >> 6 & 1 else on_disk(data, "cli.dcf")
    bound = ("--max-memory", "1M", "--max-work", WORK)
    verbs: list[tuple[object, ...]] = [
        ("verify", path, *bound),
        ("inspect", path, *bound),
        ("inspect", path, "--memory", *bound),
        ("inspect", path, "--json", "--memory", *bound),
        ("unpack", path, "-o", folder() / "out.npz", "-f", *bound),
        ("unpack", path, "-o", folder() / "out.safetensors", "-f", *bound),
        ("run", path, "--input", _input(), *bound),
        ("run", path, "--input", _input(), "--json", "--backend", "numpy", *bound),
    ]
    return _invoke(*verbs[choice(data) >> 3 & 7], stdin=data)


def _input() -> Path:
    path = folder() / "input.npy"
    if not path.exists():
        np.save(path, np.ones((2, 6), np.float32))
    return path


def npy(data: bytes) -> str:
    """Run a network on the array of an ``.npy`` file."""
    from tests.format.strategies import small_model

    path = folder() / "runs.dcf"
    if not path.exists():
        dcformat.save(small_model(), path)
    out = folder() / "out.npy"
    bound = ("--max-memory", most_memory(data), "--max-work", WORK)
    return _invoke("run", path, "--input", on_disk(data, "x.npy"), "-o", out, "-f", "--backend", "numpy", *bound)


def pack(data: bytes) -> str:
    """Run the verb `pack` on a checkpoint."""
    suffix = ".npz" if data.startswith(b"PK") else ".safetensors"
    source = "-" if choice(data) >> 6 & 1 else on_disk(data, f"pack{suffix}")
    bound = ("--max-memory", most_memory(data))
    return _invoke("pack", source, "-o", folder() / "packed.dcf", "-f", *bound, stdin=data)


def doors() -> list[Door]:
    """Return these doors."""
    theirs = (UnfitError, FormatError)
    wide = 16 << 20
    return [
        Door("npz", npz, 3, "npz", wide, 1.0, theirs),
        Door("safetensors", safetensors, 3, "safetensors", wide, 0.5, theirs),
        Door("pt", torch_file, 0.7, "pt", wide, 1.0, theirs),
        Door("net", net, 2, "net", wide, 0.5, theirs),
        Door("tflite", tflite, 2, "tflite", wide, 1.0, theirs),
        Door("idx", idx, 1.5, "idx", wide, 0.5, (datasets.DataError,)),
        Door("gz", idx_gz, 1, "gz", 64 << 20, 1.0, (datasets.DataError,)),
        Door("npy", npy, 0.5, "npy", wide, 1.0, ()),
        Door("cli", command, 0.6, "dcf", wide, 1.0, ()),
        Door("cli-pack", pack, 0.2, "npz", wide, 2.0, ()),
    ]
