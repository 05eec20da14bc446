"""Doors for the files that packing of large checkpoints reads beside tensors, and the makers of their inputs.

These are indexes of several files, descriptions of the safetensors files that a checkpoint was made from, and journals
of interrupted runs.
"""

from __future__ import annotations

import json
import zlib
from random import Random
from typing import Any

import numpy as np
from dcformat_interop import UnfitError
from dcformat_interop.packing.elements import Findings
from dcformat_interop.packing.journal import DoneChunk, DoneTensor, Journal, PackingWork
from dcformat_interop.packing.origin import ORIGIN_KIND, read_origin
from dcformat_interop.packing.packed_files import INDEX_NAME, opened_files
from dcformat_interop.packing.shards import find_shards
from safetensors.numpy import save_file

import dcformat
from dcformat.errors import FormatError
from dcformat.model import Extension, Model
from fuzz.doors import Door, folder, most_memory, require
from fuzz.foreign import safetensors
from fuzz.primitives import NAMES, change_bytes

#: Names of files in an index: those that are there, and those that lead elsewhere.
_FILES = (
    "a.dcf", "b.dcf", "a.safetensors", "c.dcf", "../a.dcf", "/etc/hostname", "a.dcf/", "", ".", "a\\b", "c:a", "\0",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (None, 0, -1, 1 << 70, 1.5, True, "", "x", [], {}, [[]], {"a": {}}, float("nan"))
#: Between the lines of a journal and its data, in an input.
_CUT = b"\n--\n"


# --- makers ---------------------------------------------------------------------------------------------------------


def index(random: Random) -> bytes:
    """Return an index of tensors in files: right, or with names, files or values that are not."""
    where: dict[str, Any] = {"w": "a.dcf", "v": "b.dcf"}
    for _ in range(random.randrange(3)):
        name = random.choice(("w", "v", "x", random.choice(NAMES).decode("utf-8", "replace")))
        where[name] = random.choice(_FILES) if random.randrange(4) else random.choice(_VALUES)
    content: Any = {"metadata": {"total_size": 24}, "weight_map": where}
    if random.randrange(6) == 0:
        content[random.choice(("metadata", "weight_map"))] = random.choice(_VALUES)
    return _spoiled(random, json.dumps(content).encode())


def origin(random: Random) -> bytes:
    """Return a description of safetensors files, compressed as in a file."""
    headers = [_header(safetensors(random)).decode("utf-8", "replace") for _ in range(2)]
    files: Any = [[f"{number}.safetensors", header] for number, header in enumerate(headers)]
    content = {"index": None, "files": files}
    what = random.randrange(8)
    if what < 3:
        content["index"] = ["model.safetensors.index.json", "{}"]
    elif what == 3:
        content[random.choice(("index", "files"))] = random.choice(_VALUES)
    elif what == 4:
        files[random.randrange(2)] = random.choice((*_VALUES, ["../x", headers[0]], ["0.safetensors", headers[1]]))
    text = _spoiled(random, json.dumps(content).encode())
    if random.randrange(16) == 0:
        text = b" " * (1 << 20) + text
    return _spoiled(random, zlib.compress(text))


def _header(data: bytes) -> bytes:
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def journal(random: Random) -> bytes:
    """Return the two files of a journal, one after the other, with a place changed in most of them."""
    path = folder() / "made.journal"
    with Journal(path, _WORK) as made:
        parts = [made.put(random.randbytes(random.randrange(40))) for _ in range(3)]
        made.add_tensor("w", DoneTensor(b"head", bytes(8), tuple(parts[:2]), Findings()))
        made.add_chunk("v", random.randrange(3), DoneChunk(parts[2], random.randrange(9)))
    lines, data = path.read_bytes(), _data(path).read_bytes()
    made.remove()
    if random.randrange(3) == 0:
        entries = lines.split(b"\n")
        at = random.randrange(2, len(entries) - 1)
        content = json.loads(entries[at])
        content[random.choice(list(content))] = random.choice(_VALUES)
        entries[at] = json.dumps(content).encode()
        lines = b"\n".join(entries)
    return _spoiled(random, lines) + _CUT + _spoiled(random, data)


def _spoiled(random: Random, data: bytes) -> bytes:
    """Return bytes unchanged, changed, or cut short."""
    what = random.randrange(8)
    if what == 0:
        return change_bytes(random, data)
    return data[: random.randrange(len(data) + 1)] if what == 1 else data


#: The makers of these doors' inputs.
MAKERS = {"index": index, "origin": origin, "journal": journal}


# --- doors ----------------------------------------------------------------------------------------------------------


def read_shards(data: bytes) -> str:
    """Read an index of `.dcf` files, and one of safetensors files, in a directory with such files."""
    there = folder() / "shards"
    there.mkdir(exist_ok=True)
    for file, name in (("a.dcf", "w"), ("b.dcf", "v")):
        tensor = dcformat.from_dense(name, np.arange(3, dtype=np.float32))
        if not (there / file).exists():
            dcformat.save(Model({name: tensor}), there / file)
    (there / INDEX_NAME).write_bytes(data)
    with opened_files(there, max_memory=most_memory(data)) as packed:
        for name in packed.names:
            require(sum(len(piece) for piece in packed.pieces(name)) == packed.info(name).size, "another size")
    require(set(packed.names) == set(json.loads(data)["weight_map"]), "other tensors")
    return "ok"


def read_sources(data: bytes) -> str:
    """Read an index of safetensors files with any names."""
    there = folder() / "sources"
    there.mkdir(exist_ok=True)
    for file, name in (("a.dcf", "w"), ("b.dcf", "v")):
        if not (there / file).exists():
            save_file({name: np.arange(3, dtype=np.float32)}, there / file)
    path = there / "model.safetensors.index.json"
    path.write_bytes(data)
    found = find_shards(path, max_memory=most_memory(data))
    require([shard.name for shard in found.shards] == ["a.dcf", "b.dcf"], "other files")
    return "ok"


def read_description(data: bytes) -> str:
    """Read a description of safetensors files; their names stay in a directory."""
    found = read_origin("x.dcf", [Extension(ORIGIN_KIND, data)], most_memory(data))
    require(found is not None, "no description")
    for name in [] if found is None else found.names:
        require(".." not in name.split("/") and not name.startswith("/"), "a name that leads elsewhere")
    return "ok"


def resume(data: bytes) -> str:
    """Open a journal; the parts that it keeps can be read, and the next run keeps them again."""
    lines, _, stored = data.partition(_CUT)
    path = folder() / "x.journal"
    path.write_bytes(lines)
    _data(path).write_bytes(stored)
    try:
        with Journal(path, _WORK) as first:
            kept = _kept(first)
        with Journal(path, _WORK) as second:
            require(_kept(second) == kept, "a second run keeps something else")
            require(not second.restarted, "a second run finds something of no use")
    finally:
        path.unlink(missing_ok=True)
        _data(path).unlink(missing_ok=True)
    return "ok" if kept else "empty"


_WORK = PackingWork({"version": "1"}, {"w": ["a", 1], "v": ["b", 2]})


def _kept(journal: Journal) -> list[bytes]:
    places = [part for tensor in journal.tensors.values() for part in tensor.parts]
    places += [chunk.place for chunk in journal.chunks.values()]
    return [b"".join(journal.read(place)) for place in places]


def _data(path: Any) -> Any:
    return path.with_name(path.name + ".data")


def doors() -> list[Door]:
    """Return these doors."""
    theirs, wide = (UnfitError, FormatError), 16 << 20
    return [
        Door("index", read_shards, 0.5, "index", wide, 1.0, theirs),
        Door("index-of-safetensors", read_sources, 0.3, "index", wide, 0.5, theirs),
        Door("origin", read_description, 0.5, "origin", wide, 0.5, theirs),
        Door("journal", resume, 0.3, "journal", wide, 1.0, (FileExistsError,)),
    ]
