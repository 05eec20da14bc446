"""Small files cut at every length and with every bit flipped: nothing is ever silently wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import dcformat
from dcformat import layout
from dcformat.digest import crc32c
from dcformat.errors import ChecksumError, FormatError
from fuzz import container
from fuzz.doors import with_digest
from tests.format.hostile import VECTORS
from tests.format.strategies import COMPILED, large_vectors, same

#: One file for each form and coder is enough for tests that follow every change to the end.
FOLLOWED = [name for name in VECTORS if name.startswith(("model", "float32", "int8-sparse-shared"))]


def flips(data: bytes, step: int = 1) -> Iterator[tuple[int, bytes]]:
    for bit in range(0, 8 * len(data), step):
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        yield bit, bytes(changed)


def refusal(data: bytes) -> FormatError | None:
    """Return the error that checking a file raises; anything but a `FormatError` fails the test."""
    try:
        dcformat.verify(data)
    except FormatError as error:
        return error
    return None


def test_there_is_a_vector_for_every_way_to_code() -> None:
    assert len(VECTORS) > (250 if COMPILED else 60)
    assert sum(len(data) for data in VECTORS.values()) < 48_000


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_right(name: str) -> None:
    assert refusal(VECTORS[name]) is None


@pytest.mark.parametrize("name", VECTORS)
def test_every_truncation_is_noticed(name: str) -> None:
    data = VECTORS[name]
    for length in range(len(data)):
        with pytest.raises(FormatError):
            dcformat.load(data[:length])


def flips_noticed(data: bytes, step: int) -> int:
    """Require that a file is refused with any of its bits flipped, in steps; return how many were."""
    found = 0
    for bit, changed in flips(data, step):
        assert refusal(changed) is not None, f"bit {bit}"
        found += 1
        if bit < 8 * (len(data) - 8):  # everything except the digest, which loading does not check
            with pytest.raises(FormatError):
                dcformat.load(changed)
    return found


@pytest.mark.parametrize("name", VECTORS)
def test_flipped_bits_are_noticed(name: str) -> None:
    assert flips_noticed(VECTORS[name], 11) >= 8 * len(VECTORS[name]) // 11


@pytest.mark.slow
def test_every_flipped_bit_is_noticed() -> None:
    for data in VECTORS.values():
        assert flips_noticed(data, 1) == 8 * len(data)


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.slow
def test_every_flipped_bit_behind_right_checksums_is_noticed_or_harmless(name: str) -> None:
    """With right checksums, the structure or the content digest still reveals every change of meaning."""
    data = VECTORS[name]
    kept = dcformat.load(data)
    harmless = 0
    for bit, changed in flips(data):
        fixed = _checksums_right(changed, data)
        if fixed == data:
            continue
        error = refusal(fixed)
        if error is None:
            harmless += 1
            assert _same_model(fixed, kept), f"bit {bit}"
    # Harmless flips: minor versions (8 bits), and sometimes a code table that decodes the same symbols.
    assert harmless <= 8 + len(data)


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
def test_flipped_bits_of_long_streams() -> None:
    """Four parallel streams, planes, wide positions: the test flips some bits of each, mostly at the front."""
    random = np.random.default_rng(0)
    for name, data in large_vectors():
        kept = dcformat.load(data)
        dcformat.verify(data)
        for length in random.integers(0, len(data), 20):
            with pytest.raises(FormatError):
                dcformat.load(data[:length])
        for bit in (
            *random.integers(80, min(800, 8 * len(data) - 64), 40),
            *random.integers(0, 8 * len(data) - 64, 10),
        ):
            changed = bytearray(data)
            changed[bit >> 3] ^= 1 << (bit & 7)
            assert refusal(bytes(changed)) is not None
            fixed = _checksums_right(bytes(changed), data)
            assert refusal(fixed) is not None or fixed == data or _same_model(fixed, kept), f"{name}: bit {bit}"


def _checksums_right(changed: bytes, data: bytes) -> bytes:
    """Correct the CRCs of the changed file's front and blocks where the original has them; keep the digest."""
    blocks = [len(block) for block in container.parse(data).blocks()]
    begin = len(data) - layout.DIGEST_BYTES - sum(blocks) - layout.CRC_BYTES * len(blocks)
    out = bytearray(changed)
    out[begin - 4 : begin] = crc32c(bytes(out[: begin - 4]))
    for length in blocks:
        out[begin + length : begin + length + 4] = crc32c(bytes(out[begin : begin + length]))
        begin += length + 4
    return bytes(out)


def _same_model(data: bytes, kept: dcformat.Model) -> bool:
    found = dcformat.load(data)
    return list(found.tensors) == list(kept.tensors) and all(
        same(found.tensors[name], kept.tensors[name]) for name in kept.tensors
    )


def test_the_digest_notices_changes_behind_right_checksums() -> None:
    """The checksums of a file were corrected after its payload changed."""
    data = VECTORS["float32-dense-raw"]
    file = container.parse(data)
    payload = file.entries[0].payload
    file.entries[0].payload = bytes((*payload[:3], payload[3] ^ 1, *payload[4:]))
    changed = with_digest(file.build())
    dcformat.verify(changed)  # its digest was corrected too
    with pytest.raises(ChecksumError, match="content digest"):
        dcformat.verify(changed[:-8] + data[-8:])
