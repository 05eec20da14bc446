"""Matrices for the tests of coders 2 and 3, and their round trip."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from dcformat.codecs import ContextCoder
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.csr_view import CsrView
from dcformat.codecs.rangecoder import Decoder, Encoder


class Matrix(NamedTuple):
    """A sparse matrix of code symbols, in the form that the coders take."""

    view: CsrView
    alphabet: Alphabet


def matrix(
    seed: int, lines: int, length: int, density: float, symbols: int, negatives: int, *, empty: float = 0.0
) -> Matrix:
    """Draw a matrix; `empty` is the share of its lines and columns without entries."""
    random = np.random.default_rng(seed)
    there = random.random((lines, length)) < density
    there[random.random(lines) < empty] = False
    there[:, random.random(length) < empty] = False
    indptr = np.zeros(lines + 1, np.int64)
    np.cumsum(there.sum(1), out=indptr[1:])
    codes = random.integers(0, symbols, int(indptr[-1])).astype(np.uint16)
    view = CsrView(indptr, np.nonzero(there)[1].astype(np.int32), codes, lines, length)
    return Matrix(view, Alphabet(symbols, negatives))


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    """Draw matrices of all shapes and densities, some of whose lines and columns are empty."""
    symbols = draw(st.sampled_from([1, 2, 3, 5, 16, 255, 300]))
    return matrix(
        draw(st.integers(0, 2**32)),
        draw(st.integers(1, 12)),
        draw(st.sampled_from([1, 2, 3, 9, 28, 56])),
        draw(st.sampled_from([0.0, 0.03, 0.3, 0.9, 1.0])),
        symbols,
        draw(st.integers(0, symbols)),
        empty=draw(st.sampled_from([0.0, 0.0, 0.5])),
    )


def given_matrix(rows: list[list[int]], codes: list[int], length: int, symbols: int, negatives: int) -> Matrix:
    """Make a matrix from the indices of each line's entries and the codes of all entries."""
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    indices = np.array([index for row in rows for index in row], np.int32)
    return Matrix(CsrView(indptr, indices, np.array(codes, np.uint16), len(rows), length), Alphabet(symbols, negatives))


def decoder(data: bytes) -> Decoder:
    """Decode bytes."""
    return Decoder(np.frombuffer(data, np.uint8))


def coded(coder: ContextCoder, given: Matrix) -> bytes:
    """Code a matrix."""
    encoder = Encoder(0)
    coder.encode(encoder, *given)
    return encoder.take()


def check_round_trip(coder: ContextCoder, given: Matrix) -> bytes:
    """Code a matrix, decode it, compare everything, and return its bytes."""
    data, (view, alphabet) = coded(coder, given), given
    reader = decoder(data)
    found = coder.decode(reader, view.lines, view.length, view.nnz, alphabet)
    reader.finish()
    np.testing.assert_array_equal(found.indptr, view.indptr)
    np.testing.assert_array_equal(found.indices, view.indices)
    np.testing.assert_array_equal(found.codes, view.codes)
    assert [str(array.dtype) for array in (found.indptr, found.indices, found.codes)] == ["int64", "int32", "uint16"]
    return data


def check_decoded(found: CsrView, lines: int, length: int, nnz: int, symbols: int) -> None:
    """Check that the result of decoding any bytes is a matrix with `nnz` entries."""
    assert found.indptr[0] == 0 and found.indptr[-1] == nnz == len(found.indices) == len(found.codes)
    assert (np.diff(found.indptr) >= 0).all() and len(found.indptr) == lines + 1
    assert ((found.indices >= 0) & (found.indices < length)).all() and (found.codes < symbols).all()
    for start, stop in itertools.pairwise(found.indptr):
        assert (np.diff(found.indices[start:stop]) > 0).all()
