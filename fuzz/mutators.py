"""Mutates `.dcf` files: their bytes, or their fields, after which lengths and checksums are corrected.

Everything is drawn from one `random.Random`, so a seed identifies an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from dcformat import layout
from dcformat.cursor import varint
from dcformat.model import STORAGE
from fuzz import container
from fuzz.container import Entry, File, ParseError
from fuzz.graph_mutators import change_graph
from fuzz.primitives import EDGES, FLOATS, NAMES, change_bytes, number

#: Bytes of a value of each dtype.
_ITEMS = tuple(STORAGE[name].itemsize for name in layout.DTYPES)

# --- a tensor -------------------------------------------------------------------------------------------------------


def _name(random: Random, file: File, entry: Entry) -> None:
    entry.name = random.choice((*NAMES, random.choice(file.entries).name, random.randbytes(random.randrange(1, 9))))


def _form(random: Random, file: File, entry: Entry) -> None:
    entry.form = random.randrange(8)
    if random.getrandbits(1):
        entry.stored, entry.codebook_size = random.choice(file.entries).stored, 1 + random.randrange(20)


def _dtype(random: Random, file: File, entry: Entry) -> None:
    known = len(layout.DTYPES) if random.randrange(2) else layout.KERNEL_DTYPES
    entry.dtype, entry.scale = random.randrange(known), random.choice(FLOATS)


def _scale(random: Random, file: File, entry: Entry) -> None:
    entry.dtype, entry.scale = 3, random.choice((*FLOATS, random.randbytes(4)))


def _dimension(random: Random, file: File, entry: Entry) -> None:
    dims = list(entry.dims) or [1]
    at = random.randrange(len(dims))
    dims[at] = number(random, dims[at])
    entry.dims = tuple(dims)


def _shape(random: Random, file: File, entry: Entry) -> None:
    dims = list(entry.dims)
    what = random.randrange(6)
    if what == 0:
        dims.insert(random.randrange(len(dims) + 1), random.choice((0, 1, 1, 2, 1 << 20, 1 << 28, 1 << 40)))
    elif what == 1 and dims:
        del dims[random.randrange(len(dims))]
    elif what == 2:
        random.shuffle(dims)
    elif what == 3:
        dims = [random.choice(EDGES) for _ in range(random.randrange(1, 4))]
    elif what == 4:
        dims = [1] * random.choice((6, 7, 8, 9, 20)) + dims[:2]
    else:
        dims = list(random.choice(file.entries).dims)
    entry.dims = tuple(dims)


def _numbers(random: Random, file: File, entry: Entry) -> None:
    if random.getrandbits(1):
        entry.stored = number(random, entry.stored)
    else:
        entry.codebook_size = number(random, entry.codebook_size)


def _lie(random: Random, file: File, entry: Entry) -> None:
    field = random.choice(("name", "kind", "dims", "scale", "stored", "codebook_size", "back", "length"))
    value = varint(number(random, 2 * len(entry.payload) + 1))
    if random.randrange(4) == 0:
        value = value[:-1] + bytes((value[-1] | 128, 0))  # longer than necessary
    entry.lies[field] = value


def _bomb(random: Random, file: File, entry: Entry) -> None:
    """Let a few bytes stand for very many elements."""
    dims = list(entry.dims) or [1]
    at = random.randrange(len(dims)) if random.getrandbits(1) else 0
    dims[at] = random.choice((1 << random.randrange(10, 41), dims[at] * (1 << random.randrange(20)), 0))
    entry.dims = tuple(dims)
    if random.getrandbits(1):
        entry.form, entry.payload = (
            layout.FORM_CONSTANT,
            b"\0" + (2 * random.choice(FLOATS))[-_ITEMS[entry.dtype % len(_ITEMS)] :],
        )
    elif random.getrandbits(1):
        entry.form, entry.stored = layout.FORM_SPARSE, 0
        entry.payload = bytes((random.choice((0, 1, 2, 3, 16, 17, 18, 19)), 0, *random.choice(((1, 0), (0,), ()))))


def _copy(random: Random, file: File, entry: Entry) -> None:
    """Make the entry a copy of another one, or of one that does not exist."""
    entry.form = container.FORM_COPY
    entry.back = random.choice((1, 1, 1, random.randrange(len(file.entries) + 2), number(random, 1)))
    if random.randrange(4) == 0:
        entry.lies["kind"] = bytes((container.FORM_COPY | random.randrange(32) << 3,))


def _swap_payload(random: Random, file: File, entry: Entry) -> None:
    entry.payload = random.choice(file.entries).payload


_ENTRY_CHANGES = (
    _name,
    _form,
    _dtype,
    _scale,
    _dimension,
    _dimension,
    _shape,
    _numbers,
    _lie,
    _bomb,
    _copy,
    _swap_payload,
)


# --- a payload ------------------------------------------------------------------------------------------------------


def _payload(random: Random, file: File, entry: Entry, other: bytes) -> None:
    """Change one part of a payload (coding byte, chunking, head, chunk table or a chunk), or its bytes."""
    what = random.randrange(12)
    try:
        parts = container.parse_payload(entry)
    except ParseError:
        entry.payload = change_bytes(random, entry.payload, other)
        return
    if what < 2:
        parts.coding = random.choice((parts.coding ^ 1 << random.randrange(8), random.randrange(128)))
    elif what == 2:
        parts.each = number(random, parts.each)
    elif what < 5 and parts.head is not None:
        parts.head = change_bytes(random, parts.head, other)
    elif what == 5 and parts.table:
        row = random.choice(parts.table)
        at = random.randrange(len(row))
        row[at] = number(random, row[at])
    elif what == 6 and parts.table:
        random.shuffle(parts.table if random.getrandbits(1) else parts.chunks)
    elif what == 7 and parts.table:
        count = random.choice((1, 2, 17, 300))
        parts.table += [list(parts.table[-1])] * count
        parts.each = random.choice((1, parts.each))
    elif what == 8:
        entry.payload = random.choice((b"", entry.payload[:1], random.randbytes(random.randrange(40))))
        return
    else:
        at = random.randrange(len(parts.chunks))
        old = parts.chunks[at]
        parts.chunks[at] = change_bytes(random, old, other)
        if parts.table and at < len(parts.table):
            parts.table[at][-1] += len(parts.chunks[at]) - len(old)
            parts.table[at][-1] = max(parts.table[at][-1], 0)
    entry.payload = parts.build()


# --- the other sections ---------------------------------------------------------------------------------------------


def _texts(random: Random, file: File) -> None:
    """Make labels or metadata fewer, more, absent, duplicate, unordered, too long, not text, or wrongly counted."""
    pairs = bool(random.getrandbits(1))
    kind = layout.SECTION_METADATA if pairs else layout.SECTION_LABELS
    try:
        values = container.parse_texts(file.section(kind) or b"\0", pairs)
    except ParseError:
        return
    at, what = random.randrange(len(values) + 1), random.randrange(7)
    if what == 0:
        del values[at:]
    elif what == 1:
        values[at:at] = [random.choice(NAMES) for _ in range(2 if pairs else random.choice((1, 1, 3, 40)))]
    elif what == 2 and values:
        values[at - 1] = random.choice((*NAMES, b"x" * 1024, b"x" * 1025, b"\x1b]0;x\7"))
    elif what == 3:
        random.shuffle(values)
    elif what == 4 and values:
        values *= 2
    count = len(values) // (2 if pairs else 1)
    file.put(kind, container.texts(values, number(random, count) if what > 5 else count))


def _self_test(random: Random, file: File) -> None:
    seed, samples = number(random, 5), random.choice((1, 2, 64, 1024, number(random, 4)))
    file.put(
        layout.SECTION_SELF_TEST, varint(seed) + varint(samples) + random.randbytes(random.choice((8, 8, 8, 7, 9)))
    )


def _sections(random: Random, file: File) -> None:
    what = random.randrange(5)
    if what == 0:
        file.sections.append((random.choice((0, 6, 127, 128, 129, 255)), random.randbytes(random.randrange(20))))
    elif what == 1 and file.sections:
        del file.sections[random.randrange(len(file.sections))]
    elif what == 2 and file.sections:
        file.sections.append(random.choice(file.sections))
    elif what == 3:
        file.ordered = False
        random.shuffle(file.sections)
    elif file.sections:
        at = random.randrange(len(file.sections))
        kind, body = file.sections[at]
        file.sections[at] = kind, change_bytes(random, body)


def _entries(random: Random, file: File) -> None:
    at, what = random.randrange(len(file.entries)), random.randrange(7)
    if what == 0:
        file.entries.insert(at, file.entries[at].copy())
        file.entries[at].name += b"2" if random.getrandbits(1) else b""
    elif what == 1:
        del file.entries[at]
    elif what == 2:
        random.shuffle(file.entries)
    elif what == 3:
        file.entries[at].fresh ^= True
    elif what == 4:
        file.count = number(random, len(file.entries))
    elif what == 5:
        copies = [file.entries[at].copy() for _ in range(random.choice((2, 7, 60)))]
        for i, entry in enumerate(copies):
            entry.name, entry.fresh = entry.name + b"%d" % i, bool(random.getrandbits(1))
        file.entries += copies
    else:
        file.entries[at].payload += random.randbytes(random.choice((1, 1, 5, 4096)))


def _frame(random: Random, file: File) -> None:
    what = random.randrange(6)
    if what == 0:
        file.minor = random.randrange(256)
    elif what == 1:
        file.major = random.choice((0, 1, 2, 255))
    elif what == 2:
        file.after = random.randbytes(random.randrange(1, 5))
    elif what == 3:
        file.digest = random.randbytes(random.choice((0, 7, 8)))
    elif what == 4:
        file.change_contents = lambda plain: change_bytes(random, plain)
    else:
        file.packed = True
        if random.getrandbits(1):
            file.change_stored = lambda stored: change_bytes(random, stored)


def mutate(random: Random, seed: File, others: Sequence[File]) -> bytes:
    """Return a file made from a seed by one to three changes of its fields, with pieces of `others`."""
    file = seed.copy()
    if file.packed and random.randrange(8):
        file.packed = False  # packing takes milliseconds
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        _mutate_once(random, file, random.choice(others))
    data = file.build()
    return data if random.randrange(64) else change_bytes(random, data)


def _mutate_once(random: Random, file: File, other: File) -> None:
    what = random.randrange(100)
    if not file.entries:
        what += 60
    if what < 28:
        random.choice(_ENTRY_CHANGES)(random, file, random.choice(file.entries))
    elif what < 56:
        donor = random.choice(other.entries).payload if other.entries else b""
        _payload(random, file, random.choice(file.entries), donor)
    elif what < 60:
        _splice(random, file, other)
    elif what < 78:
        change_graph(random, file)
    elif what < 83:
        _texts(random, file)
    elif what < 87:
        _self_test(random, file)
    elif what < 91:
        _sections(random, file)
    elif what < 96 and file.entries:
        _entries(random, file)
    else:
        _frame(random, file)


def _splice(random: Random, file: File, other: File) -> None:
    """Take a tensor or the sections of another file."""
    if other.entries and random.getrandbits(1):
        taken = random.choice(other.entries).copy()
        if random.getrandbits(1):
            file.entries.append(taken)
        else:
            file.entries[random.randrange(len(file.entries))].payload = taken.payload
    else:
        file.sections = list(other.sections)
