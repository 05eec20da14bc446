"""Tries every entry point of the package with a file's bytes, and checks the promises that must hold for any bytes.

A door returns the outcome: ``"ok"``, or the kind of the refusal. It raises `Fault` if the package breaks its promise.
The guard notices everything else: an exception that is not a documented refusal, a warning, and memory or time above
the bounds. A door's actions depend on the bytes alone, so a file is enough to reproduce a finding.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from dcformat_cli import summary
from dcformat_interop import UnfitError, read_checkpoint, write_npz, write_safetensors

import dcformat
from dcformat import layout
from dcformat.codecs.work import writing_steps
from dcformat.digest import tensor_digest
from dcformat.errors import ChecksumError, FormatError, MemoryLimitError
from dcformat.limits import require_work
from dcformat.model import Model, Tensor
from dcformat.validate import check_tensor

_PYTHON = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
#: The memory that a file may take, chosen by its checksum: little, so that runs are quick and bombs are refused.
MEMORY = (1 << 17,) * 4 if _PYTHON else (1 << 20, 1 << 20, 1 << 18, 1 << 23)
#: The steps that a file may take: if kernels are compiled, a quarter of the seconds that the guard allows.
WORK = 1 << 21 if _PYTHON else 1 << 27
#: Bytes that reading may take in addition to `MEMORY`: in Python, the smallest tables of the text coder are lists of 4
#: MiB.
SLACK = (6 if _PYTHON else 2) << 20
#: Tensors with more bytes are not made dense, and models with more stored entries are not written again.
DENSE_BYTES = 1 << 20
REWRITTEN = 2000


class Fault(AssertionError):
    """The package broke its promise."""


def require(condition: bool, what: str) -> None:
    """Raise `Fault` unless a condition holds."""
    if not condition:
        raise Fault(what)


@dataclass(frozen=True)
class Door:
    """An entry point of the package.

    Attributes
    ----------
    weight : float
        Its share of executions.
    source : str
        The kind of its input: ``"dcf"``, ``"network"`` (a `.dcf` file made from one with a graph), or a maker in
        `foreign.MAKERS`.
    slack : int
        Bytes that it may take beside `max_memory`.
    seconds : float
        Processor time that it may take if kernels are compiled.
    refusals : tuple of type
        The exceptions that it documents.
    """

    name: str
    run: Callable[[bytes], str]
    weight: float
    source: str = "dcf"
    slack: int = SLACK
    seconds: float = 0.5
    refusals: tuple[type[Exception], ...] = (FormatError,)


def choice(data: bytes) -> int:
    """Return a number that the bytes determine, from which a door draws its choices."""
    return zlib.crc32(data)


def most_memory(data: bytes) -> int:
    """Return the `max_memory` with which a file is read."""
    return MEMORY[choice(data) & 3]


def limits(data: bytes) -> dict[str, Any]:
    """Return the bounds within which a file is read."""
    return {"max_memory": most_memory(data), "max_work": WORK}


@cache
def folder() -> Path:
    """Return this process's own folder for files."""
    made = tempfile.mkdtemp(prefix="dcformat-fuzz-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def on_disk(data: bytes, name: str) -> Path:
    """Write the bytes to a file."""
    path = folder() / name
    path.write_bytes(data)
    return path


class _Pipe(io.RawIOBase):
    """A file object that cannot seek and gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 7) if size >= 0 else 7)

    def seekable(self) -> bool:
        return False


# --- reading --------------------------------------------------------------------------------------------------------


def load(data: bytes) -> str:
    """Read all of a file; the result must be a valid model."""
    model = dcformat.load(data, threads=1 + (choice(data) >> 4 & 1), **limits(data))
    for name, tensor in model.tensors.items():
        check_tensor(name, tensor)
    return "ok"


def open_(data: bytes) -> str:
    """Open a file from any kind of source, and read its tensors one by one in another order."""
    way = choice(data) >> 2 & 7
    source: Any = data
    if way == 0:
        source = io.BytesIO(b"before" + data)
        source.seek(6)
    elif way == 1:
        source = _Pipe(data)
    elif way < 4:
        source = on_disk(data, "x.dcf")
    refused = None
    with dcformat.open(source, mmap=way == 2, **limits(data)) as file:
        require(file.size == len(data), "the size is wrong")
        for name in reversed(file.names):
            try:
                tensor = file.tensor(name)
            except FormatError as error:
                refused = error
                continue
            check_tensor(name, tensor)
            _conversions(tensor, most_memory(data))
    if refused is not None:
        raise refused
    return "ok"


def _conversions(tensor: Tensor, most: int) -> None:
    try:
        dense = tensor.to_dense(max_memory=DENSE_BYTES >> 2)
        indptr, indices, values = tensor.to_csr(max_memory=most)
    except MemoryLimitError:
        return
    require(dense.shape == tensor.shape, "to_dense: another shape")
    rows = np.repeat(np.arange(tensor.rows), np.diff(indptr))
    again = np.zeros((tensor.rows, tensor.columns), dense.dtype)
    again[rows, indices] = values
    require(again.tobytes() == dense.tobytes(), "to_csr: other elements than to_dense")


def usage(data: bytes) -> str:
    """Account for every byte and every bit."""
    with dcformat.open(data, **limits(data)) as file:
        require(sum(row.bytes for row in file.ledger()) == file.size, "the ledger does not add up")
        for name in file.names:
            file.tensor(name)
            try:
                used = file.usage(name)
            except FormatError as error:
                if error.code in ("E07", "E16"):  # measuring takes more than reading
                    continue
                raise Fault(f"usage of a tensor that decodes: {error.code}") from error
            total = used.index_bits + used.code_bits + used.codebook_bits + used.table_bits
            require(abs(total - 8 * file.info(name).payload_bytes) < 1e-6, "the bits of a payload do not add up")
            require(min(used.index_bits, used.code_bits, used.codebook_bits, used.table_bits) >= 0, "bits below none")
    return "ok"


def with_digest(data: bytes) -> bytes:
    """Return a file with the content digest that `verify` found; raise `FormatError` if it cannot be read."""
    try:
        dcformat.verify(data, **limits(data))
    except ChecksumError as error:
        if error.field != "content digest":
            raise
        return data[: -layout.DIGEST_BYTES] + bytes.fromhex(str(error.got))
    return data


def verify(data: bytes) -> str:
    """Verify a file whose digest was corrected; nothing else may be wrong."""
    load(data)
    right = with_digest(data)
    if right != data:
        try:
            dcformat.verify(right, **limits(data))
        except FormatError as error:
            raise Fault(f"verify refuses the digest that it asked for: {error.code}") from error
    return "ok"


def inspect(data: bytes) -> str:
    """Summarise a file as the command `inspect` does."""
    with dcformat.open(data, **limits(data)) as file:
        figures = summary.summarize(file)
    text = summary.headline("x", figures) + "\n".join(summary.layer_table(figures).lines())
    text += "\n".join(summary.ledger_table(figures).lines()) + json.dumps(summary.as_json(figures), allow_nan=False)
    require("nan" not in text.lower() or b"nan" in data.lower(), "a figure is no number")
    return "ok"


# --- writing --------------------------------------------------------------------------------------------------------


def unpack(data: bytes) -> str:
    """Write the tensors for other programs as the command does, and read them as those programs do."""
    to_npz = bool(choice(data) >> 9 & 1)
    path = folder() / "unpacked"
    with dcformat.open(data, **limits(data)) as file:
        infos = [file.info(name) for name in file.names]
        require_work("unpacking", file.work() + sum(map(writing_steps, infos)), WORK)
        with path.open("wb") as out:  # on disk: the dense form may be much larger than memory
            (write_npz if to_npz else write_safetensors)("x", file, out)
        if path.stat().st_size > DENSE_BYTES >> 2:  # this door itself makes several copies
            return "large"
        model = file.model()
    found = (_as_npz if to_npz else _as_safetensors)(path.read_bytes())
    require(found.keys() == model.tensors.keys(), "names were lost")
    for name, tensor in model.tensors.items():
        shape, raw = found[name]
        require(shape == tensor.shape and raw == tensor.to_dense().tobytes(), "an array is not what was held")
    if model.tensors and not any(name.endswith("_mask") for name in model.tensors):
        _reads_back(path, model)
    return "ok"


def _reads_back(path: Path, model: Model) -> None:
    """Read the written file as a checkpoint, which would fold masks; nothing may be changed or left out."""
    read = read_checkpoint(path)
    require(read.tensors.keys() == model.tensors.keys() and not read.left_out, "a checkpoint was left out of")
    for name, tensor in model.tensors.items():
        dense = read.tensors[name]
        require((dense.dtype, dense.scale) == (tensor.dtype, tensor.scale), "a checkpoint of another dtype or scale")
        require(dense.values.tobytes() == tensor.to_dense().tobytes(), "a checkpoint of other values")


def _as_npz(raw: bytes) -> dict[str, tuple[tuple[int, ...], bytes]]:
    found = {}
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        for member in archive.infolist():
            values = np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)
            require(member.filename.endswith(".npy"), "a member is no array")
            require(".." not in Path(member.filename).parts, "a member would be written elsewhere")
            found[member.filename.removesuffix(".npy")] = values.shape, values.tobytes()
    return found


def _as_safetensors(raw: bytes) -> dict[str, tuple[tuple[int, ...], bytes]]:
    from safetensors import deserialize

    return {name: (tuple(entry["shape"]), bytes(entry["data"])) for name, entry in deserialize(raw)}


def rewrite(data: bytes) -> str:
    """Read a file, write it in any mode, and read it again."""
    model = dcformat.load(data, **limits(data))
    if sum(len(tensor.data) + tensor.rows for tensor in model.tensors.values()) > REWRITTEN:
        return "large"
    mode = ("fast", "small", "tiny")[choice(data) >> 10 & 1]
    written = dcformat.dumps(model, mode=mode)  # type: ignore[arg-type]
    again = dcformat.load(written)
    require(list(again.tensors) == list(model.tensors), "names were lost")
    for name, tensor in model.tensors.items():
        require(_same(tensor, again.tensors[name]), "a tensor is not what was written")
    require(_small_parts(model) == _small_parts(again), "graph or text is not what was written")
    dcformat.verify(written)
    return "ok"


def _same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are the same, in any form that the writer chose."""
    if (a.shape, a.dtype, a.scale) != (b.shape, b.dtype, b.scale) or tensor_digest(a) != tensor_digest(b):
        return False
    return a.nbytes > DENSE_BYTES or a.to_dense().tobytes() == b.to_dense().tobytes()


def _small_parts(model: Model) -> tuple[object, ...]:
    return model.graph, model.labels, dict(model.metadata), model.self_test, model.extensions, model.delta


# --- other people's files, and the list -----------------------------------------------------------------------------


def all_doors() -> dict[str, Door]:
    """Return the doors by name."""
    from fuzz import delta_doors, foreign_doors, packing_doors, reference, running_doors

    ours = (UnfitError, FormatError)
    wide = 16 << 20
    doors = [
        Door("load", load, 30),
        Door("open", open_, 14),
        Door("usage", usage, 8, seconds=2.0),
        Door("verify", verify, 8),
        Door("inspect", inspect, 3),
        Door("unpack", unpack, 4, slack=SLACK + (2 << 20), refusals=ours),
        Door("rewrite", rewrite, 0.6, slack=wide),
        Door("reference", reference.compare, 1.5, slack=64 << 20, seconds=60),
    ]
    others = (delta_doors, running_doors, foreign_doors, packing_doors)
    return {door.name: door for door in (*doors, *(door for each in others for door in each.doors()))}
