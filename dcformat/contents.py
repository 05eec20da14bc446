"""The contents of a file: its tensors and their places, and everything else that is small (spec, "Contents").

`contents_writer` writes what this module reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from dcformat import layout
from dcformat.cursor import Cursor
from dcformat.errors import (
    DuplicateError,
    EncodingError,
    IndexRangeError,
    LimitError,
    ShapeError,
    VersionError,
)
from dcformat.graph import Graph
from dcformat.graph_codec import read_graph
from dcformat.model import STORAGE, Delta, Extension, SelfTest, matrix_shape
from dcformat.records import record, replace
from dcformat.wording import counted

_ITEM = {name: dtype.itemsize for name, dtype in STORAGE.items()}


@record
class TensorInfo:
    """A tensor's entry in the table of contents.

    Attributes
    ----------
    form : {'constant', 'dense', 'sparse'}
    stored : int
        Number of stored elements: all of a dense tensor, the entries of a sparse tensor, 1 for a constant.
    codebook_size : int
        Size of the codebook; 0 without a codebook.
    block : int
        Number of the data block that holds the payload, which starts at byte `offset` of the block and takes
        `payload_bytes` bytes.
    copy_of : str or None
        The earlier tensor that this one copies, or None. All other fields of a copy except `name` are that tensor's,
        but `payload_bytes` is 0, because a copy has no payload of its own.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    form: str
    stored: int
    codebook_size: int
    scale: float
    payload_bytes: int
    block: int
    offset: int
    copy_of: str | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the dense form."""
        return self.size * _ITEM[self.dtype]

    @property
    def rows(self) -> int:
        """Rows of the matrix form."""
        return matrix_shape(self.shape, self.form == "sparse")[0]

    @property
    def columns(self) -> int:
        """Columns of the matrix form."""
        return matrix_shape(self.shape, self.form == "sparse")[1]

    @property
    def code_bytes(self) -> int:
        """Bytes of a code into the codebook in memory."""
        return 1 if self.codebook_size <= 256 else 2

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the tensor's arrays in memory, in the form stored in the file."""
        item = _ITEM[self.dtype]
        if self.form == "constant":
            return item
        data = self.stored * (self.code_bytes if self.codebook_size else item) + self.codebook_size * item
        if self.form == "dense":
            return data
        index = 4 if self.columns < 1 << 31 else 8
        return data + self.stored * index + 8 * (self.rows + 1)


@record
class Contents:
    """Parsed contents; `blocks` holds the lengths of the data blocks without their checksums."""

    tensors: tuple[TensorInfo, ...]
    blocks: tuple[int, ...]
    graph: Graph | None
    labels: tuple[str, ...]
    metadata: Mapping[str, str]
    self_test: SelfTest | None
    extensions: tuple[Extension, ...]
    delta: Delta | None = None


def parse(data: bytes, base: int = 0) -> Contents:
    """Parse and validate contents in their plain form; offsets in errors count from `base`."""
    sections = _sections(Cursor(data, base))
    if layout.SECTION_TENSORS not in sections:
        raise EncodingError("contents", got="no tensor table", expected="section 1")
    tensors, blocks = _read_table(sections.pop(layout.SECTION_TENSORS))
    delta = None
    if cursor := sections.pop(layout.SECTION_DELTA, None):
        if own := [kind for kind in sections if kind < layout.IGNORABLE]:
            raise EncodingError("sections of a delta", got=own[0], expected="only a tensor table beside section 6")
        from dcformat.delta_codec import read_delta  # few files are deltas

        delta = read_delta(cursor, tensors)
    shapes, dtypes = {t.name: t.shape for t in tensors}, {t.name: t.dtype for t in tensors}
    return Contents(tensors, blocks, *parse_sections(sections, shapes, dtypes), delta)


def parse_sections(
    sections: dict[int, Cursor], shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]
) -> tuple[Graph | None, tuple[str, ...], dict[str, str], SelfTest | None, tuple[Extension, ...]]:
    """Parse the sections other than the tensor table, by id, given the shapes and dtypes of the tensors in order."""
    graph = None
    if cursor := sections.pop(layout.SECTION_GRAPH, None):
        graph = read_graph(cursor, shapes)
        cursor.finish("graph")
        graph.shapes(shapes)
        graph.check_dtypes(dtypes)
    labels = _read_labels(sections.pop(layout.SECTION_LABELS, None))
    metadata = _read_metadata(sections.pop(layout.SECTION_METADATA, None))
    self_test = _read_self_test(sections.pop(layout.SECTION_SELF_TEST, None))
    if self_test is not None and graph is None:
        raise EncodingError("self-test", got="no graph", expected="a graph to run it on")
    extensions = tuple(Extension(kind & 127, bytes(cursor.data)) for kind, cursor in sections.items())
    return graph, labels, metadata, self_test, extensions


