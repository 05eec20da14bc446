"""Makes files of other formats, valid and invalid: npz, npy, safetensors, PyTorch, Han's ``.net``, IDX, gzip, TFLite.

Each maker returns one file; containers are written anew around a change, so their own checksums hold.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from math import prod
from random import Random
from typing import Any

import numpy as np

from fuzz.primitives import EDGES, FLOATS, NAMES, change_bytes
from fuzz.tflite_files import tflite

#: Plain names, and names to which readers give a meaning.
_TENSORS = (
    "fc1.weight", "fc1.bias", "module.fc2.weight", "0.weight", "w", "w.npy", "w_orig", "w_mask", "0", "1", "mask",
    "bn.num_batches_tracked", "state_dict", "w.dcformat_scale", "__metadata__", "a/b", "conv.weight", "conv.bias",
)  # fmt: skip
_DESCRIPTIONS = (
    "<f4", "<f2", "<f8", "|i1", "|u1", "<u2", "<i8", "|b1", ">f4", ">i8", "<c8", "<c16", "|O", "<U3", "|S5", "|V4",
    "<M8[s]", "<m8", "<f16", "=f4", "f4", "i", "?", "<x9", "", "<f4,<f4", "<i4\\0", "(2,3)<f4", "O", "<u4", "<V0",
    "|S0",
)  # fmt: skip


def name(random: Random) -> str:
    """Return a tensor's name: a plain one, one with a meaning, or a hostile one."""
    if random.randrange(8):
        return random.choice(_TENSORS)
    return random.choice(NAMES).decode("utf-8", "replace")


def array(random: Random) -> np.ndarray[Any, Any]:
    """Return a small array, special values included, of a dtype that may be unsupported."""
    shape = tuple(random.choice((0, 1, 2, 3, 4, 9)) for _ in range(random.choice((0, 1, 2, 2, 2, 4))))
    shape = shape if random.randrange(4) else (random.randrange(4), 6)
    count = prod(shape)
    kind = random.choice(("<f4", "<f4", "<f4", "<f2", "|i1", "<f8", "|u1", "<u2", "<i8", "|b1", "<c8", ">f4"))
    if kind in ("|b1", "|u1"):
        return np.frombuffer(bytes(random.getrandbits(1) for _ in range(count)), np.uint8).reshape(shape).astype(kind)
    pool = [0.0, 0.0, 1.0, -1.0, 0.5, 100.0]
    if random.randrange(12) == 0:
        pool += [float("nan"), float("inf"), -0.0]
    with np.errstate(all="ignore"):
        values = np.array([random.choice(pool) for _ in range(count)], "<f8")
        if kind in ("|i1", "<u2", "<i8"):
            values = np.nan_to_num(values)
        return values.astype(kind).reshape(shape)


# --- NumPy ----------------------------------------------------------------------------------------------------------


def npy(random: Random) -> bytes:
    """Return an ``.npy`` file: right, or with a header that lies about dtype, order, shape or itself."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array(random), allow_pickle=False)
    data = buffer.getvalue()
    what = random.randrange(8)
    if what < 3:
        return data
    if what == 3:
        return change_bytes(random, data)
    start = data.index(b"{")
    body = data[data.index(b"\n", start) + 1 :]
    shape: Any = tuple(random.choice((*EDGES, -1, 3)) for _ in range(random.randrange(4)))
    fields = {"descr": random.choice(_DESCRIPTIONS), "fortran_order": bool(random.getrandbits(1)), "shape": shape}
    if what == 4:
        fields.pop(random.choice(list(fields)))
    if what == 5:
        fields[random.choice(list(fields))] = random.choice((None, "", (), (1.5,), True, 1 << 70, [("a", "<f4")]))
    header = repr(fields)
    if what == 6:
        header = change_bytes(random, header.encode()).decode("latin1")
    version = random.choice((1, 1, 2, 3, 9))
    raw = header.encode("utf-8", "replace") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(raw) & 65535)
    return b"\x93NUMPY" + bytes((version, 0)) + length + raw + body


def zipped(members: list[tuple[str, bytes]], method: int) -> bytes:
    """Return a zip archive of the members, whose names may be duplicate or odd."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")
        for member, data in members:
            archive.writestr(zipfile.ZipInfo(member), data, method)
    return buffer.getvalue()


