"""Reads files tensor by tensor (spec, "File").

Any bytes parse or raise `FormatError`. Every declared size is checked against the bytes that exist, the format's limits
and the caller's limits before anything is allocated for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs.memory import TENSOR_OBJECTS, usage_bytes, working_bytes
from dcformat.codecs.payload_layout import ParsedPayload, parse_payload
from dcformat.codecs.payload_reader import read_payload
from dcformat.codecs.work import decoding_steps, hashing_steps, usage_steps
from dcformat.contents import TensorInfo
from dcformat.digest import ContentDigest, tensor_digest
from dcformat.errors import ChecksumError, FormatError, MemoryLimitError, WorkLimitError, naming_file
from dcformat.front import check_crc, read_front
from dcformat.graph import Graph
from dcformat.limits import memory_counts, require_memory, require_work
from dcformat.model import Delta, Extension, Model, SelfTest, Tensor
from dcformat.records import record, replace
from dcformat.source import ByteSource
from dcformat.wording import counted

if TYPE_CHECKING:  # a module that few callers need is imported where it is used, because imports take most of a start
    from dcformat.codecs.usage import Usage
    from dcformat.state_dict import StateDict

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
_T = TypeVar("_T")

#: The number of tensors of a damaged data block that an error names.
_NAMED = 8


@record
class LedgerRow:
    """A part of the file: its purpose and its number of bytes."""

    what: str
    bytes: int


class DcfFile:
    """An open file that decodes its tensors on demand. Several threads may use it.

    Each method call may take as much memory and work as the caller allowed on opening the file.

    Attributes
    ----------
    version : tuple of int
        Major and minor version of the format.
    size : int
        Bytes of the file.
    """

    def __init__(
        self,
        data: ByteSource,
        *,
        max_memory: int | None = layout.DEFAULT_MAX_MEMORY,
        max_work: int | None = layout.DEFAULT_MAX_WORK,
        partial: bool = False,
    ) -> None:
        self._data = data
        self._max_memory, self._max_work = max_memory, max_work
        self.path, self.size = data.path, data.size
        self._naming = naming_file(data.path)
        with self._naming, memory_counts("contents", max_memory):
            self._front = read_front(data, max_memory, max_work)
            self._blocks = self._front.block_offsets(None if partial else data.size)
        self.version, self._contents = self._front.version, self._front.contents
        self._info = {info.name: info for info in self._contents.tensors}
        self._checked: set[int] = set()
        self._names_in: dict[int, list[str]] = {}
        self._work: dict[str, int] = {}

    def __repr__(self) -> str:
        source = "bytes" if self.path is None else repr(self.path)
        return f"DcfFile({source}, {self.size:,} bytes, {counted(len(self._info), 'tensor')})"

    def __enter__(self) -> DcfFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file if it was opened from a path."""
        self._data.close()

    @property
    def digest(self) -> bytes:
        """The content digest that the file states, which `verify` checks."""
        with self._naming:
            return bytes(self._data.take(self.size - layout.DIGEST_BYTES, layout.DIGEST_BYTES))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, in the file's order."""
        return tuple(self._info)

    @property
    def graph(self) -> Graph | None:
        """The network, validated against the tensors' shapes."""
        return self._contents.graph

    @property
    def labels(self) -> tuple[str, ...]:
        """Class labels."""
        return self._contents.labels

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free text, keys ascending."""
        return self._contents.metadata

    @property
    def self_test(self) -> SelfTest | None:
        """The golden self-test."""
        return self._contents.self_test

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """Sections that this version does not know and may ignore."""
        return self._contents.extensions

    @property
    def delta(self) -> Delta | None:
        """How the file makes a new one from its base, if it is a delta; `dcformat.apply` does so."""
        return self._contents.delta

    def sections(self) -> list[tuple[int, bytes]]:
        """Return the id and the body of each section but the tensor table, in order."""
        from dcformat.contents_writer import small_sections

        return small_sections(self._model(dict.fromkeys(self._info)))  # type: ignore[arg-type]

    def read(self, offset: int, count: int) -> bytes:
        """Return raw bytes of the file."""
        return bytes(self._data.take(offset, count))

    def payload(self, name: str) -> bytes:
        """Return the coded bytes of a tensor, or of its original. Raises `KeyError` or `FormatError`."""
        with self._naming:
            return bytes(self._payload(self._original(name)))

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all tensors in memory, in the form stored in the file; a copy shares its original's arrays."""
        return sum(info.decoded_bytes for info in self._contents.tensors if info.copy_of is None)

    def info(self, name: str) -> TensorInfo:
        """Return a tensor's entry in the table of contents. Raises `KeyError` for an unknown name."""
        return self._info[name]

    def work(self, name: str | None = None) -> int:
        """Return the maximum number of steps needed to decode a tensor, or all tensors. Decodes nothing.

        Raises
        ------
        KeyError
            The file has no such tensor.
        FormatError
            A payload is damaged or cannot be cut into its parts.
        """
        if name is None:
            return sum(self.work(each) for each, info in self._info.items() if info.copy_of is None)
        info = self._original(name)
        if info.name not in self._work:
            with self._naming:
                self._work[info.name] = self._guarded(info, decoding_steps)
        return self._work[info.name]

    def tensor(self, name: str, *, threads: int = 1) -> Tensor:
        """Decode one tensor, reading only its data block. Raises `KeyError` or `FormatError`."""
        with self._naming:
            tensor = self._decode(self._original(name), threads)
        return tensor if tensor.name == name else replace(tensor, name=name)

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield a tensor's elements in row-major order, in 1-D arrays of ``STORAGE[dtype]``.

        A large tensor that was coded by rows is decoded chunk by chunk, so that neither its payload nor its elements
        are in memory at once. Its payload is read twice: all of it is checked before any of it is decoded.

        Raises
        ------
        KeyError
            The file has no such tensor.
        FormatError
            The payload is damaged, or a chunk takes more memory, or all chunks more work, than allowed.
        """
        info = self._original(name)
        with self._naming:
            tensors = self._chunks(info) if info.payload_bytes > layout.MAX_SHARED_BLOCK_BYTES else None
            for tensor in [self._decode(info, 1)] if tensors is None else tensors:
                yield from tensor.pieces()

    def _chunks(self, info: TensorInfo) -> Iterator[Tensor] | None:
        """Return a tensor's chunks, if it can be decoded chunk by chunk."""
        from dcformat.chunk_stream import chunk_tensors

        start = self._blocks[info.block]

        def take(offset: int, count: int) -> memoryview:
            return self._data.take(start + offset, count)

        with memory_counts(f"tensor {info.name!r}", self._max_memory):
            return chunk_tensors(info, take, self._max_memory, self._max_work)

    def dense(self, name: str, *, threads: int = 1) -> Array:
        """Decode one tensor into a dense array of its shape, in ``STORAGE[dtype]``. Raises the errors of `tensor`."""
        with self._naming:
            return self.tensor(name, threads=threads).to_dense(max_memory=self._max_memory)

    def model(self, *, threads: int = 1) -> Model:
        """Decode all tensors and return the model. Raises `FormatError`."""
        with self._naming:
            total = self.decoded_bytes + TENSOR_OBJECTS * len(self._info)
            self._allow("tensors", total)
            require_work("decoding all tensors", self.work(), self._max_work)
            tensors: dict[str, Tensor] = {}
            for name, info in self._info.items():
                if info.copy_of is not None:
                    tensors[name] = replace(tensors[info.copy_of], name=name)
                else:
                    tensors[name] = self._decode(info, threads, total - info.decoded_bytes)
        return self._model(tensors)

    def state_dict(self) -> StateDict:
        """Return the tensors as a mapping from names to dense arrays, which are read on demand and not kept."""
        from dcformat.state_dict import StateDict

        return StateDict(self)

    def damaged(self) -> dict[str, FormatError]:
        """Decode each tensor on its own, and return the names of those that are damaged or missing, with the reasons.

        Raises
        ------
        MemoryLimitError, WorkLimitError
            A tensor needs more than allowed, so that it is unknown whether it is whole.
        """
        found: dict[str, FormatError] = {}
        for name in self.names:
            try:
                self.tensor(name)
            except (MemoryLimitError, WorkLimitError):
                raise
            except FormatError as error:
                found[name] = error
        return found

    def verify(self, progress: Callable[[int, int, str], None] = lambda done, total, name: None) -> None:
        """Decode all tensors, one at a time, and check the content digest. Raises `FormatError`.

        `progress` takes the number of finished tensors, the number of all, and the name of the next one.
        """
        with self._naming:
            originals = [info for info in self._info.values() if info.copy_of is None]
            steps = self.work() + sum(map(hashing_steps, originals))
            require_work("verifying the file", steps, self._max_work)
        digest = ContentDigest(self.sections())
        known: dict[str, bytes] = {}
        for done, (name, info) in enumerate(self._info.items()):
            progress(done, len(self._info), name)
            known[name] = known[info.copy_of] if info.copy_of else tensor_digest(self.tensor(name))
            digest.add(name, known[name])
        found = digest.take()
        if found != self.digest:
            with self._naming:
                raise ChecksumError("content digest", got=found.hex(), expected=self.digest.hex())

    def ledger(self) -> list[LedgerRow]:
        """Return the purpose of every byte of the file; the rows add up to `size`."""
        rows = [
            LedgerRow("magic, version, length", layout.PREFIX_BYTES),
            LedgerRow("contents (names, shapes, graph, metadata)", self._front.contents_size),
        ]
        rows += [LedgerRow(info.name, info.payload_bytes) for info in self._contents.tensors]
        rows.append(LedgerRow("checksums", layout.CRC_BYTES * (1 + len(self._blocks))))
        rows.append(LedgerRow("content digest", layout.DIGEST_BYTES))
        return rows

    def usage(self, name: str, tensor: Tensor | None = None) -> Usage:
        """Return the bits of a tensor's payload by purpose. Raises `KeyError` or `FormatError`.

        This decodes the payload, unless the caller has done so and passes the `tensor`.
        """
        info = self._info[name]
        with self._naming:
            self._require_usage_work(f"accounting for tensor {name!r}", (info,))
            return self._usage(info, tensor)

    def usages(self) -> dict[str, Usage]:
        """Return the `usage` of every tensor; one call's work limit applies to all together. Raises `FormatError`."""
        with self._naming:
            self._require_usage_work("accounting for all tensors", self._info.values())
            return {name: self._usage(info) for name, info in self._info.items()}

    def _usage(self, info: TensorInfo, tensor: Tensor | None = None) -> Usage:
        from dcformat.codecs.usage import Usage

        if info.copy_of is not None:
            return Usage("copy", 0.0, 0.0, 0.0, 0.0)
        return self._guarded(info, lambda payload: self._measure(payload, tensor))

    def _require_usage_work(self, field: str, infos: Iterable[TensorInfo]) -> None:
        steps = sum(self._guarded(info, usage_steps) for info in infos if info.copy_of is None)
        require_work(field, steps, self._max_work)

    def _measure(self, payload: ParsedPayload, tensor: Tensor | None) -> Usage:
        self._allow(f"accounting for tensor {payload.info.name!r}", usage_bytes(payload) + self._copied(payload.info))
        from dcformat.codecs.usage import measure

        return measure(payload, tensor)

    def _original(self, name: str) -> TensorInfo:
        """Return the table entry with a tensor's payload: its own, or that of its original."""
        info = self._info[name]
        return info if info.copy_of is None else self._info[info.copy_of]

    def _model(self, tensors: Mapping[str, Tensor]) -> Model:
        c = self._contents
        return Model(tensors, c.graph, c.labels, c.metadata, c.self_test, c.extensions, c.delta)

    def _decode(self, info: TensorInfo, threads: int, others: int = 0) -> Tensor:
        """Decode a tensor while other tensors take `others` bytes."""

        def decode(payload: ParsedPayload) -> Tensor:
            field = f"decoding tensor {info.name!r}"
            self._allow(field, others + working_bytes(payload, threads) + self._copied(info))
            require_work(field, decoding_steps(payload), self._max_work)
            return read_payload(payload, threads)

        return self._guarded(info, decode)

    def _guarded(self, info: TensorInfo, function: Callable[[ParsedPayload], _T]) -> _T:
        """Apply a function to a tensor's parsed payload; a lack of memory counts as a failure of the file."""
        field = f"tensor {info.name!r}"
        self._allow(field, info.decoded_bytes)
        payload = self._payload(info)
        try:
            with memory_counts(field, self._max_memory):
                return function(parse_payload(info, payload, self._max_memory))
        except FormatError as error:
            error.offset = self._blocks[info.block] + info.offset
            raise

    def _payload(self, info: TensorInfo) -> Bytes:
        start, length = self._blocks[info.block], self._contents.blocks[info.block]
        copied = self._copied(info)
        if copied or info.block not in self._checked:
            field = f"data block {info.block} ({self._held(info.block)})"
            self._allow(field, copied)
            with memory_counts(field, self._max_memory):
                block = self._data.take(start, length + layout.CRC_BYTES)
            # Check a block each time it is read, because the file may have been changed in place.
            check_crc(block, field, start)
            self._checked.add(info.block)
        else:
            block = self._data.take(start, length)
        return np.frombuffer(block, np.uint8, info.payload_bytes, info.offset)

    def _held(self, block: int) -> str:
        """Name the tensors in a data block, the first few of many."""
        if not self._names_in:
            for info in self._contents.tensors:
                if info.copy_of is None:
                    self._names_in.setdefault(info.block, []).append(info.name)
        names = self._names_in[block]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"tensor{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:_NAMED]))}{more}"

    def _copied(self, info: TensorInfo) -> int:
        """Return the bytes of memory needed to read a tensor's data block; 0 if the block is already in memory."""
        return 0 if self._data.is_fixed else self._contents.blocks[info.block]

    def _allow(self, what: str, need: int) -> None:
        require_memory(what, need + self._front.held, self._max_memory)