def _sections(cursor: Cursor) -> dict[int, Cursor]:
    found: dict[int, Cursor] = {}
    last = -1
    while cursor.left:
        start = cursor.base + cursor.offset
        kind = cursor.u8("section id")
        if kind in found:
            raise DuplicateError("section", got=kind, expected="each once", offset=start)
        if kind < last:
            raise EncodingError("section id", got=kind, expected=f"above {last}", offset=start)
        if kind < layout.IGNORABLE and not 1 <= kind <= layout.SECTION_DELTA:
            raise VersionError("section", got=kind, expected="a section that version 1 requires", offset=start)
        last = kind
        length = cursor.varint("section length", layout.MAX_CONTENTS_BYTES)
        begin = cursor.base + cursor.offset
        found[kind] = Cursor(cursor.take(length, "section"), begin)
    return found


def _read_table(cursor: Cursor) -> tuple[tuple[TensorInfo, ...], tuple[int, ...]]:
    count = cursor.varint("number of tensors", layout.MAX_TENSORS)
    tensors: list[TensorInfo] = []
    originals: list[TensorInfo] = []
    blocks: list[int] = []
    names: set[str] = set()
    for _ in range(count):
        start = cursor.base + cursor.offset
        entry = _read_entry(cursor, blocks, originals)
        if entry.copy_of is None:
            originals.append(entry)
        if entry.name in names:
            raise DuplicateError("tensor name", got=repr(entry.name), expected="each once", offset=start)
        names.add(entry.name)
        tensors.append(entry)
    cursor.finish("tensor table")
    return tuple(tensors), tuple(blocks)


def _read_entry(cursor: Cursor, blocks: list[int], originals: list[TensorInfo]) -> TensorInfo:
    name = cursor.text("tensor name", layout.MAX_NAME_BYTES, min_bytes=1)
    start = cursor.base + cursor.offset
    kind = cursor.u8("tensor kind")
    if kind & 7 == layout.FORM_COPY:
        return _read_copy(cursor, name, kind, originals)
    form, dtype, rank = _read_kind(cursor, kind, start)
    shape = tuple(cursor.varint("dimension", layout.MAX_ELEMENTS) for _ in range(rank))
    check_size(shape, start)
    scale = cursor.f32("scale") if dtype == "int8" else 1.0
    if not scale > 0:
        raise EncodingError("scale", got=scale, expected="a positive number", offset=start)
    stored = _read_stored(cursor, form, prod(shape))
    shared = form in (layout.FORM_DENSE_SHARED, layout.FORM_SPARSE_SHARED)
    codebook_size = cursor.varint("codebook size", layout.MAX_CODEBOOK) if shared else 0
    if shared and not codebook_size:
        raise EncodingError("codebook size", got=0, expected="at least 1", offset=start)
    length = cursor.varint("payload length", 2 * layout.MAX_PAYLOAD_BYTES)
    if length & 1:
        blocks.append(0)
    elif not blocks:
        raise EncodingError("payload length", got="no block to continue", expected="a new block", offset=start)
    offset = blocks[-1]
    blocks[-1] += length >> 1
    if not length & 1 and blocks[-1] > layout.MAX_SHARED_BLOCK_BYTES:
        limit = layout.MAX_SHARED_BLOCK_BYTES
        raise LimitError("data block of several tensors", got=blocks[-1], expected=f"at most {limit}", offset=start)
    kinds = ("constant", "dense", "dense", "sparse", "sparse")
    return TensorInfo(
        name, shape, dtype, kinds[form], stored, codebook_size, scale, length >> 1, len(blocks) - 1, offset
    )


