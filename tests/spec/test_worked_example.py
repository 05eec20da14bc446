"""The worked example of the specification decodes, byte by byte, to the matrix that is printed above it."""

from __future__ import annotations

import hashlib
import re
import struct

import numpy as np

import dcformat
from tests.spec.support import (
    SPEC,
    reference,
    reference_coders,
    reference_decoder,
    reference_payloads,
    reference_reader,
)

TEXT = (SPEC / "dcformat.md").read_text(encoding="utf-8").partition("## 14. Worked example")[2]


def dump() -> bytes:
    """Return the bytes of the dump; each line gives its offset."""
    data = b""
    for offset, line in re.findall(r"^    ([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  .*)$", TEXT, re.MULTILINE):
        assert int(offset, 16) == len(data)
        data += bytes.fromhex(line)
    return data


def matrix() -> np.ndarray:
    """Return the example's matrix."""
    rows = re.findall(r"^    ((?:-?[\d.]+ +){5}-?[\d.]+)$", TEXT, re.MULTILINE)
    return np.array([[float(number) for number in row.split()] for row in rows], np.float32)


class Recorder(reference_coders.RangeDecoder):
    """A range decoder that remembers its bits."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.bits: list[int] = []

    def bit(self, p: int) -> int:
        """Decode a bit and keep it."""
        self.bits.append(super().bit(p))
        return self.bits[-1]


def test_length() -> None:
    assert f"All {len(dump())} bytes" in TEXT
    assert matrix().shape == (4, 6)


def test_reference_decoder() -> None:
    tensors = reference_decoder.decode(dump()).tensors
    assert list(tensors) == ["w"]
    assert tensors["w"].dense() == matrix().tobytes()
    assert tensors["w"].positions == [1, 5, 9, 18, 20, 23]


def test_package() -> None:
    with dcformat.open(dump()) as file:
        file.verify()
        assert file.tensor("w").to_dense().tobytes() == matrix().tobytes()
        info = file.info("w")
        assert (info.form, info.stored, info.codebook_size, info.payload_bytes) == ("sparse", 6, 3, 14)
    assert reference(dcformat.dumps(dcformat.load(dump())))["digest"] == dump()[-8:].hex()


def test_checksum_in_the_text() -> None:
    (found,) = re.findall(r"CRC-32C of bytes 0000 to 0014: 0x([0-9a-f]{8})", TEXT)
    assert int(found, 16) == reference_decoder.crc32c(dump()[:0x15])


def test_bits_in_the_text() -> None:
    """The text gives the bits of the streams in the order in which they are read."""
    line, bits = re.findall(r"^    ([0-9a-f ]+) = ([01 ]+)$", TEXT, re.MULTILINE)[0]
    raw = bytes.fromhex(line)
    assert raw == dump()[0x23:0x27]
    assert bits.split() == [f"{byte:08b}"[::-1] for byte in raw]
    rows = re.findall(r"^\| ([01 ]+) \| (?:gaps|code symbols|padding)", TEXT, re.MULTILINE)
    assert "".join(rows).replace(" ", "") == bits.replace(" ", "")


def test_digest_in_the_text() -> None:
    places = hashlib.sha256(struct.pack("<QQ", 0, 0x940222)).digest()
    values = hashlib.sha256(struct.pack("<6f", 0.5, -0.25, 0.5, 0.5, -0.25, 1)).digest()
    tensor = hashlib.sha256(b"\x00\x02" + struct.pack("<QQf", 4, 6, 1) + b"\x00" + places + values).digest()
    assert hashlib.sha256(b"\x01w" + tensor).digest()[:8] == dump()[-8:]


def test_bits_of_the_head_in_the_text() -> None:
    """The range decoder gives the bits of the head's table one after the other."""
    coder = Recorder(dump()[0x1C:0x22])
    entry = reference_reader.Entry("w", 4, "float32", 4, (4, 6), 1.0, 6, 3, 14, True)
    reference_payloads.read_head(coder, reference_payloads.read_coding(1, entry))
    rows = TEXT.partition("| bits | what |")[2].partition("By length and symbol")[0]
    bits = "".join(re.findall(r"^\| ([01 ]+) \|", rows, re.MULTILINE)).replace(" ", "")
    assert "".join(map(str, coder.bits)) == bits