def npz(random: Random) -> bytes:
    """Return an ``.npz`` archive."""
    suffixes = (".npy", ".npy", ".npy", ".npy", "", ".npy.npy", ".NPY", ".txt")
    members = [(name(random) + random.choice(suffixes), npy(random)) for _ in range(random.randrange(1, 5))]
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    if random.randrange(40) == 0:
        members.append(("bomb.npy", _npy_zeros(1 << random.randrange(16, 25))))
        method = zipfile.ZIP_DEFLATED
    data = zipped(members, method)
    return data if random.randrange(4) else change_bytes(random, data)


def _npy_zeros(count: int) -> bytes:
    header = repr({"descr": "|i1", "fortran_order": False, "shape": (count,)}).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(count)


# --- safetensors ----------------------------------------------------------------------------------------------------

_CODES = ("F32", "F16", "BF16", "I8", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "U16", "C64", "X", "F4", "E8M0")
_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "U16": 2}


def safetensors(random: Random) -> bytes:
    """Return a ``.safetensors`` file: right, or with a header that lies."""
    header: dict[str, Any] = {}
    body = b""
    for _ in range(random.randrange(1, 5)):
        code = random.choice(_CODES if random.randrange(3) == 0 else _CODES[:5])
        shape = [random.choice((0, 1, 2, 3, 4)) for _ in range(random.randrange(4))]
        size = prod(shape) * _SIZES.get(code, 4)
        header[name(random)] = {"dtype": code, "shape": shape, "data_offsets": [len(body), len(body) + size]}
        body += _floats(random, size)
    what = random.randrange(10)
    if what == 0:
        entry = random.choice(list(header.values()))
        field = random.choice(("shape", "data_offsets"))
        if entry[field]:
            entry[field][random.randrange(len(entry[field]))] = random.choice((*EDGES, -1, 1 << 63, 1 << 64, 1.5))
    elif what == 1:
        random.choice(list(header.values())).pop(random.choice(("dtype", "shape", "data_offsets")))
    elif what < 4:
        scale = random.choice(("0.5", "nan", "inf", "-1", "0", "1e39", "x", "", "1e-60", "0x1p3", "1_0", " 1 "))
        header["__metadata__"] = {f"{random.choice(list(header))}.dcformat_scale": scale, "format": "pt"}
    elif what == 4:
        header["__metadata__"] = random.choice((None, {}, {"a": 1}, "x", [], {"a": {"b": "c"}}))
    text = json.dumps(header, ensure_ascii=bool(random.getrandbits(1))).encode("utf-8", "replace")
    if what == 5:
        text = change_bytes(random, text)
    elif what == 6:
        text = text[:-1] + b", " + text[1:]  # every key twice
    text += b" " * (-len(text) % 8)
    length = len(text) if what != 7 else random.choice((*EDGES, (1 << 64) - 1))
    data = struct.pack("<Q", length) + text + body
    return data if random.randrange(6) else change_bytes(random, data)


