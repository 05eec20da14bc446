"""Matrices for the tests of coders 2 and 3, and their round trip."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from dcformat.codecs.rangecoder import Decoder, Encoder

Array = npt.NDArray[np.generic]


class Matrix(NamedTuple):
    """A sparse matrix of labels, as the coders take it."""

    pointers: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    labels: npt.NDArray[np.uint16]
    lines: int
    length: int
    symbols: int
    negatives: int


def matrix(
    seed: int, lines: int, length: int, density: float, symbols: int, negatives: int, *, dead: float = 0.0
) -> Matrix:
    """Draw a matrix; `dead` is how many of its lines and columns are empty."""
    random = np.random.default_rng(seed)
    there = random.random((lines, length)) < density
    there[random.random(lines) < dead] = False
    there[:, random.random(length) < dead] = False
    pointers = np.zeros(lines + 1, np.int64)
    np.cumsum(there.sum(1), out=pointers[1:])
    labels = random.integers(0, symbols, int(pointers[-1])).astype(np.uint16)
    return Matrix(pointers, np.nonzero(there)[1].astype(np.int32), labels, lines, length, symbols, negatives)


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    """Matrices of all shapes and densities, some lines and columns of them empty."""
    symbols = draw(st.sampled_from([1, 2, 3, 5, 16, 255, 300]))
    return matrix(
        draw(st.integers(0, 2**32)),
        draw(st.integers(1, 12)),
        draw(st.sampled_from([1, 2, 3, 9, 28, 56])),
        draw(st.sampled_from([0.0, 0.03, 0.3, 0.9, 1.0])),
        symbols,
        draw(st.integers(0, symbols)),
        dead=draw(st.sampled_from([0.0, 0.0, 0.5])),
    )


def coded(coder: ModuleType, given: Matrix) -> bytes:
    """Code a matrix."""
    encoder = Encoder(0)
    coder.encode(encoder, *given)
    return encoder.take()


def check_round_trip(coder: ModuleType, given: Matrix) -> bytes:
    """Code a matrix, decode it, compare all; return its bytes."""
    data = coded(coder, given)
    decoder = Decoder(np.frombuffer(data, np.uint8))
    pointers, indices, labels = coder.decode(
        decoder, given.lines, given.length, len(given.indices), given.symbols, given.negatives
    )
    decoder.finish()
    np.testing.assert_array_equal(pointers, given.pointers)
    np.testing.assert_array_equal(indices, given.indices)
    np.testing.assert_array_equal(labels, given.labels)
    assert (pointers.dtype, indices.dtype, labels.dtype) == (np.int64, np.int32, np.uint16)
    return data


def check_decoded(result: tuple[Array, Array, Array], lines: int, length: int, stored: int, symbols: int) -> None:
    """Whatever bytes were decoded, the result is a matrix of that many entries."""
    pointers, indices, labels = result
    assert pointers[0] == 0 and pointers[-1] == stored == len(indices) == len(labels)
    assert (np.diff(pointers) >= 0).all() and len(pointers) == lines + 1
    assert ((indices >= 0) & (indices < length)).all() and (labels < symbols).all()
    for start, stop in itertools.pairwise(pointers):
        assert (np.diff(indices[start:stop]) > 0).all()
