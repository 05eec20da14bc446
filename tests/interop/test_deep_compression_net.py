"""The file format of Deep Compression's authors, on a small convolutional network made for the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_interop import UnfitError, read_deep_compression_net

from dcformat.architectures import Architecture
from dcformat.graph import Graph

SHAPES = {"a.weight": (2, 3, 3, 3), "a.bias": (2,), "b.weight": (4, 2, 1, 1), "b.bias": (4,)}
NETWORK = Architecture("made-up", SHAPES, lambda names, preprocessing: Graph.sequential((3, 8, 8), (), preprocessing))


def layer(gaps: list[int], codes: list[int], outputs: int) -> tuple[bytes, npt.NDArray[np.float32]]:
    codebook = np.linspace(-1, 1, 256).astype("<f4")
    codebook[0] = 0
    bias = np.arange(outputs).astype("<f4")
    nibbles = [*gaps, 0] if len(gaps) % 2 else gaps
    packed = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    return codebook.tobytes() + bias.tobytes() + bytes(codes) + packed, codebook


def whole(first: bytes, second: bytes, counts: tuple[int, int]) -> bytes:
    return np.array(counts, "<u4").tobytes() + first + second


def test_a_file_made_by_hand(tmp_path: Path) -> None:
    # Positions 0, 15 (a filler on 9 with code 0), 53; and 7.
    first, codebook = layer([0, 8, 5, 15, 15, 5], [200, 0, 10, 0, 0, 255], 2)
    second, _ = layer([7], [3], 4)
    (tmp_path / "a.net").write_bytes(whole(first, second, (6, 1)))
    read = read_deep_compression_net(tmp_path / "a.net", NETWORK)
    expected = np.zeros(54, np.float32)
    expected[[0, 15, 53]] = codebook[[200, 10, 255]]
    assert read["a.weight"].values.reshape(-1).tolist() == expected.tolist()
    assert read["b.weight"].values.reshape(-1).tolist() == [0] * 7 + [codebook[3]]
    assert read["a.bias"].values.tolist() == [0, 1]
    assert read["b.bias"].values.tolist() == [0, 1, 2, 3]
    assert list(read) == list(SHAPES)


@pytest.mark.parametrize("length", [0, 3, 7, 8, 100, -1])
def test_another_length(tmp_path: Path, length: int) -> None:
    raw = whole(layer([0], [1], 2)[0], layer([7], [3], 4)[0], (1, 1))
    (tmp_path / "a.net").write_bytes(raw[:length] if length >= 0 else raw + b"\0")
    with pytest.raises(UnfitError, match=r"a\.net: expected .* bytes"):
        read_deep_compression_net(tmp_path / "a.net", NETWORK)


def test_positions_past_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.net").write_bytes(whole(layer([0], [1], 2)[0], layer([8], [3], 4)[0], (1, 1)))
    with pytest.raises(UnfitError, match=r"b\.weight: expected positions below 8, found 8"):
        read_deep_compression_net(tmp_path / "a.net", NETWORK)


def test_a_last_byte_with_a_gap_too_many(tmp_path: Path) -> None:
    raw = bytearray(whole(layer([0], [1], 2)[0], layer([7], [3], 4)[0], (1, 1)))
    raw[-1] |= 5 << 4
    (tmp_path / "a.net").write_bytes(raw)
    with pytest.raises(UnfitError, match=r"a\.net: b\.weight: expected a zero after the last gap, found 5$"):
        read_deep_compression_net(tmp_path / "a.net", NETWORK)


def test_more_entries_than_weights(tmp_path: Path) -> None:
    (tmp_path / "a.net").write_bytes(np.array((55, 0), "<u4").tobytes() + bytes(10_000))
    with pytest.raises(UnfitError, match="expected at most 54 entries, found 55"):
        read_deep_compression_net(tmp_path / "a.net", NETWORK)


def test_a_codebook_that_is_not_finite(tmp_path: Path) -> None:
    raw = bytearray(whole(layer([0], [1], 2)[0], layer([7], [3], 4)[0], (1, 1)))
    raw[8:12] = np.array([np.nan], "<f4").tobytes()
    (tmp_path / "a.net").write_bytes(raw)
    with pytest.raises(UnfitError, match=r"a\.weight: expected finite values"):
        read_deep_compression_net(tmp_path / "a.net", NETWORK)


def test_reading_stops_at_the_largest_possible_size(tmp_path: Path) -> None:
    with (tmp_path / "a.net").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnfitError, match=r"a\.net: expected 2,080 bytes for its counts, found 2,205 bytes or more"):
        read_deep_compression_net(tmp_path / "a.net", NETWORK)