def _read_kind(cursor: Cursor, kind: int, start: int) -> tuple[int, str, int]:
    """Return a tensor's form, dtype and rank, after reading the byte that follows the kind of an extended dtype."""
    form, dtype = kind & 7, kind >> 3 & 3
    if form == layout.FORM_EXTENDED:
        extended = cursor.u8("extended kind")
        if dtype:
            raise EncodingError("tensor kind", got=f"0x{kind:02x}", expected="bits 3 and 4 zero", offset=start)
        form, dtype = extended & 7, extended >> 3
        if not layout.KERNEL_DTYPES <= dtype < len(layout.DTYPES):
            expected = f"{layout.KERNEL_DTYPES} to {len(layout.DTYPES) - 1}"
            raise EncodingError("extended dtype", got=dtype, expected=expected, offset=start + 1)
        if form not in (layout.FORM_CONSTANT, layout.FORM_DENSE, layout.FORM_SPARSE):
            raise EncodingError("form of an extended dtype", got=form, expected="no codebook", offset=start + 1)
    if form >= layout.FORMS:
        raise EncodingError("tensor form", got=form, expected=f"below {layout.FORMS}", offset=start)
    return form, layout.DTYPES[dtype], kind >> 5


def _read_copy(cursor: Cursor, name: str, kind: int, originals: list[TensorInfo]) -> TensorInfo:
    start = cursor.base + cursor.offset
    if kind != layout.FORM_COPY:
        raise EncodingError("kind of a copy", got=kind, expected=layout.FORM_COPY, offset=start - 1)
    back = cursor.varint("original of a copy", layout.MAX_TENSORS)
    if not 1 <= back <= len(originals):
        expected = f"1 to {len(originals)} tensors back"
        raise IndexRangeError("original of a copy", got=back, expected=expected, offset=start)
    return replace(originals[-back], name=name, payload_bytes=0, copy_of=originals[-back].name)


def _read_stored(cursor: Cursor, form: int, size: int) -> int:
    start = cursor.base + cursor.offset
    if form == layout.FORM_CONSTANT:
        if size < 2:
            raise EncodingError("constant", got=counted(size, "element"), expected="at least 2", offset=start)
        return 1
    if form in (layout.FORM_DENSE, layout.FORM_DENSE_SHARED):
        return size
    stored = cursor.varint("entries", layout.MAX_ELEMENTS)
    if stored > size:
        raise ShapeError("entries", got=stored, expected=f"at most {size}", offset=start)
    return stored


def check_size(shape: tuple[int, ...], offset: int | None = None) -> None:
    """Raise unless the product of the nonzero dimensions is within the limit, so that no product can overflow."""
    size = prod(d for d in shape if d)
    if size > layout.MAX_ELEMENTS:
        raise ShapeError("shape", got=shape, expected=f"at most {layout.MAX_ELEMENTS} elements", offset=offset)


def _read_labels(cursor: Cursor | None) -> tuple[str, ...]:
    if cursor is None:
        return ()
    count = cursor.varint("number of labels", layout.MAX_LABELS)
    if not count:
        raise EncodingError("labels", got="none", expected="no section")
    labels = tuple(cursor.text("label", layout.MAX_LABEL_BYTES) for _ in range(count))
    cursor.finish("labels")
    return labels


def _read_metadata(cursor: Cursor | None) -> dict[str, str]:
    out: dict[str, str] = {}
    if cursor is None:
        return out
    count = cursor.varint("number of metadata entries", layout.MAX_METADATA_ENTRIES)
    if not count:
        raise EncodingError("metadata", got="none", expected="no section")
    last = b""
    for _ in range(count):
        key = cursor.text("metadata key", layout.MAX_NAME_BYTES, min_bytes=1)
        if key in out:
            raise DuplicateError("metadata key", got=repr(key), expected="each once")
        if key.encode() < last:
            raise EncodingError("metadata key", got=repr(key), expected="ascending order")
        last = key.encode()
        out[key] = cursor.text("metadata value", layout.MAX_METADATA_BYTES)
    cursor.finish("metadata")
    return out


def _read_self_test(cursor: Cursor | None) -> SelfTest | None:
    if cursor is None:
        return None
    seed = cursor.varint("self-test seed", (1 << 32) - 1)
    samples = cursor.varint("self-test samples", layout.MAX_SELF_TEST_SAMPLES)
    if not samples:
        raise EncodingError("self-test samples", got=0, expected="at least 1")
    digest = bytes(cursor.take(layout.DIGEST_BYTES, "self-test digest"))
    cursor.finish("self-test")
    return SelfTest(seed, samples, digest)


def parse_entry(head: bytes, payload_bytes: int) -> TensorInfo:
    """Return the table entry that begins with `head` and whose payload takes `payload_bytes`."""
    from dcformat.contents_writer import entry_end

    return _read_entry(Cursor(head + entry_end(payload_bytes, True)), [], [])