def _floats(random: Random, size: int) -> bytes:
    pool = FLOATS if random.randrange(6) == 0 else FLOATS[:4]
    return b"".join(random.choice(pool)[::-1] if size % 4 else random.choice(pool) for _ in range(size // 4 + 1))[:size]


# --- PyTorch --------------------------------------------------------------------------------------------------------


@cache
def _torch_files() -> list[bytes]:
    """Return checkpoints as PyTorch writes them: plain, nested, and with every kind of tensor."""
    import torch

    out = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for state in _torch_states():
            for legacy in (False, True):
                buffer = io.BytesIO()
                try:
                    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
                except (RuntimeError, NotImplementedError):
                    continue
                out.append(buffer.getvalue())
    return out


def _torch_states() -> list[Any]:
    import torch

    plain = {"fc1.weight": torch.tensor([[1.0, 0.0], [0.5, -1.0]]), "fc1.bias": torch.zeros(2)}
    odd: dict[str, Any] = {
        "bf16": torch.ones(2, dtype=torch.bfloat16),
        "f8": torch.ones(2).to(torch.float8_e4m3fn),
        "bool": torch.ones(2, dtype=torch.bool),
        "i64": torch.arange(3),
        "complex": torch.ones(2, dtype=torch.complex64),
        "conj": torch.ones(2, dtype=torch.complex64).conj(),
        "neg": torch.ones(2, dtype=torch.complex64).conj().imag,
        "meta": torch.ones(2, device="meta"),
        "expanded": torch.ones(1).expand(1 << 20),
        "strided": torch.arange(8.0).reshape(2, 4).t(),
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "scalar": torch.tensor(-1.5),
        "inf": torch.tensor([float("inf")]),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    one, two = torch.ones(1), torch.ones(2)
    return [
        *({**plain, key: value} for key, value in odd.items()),
        plain, {"step": 3, "model_state": plain}, {"model": {"state_dict": plain}}, {"state_dict": {"module.w": two}},
        {0: one, "0": two}, {1: one}, [two], two, {}, {"a": {}}, 7, {"w": [1, 2]}, {("a", 1): one}, {None: one},
        {"w_orig": two, "w_mask": torch.tensor([True, False])}, {"w_orig": two, "w_mask": torch.ones(3)},
        {"_extra_state": b"x", "w": two},
    ]  # fmt: skip


def torch_file(random: Random) -> bytes:
    """Return a ``.pt`` file: right, changed within its archive, or changed as bytes."""
    data = random.choice(_torch_files())
    what = random.randrange(6)
    if what == 0:
        return data
    if what == 1 or not data.startswith(b"PK"):
        return change_bytes(random, data)
    if what == 2:
        return pickle.dumps(
            random.choice(({"w": np.ones(2)}, [1], {"w": object}, print, {"w": 1 + 2j})), random.randrange(6)
        )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = random.randrange(len(members))
    if what == 3 and len(members) > 1:
        del members[at]
    else:
        at = next((i for i, (member, _) in enumerate(members) if member.endswith("data.pkl")), at) if what == 4 else at
        members[at] = members[at][0], change_bytes(random, members[at][1])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for member, content in members:
            archive.writestr(zipfile.ZipInfo(member), content)
    return buffer.getvalue()


# --- Han's, IDX, gzip -----------------------------------------------------------------------------------------------

#: The tensors of the network for which `.net` files are made.
HAN_SHAPES = {"conv1.weight": (2, 1, 3, 3), "conv1.bias": (2,), "conv2.weight": (3, 2, 1, 1), "conv2.bias": (3,)}


def han(random: Random) -> bytes:
    """Return a ``.net`` file for `HAN_SHAPES`."""
    counts, body = [], b""
    for shape in (HAN_SHAPES["conv1.weight"], HAN_SHAPES["conv2.weight"]):
        count = random.randrange(prod(shape) + 1)
        gaps = [random.choice((0, 0, 1, random.randrange(16) if random.randrange(4) == 0 else 0)) for _ in range(count)]
        gaps += [0] * (count & 1)
        floats = [random.choice(FLOATS[:6] if random.randrange(300) else FLOATS) for _ in range(256 + shape[0])]
        pairs = bytes(low | high << 4 for low, high in zip(gaps[::2], gaps[1::2], strict=True))
        body += b"".join(floats) + random.randbytes(count) + pairs
        counts.append(random.choice(EDGES) & 0xFFFFFFFF if random.randrange(16) == 0 else count)
    data = struct.pack("<2I", *counts) + body
    return data if random.randrange(3) else change_bytes(random, data)


def idx(random: Random, rank: int = 3) -> bytes:
    """Return an IDX file of rank 3 (images) or 1 (labels)."""
    shape = [random.randrange(4), *([2, 3][: rank - 1])]
    body = random.randbytes(prod(shape))
    if random.randrange(4) == 0:
        shape[random.randrange(rank)] = random.choice(EDGES) & 0xFFFFFFFF
    data = bytes((0, 0, 8, rank)) + struct.pack(f">{rank}I", *shape) + body
    return data if random.randrange(3) else change_bytes(random, data)


def idx_gz(random: Random) -> bytes:
    """Return a compressed IDX file, perhaps damaged or cut, or a small file that expands to very many zeros."""
    if random.randrange(50) == 0:
        plain = bytes((0, 0, 8, 3)) + struct.pack(">3I", 1, 1, 1 << 20) + bytes(1 << random.randrange(10, 24))
    else:
        plain = idx(random)
    data = gzip.compress(plain, 1, mtime=0)
    return data if random.getrandbits(1) else change_bytes(random, data)


#: The maker of the input of each door for files of other formats.
MAKERS: dict[str, Callable[[Random], bytes]] = {
    "npz": npz, "npy": npy, "safetensors": safetensors, "pt": torch_file, "net": han, "idx": idx, "gz": idx_gz,
    "tflite": tflite,
}  # fmt: skip
