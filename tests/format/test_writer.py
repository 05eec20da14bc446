"""Models are written in few bytes, the same on every machine, and read back bit for bit; others are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dcformat
from dcformat import errors, layout
from dcformat.codecs import Mode
from dcformat.errors import FormatError
from dcformat.model import Extension, Model, SelfTest, Tensor
from dcformat.records import replace
from tests.format.strategies import (
    COMPILED,
    DTYPES,
    FORMS,
    codebook,
    equal,
    examples,
    small_model,
    tensor,
    tensors,
)

MODES: tuple[Mode, ...] = ("fast", "small", "tiny") if COMPILED else ("fast", "small")


def back(made: Tensor, mode: Mode = "fast") -> Tensor:
    data = dcformat.dumps(Model({made.name: made}), mode=mode)
    dcformat.verify(data)
    return dcformat.load(data).tensors[made.name]


@given(tensors(), st.sampled_from(MODES))
@settings(max_examples=examples(250))
def test_every_tensor_is_read_back(made: Tensor, mode: Mode) -> None:
    assert equal(back(made, mode), made)


@given(tensors())
@settings(max_examples=examples(50))
def test_fillers_are_read_back(made: Tensor) -> None:
    data = dcformat.dumps(Model({"t": made}), relative_index="filler")
    assert equal(dcformat.load(data).tensors["t"], made)


@pytest.mark.parametrize("rank", range(8))
@pytest.mark.parametrize("form", FORMS)
def test_every_rank(rank: int, form: str) -> None:
    made = tensor(np.random.default_rng(rank), "t", (2,) * rank, "float16", form)
    assert equal(back(made), made)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (0, 0, 5), (), (1,), (1, 1, 1)])
@pytest.mark.parametrize("form", ["dense", "dense-shared", "sparse", "sparse-shared"])
def test_tensors_of_no_and_of_one_element(dtype: str, shape: tuple[int, ...], form: str) -> None:
    made = tensor(np.random.default_rng(1), "t", shape, dtype, form, density=1.0)
    assert equal(back(made), made)


@pytest.mark.parametrize("form", ["sparse", "sparse-shared"])
@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("mode", MODES)
def test_sparse_tensors_with_nothing_and_with_everything_stored(form: str, density: float, mode: Mode) -> None:
    made = tensor(np.random.default_rng(2), "t", (9, 11), "float32", form, density=density)
    assert equal(back(made, mode), made)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 255, 256, 257, 4096])
def test_codebooks_of_every_size(size: int, mode: Mode) -> None:
    _codebook(size, 64, mode)


@pytest.mark.slow
@pytest.mark.parametrize("size", [65535, 65536])
def test_the_largest_codebooks(size: int) -> None:
    _codebook(size, 3000, "fast")
    _codebook(size, 60, "small")


def _codebook(size: int, stored: int, mode: Mode) -> None:
    random = np.random.default_rng(size)
    codebook = np.sort(random.choice(1 << 20, size, replace=False) + 1).astype("<f4")
    codes = random.integers(0, size, stored).astype(np.uint8 if size <= 256 else np.uint16)
    codes[-1] = size - 1
    dense = Tensor("d", (stored,), "float32", codes, codebook)
    indptr = np.array([0, stored // 2, stored], np.int64)
    places = np.concatenate([np.arange(stored // 2), np.arange(stored - stored // 2)]).astype(np.int32) * 2
    sparse = Tensor("s", (2, 2 * stored), "float32", codes, codebook, indptr, places)
    for made in (dense, sparse):
        assert equal(back(made, mode), made)


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_the_shortest_possible_value_streams(form: str) -> None:
    """A stream may hold a thousand values in a byte; a reader must not take it for too short."""
    data = np.ones(60_000, "<f4") if form == "sparse" else np.zeros(60_000, "<f4")
    data[-1] = 2
    indptr, places = np.array([0, 60_000]), np.arange(60_000, dtype=np.int32)
    rows = Tensor("t", (1, 60_000), "float32", data, None, indptr, places)
    made = rows if form == "sparse" else Tensor("t", (60_000,), "float32", data)
    for mode in ("small", "tiny"):
        assert equal(back(made, mode), made)


def test_negative_zero_is_a_value() -> None:
    zeros = np.array([-0.0, 0.0], "<f4")
    made = Tensor("t", (5,), "float32", np.array([0, 1, 1, 0, 1], np.uint8), zeros)
    assert equal(back(made), made)
    sparse = Tensor("t", (1, 5), "float32", zeros[:1], None, np.array([0, 1]), np.array([3], np.int32))
    assert np.signbit(back(sparse).to_dense()).tolist() == [[False, False, False, True, False]]


@pytest.mark.parametrize("scale", [1.0, 0.5, float(np.float32(1e-30))])
def test_int8_with_scale(scale: float) -> None:
    made = Tensor("t", (4,), "int8", np.array([-128, -1, 0, 127], np.int8), scale=scale)
    assert equal(back(made), made)


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
def test_wide_and_tall_and_long_shapes() -> None:
    """Shapes have billions of elements, of which only a few are stored, and lines longer than 32 bits can count."""
    for shape in ((1, 1 << 40), (1 << 8, 1 << 32), (3, 1 << 31), (5, 1 << 20, 1 << 17)):
        columns = int(np.prod(shape[1:], dtype=np.int64))
        places = np.array([0, 9, 70_000], np.int64 if columns >= 1 << 31 else np.int32)
        indptr = np.zeros(shape[0] + 1, np.int64)
        indptr[1:] = 3
        made = Tensor("t", shape, "float16", np.array([1, 2, 3], "<f2"), None, indptr, places)
        for mode in ("fast", "small"):
            assert equal(back(made, mode), made), (shape, mode)


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
def test_tensors_unsuited_to_the_slow_coders_use_a_fast_one() -> None:
    places = np.array([0, 9, 70_000], np.int32)
    made = Tensor("t", (1, 1 << 21), "float32", np.ones(3, "<f4"), None, np.array([0, 3]), places)
    assert equal(back(made, "tiny"), made)


def test_everything_except_tensors_is_read_back() -> None:
    model = small_model()
    for mode in MODES:
        found = dcformat.load(dcformat.dumps(model, mode=mode))
        assert (found.graph, found.labels, found.metadata) == (model.graph, model.labels, model.metadata)
        assert (found.self_test, found.extensions) == (model.self_test, model.extensions)


def test_extensions_survive_reading_and_writing() -> None:
    model = small_model()
    for _ in range(3):
        model = dcformat.load(dcformat.dumps(model))
    assert model.extensions == (Extension(1, b"what"), Extension(127, b""))
    assert dcformat.dumps(model) == dcformat.dumps(small_model())


def test_tensors_keep_their_order() -> None:
    random = np.random.default_rng(0)
    names = ["z", "a", "\u00e9", "A", "a.b/c", "m"]
    model = Model({name: tensor(random, name, (3,), "float32", "dense") for name in names})
    assert list(dcformat.load(dcformat.dumps(model)).tensors) == names


# --- few bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 8, 40] if COMPILED else [0, 1, 2])
@pytest.mark.parametrize("mode", ["fast", "small"])
def test_overhead(count: int, mode: Mode) -> None:
    """Beyond names and payloads, a file takes at most 64 bytes, plus 12 for each tensor."""
    random = np.random.default_rng(count)
    made = [tensor(random, f"layer{k}.weight", (20, 30), "float32", "sparse-shared") for k in range(count)]
    data = dcformat.dumps(Model({t.name: t for t in made}), mode=mode)
    with dcformat.open(data) as file:
        payloads = sum(file.info(name).payload_bytes for name in file.names)
    names = sum(len(t.name) for t in made)
    assert len(data) - payloads - names <= 64 + 12 * count


# --- the same everywhere --------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMS), st.sampled_from(["fast", "small"]))
@settings(max_examples=examples(40))
def test_equal_models_give_equal_bytes(seed: int, form: str, mode: Mode) -> None:
    """The arrays' integer types and strides do not matter."""
    made = tensor(np.random.default_rng(seed), "t", (6, 9), "float32", form)

    def strided(array: np.ndarray | None, kind: str | None = None) -> np.ndarray | None:
        if array is None:
            return None
        wide = np.zeros((len(array), 3), kind or array.dtype)
        wide[:, 1] = array
        return wide[:, 1]

    codes = "<u4" if made.codebook is not None else None
    other = replace(
        made, data=strided(made.data, codes), codebook=strided(made.codebook), indptr=strided(made.indptr, "<u4"),
        indices=strided(made.indices, "<i8"),
    )  # fmt: skip
    first = dcformat.dumps(Model({"t": made}), mode=mode)
    assert dcformat.dumps(Model({"t": other}), mode=mode) == first


_PROGRAM = """
import hashlib, dcformat
from tests.format.strategies import small_model
for mode in ("fast", "small"):
    print(hashlib.sha256(dcformat.dumps(small_model(), mode=mode)).hexdigest())
"""


@pytest.mark.parametrize("variables", [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "NUMBA_DISABLE_JIT": "1"}])
def test_another_process_gives_the_same_bytes(variables: dict[str, str]) -> None:
    import hashlib

    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), **variables}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=environment, check=True)
    here = [hashlib.sha256(dcformat.dumps(small_model(), mode=mode)).hexdigest() for mode in ("fast", "small")]
    assert done.stdout.split() == here


def test_metadata_in_any_order_gives_the_same_bytes() -> None:
    one = Model({}, metadata={"a": "1", "b": "2", "\u00e9": "3"})
    two = Model({}, metadata={"\u00e9": "3", "b": "2", "a": "1"})
    assert dcformat.dumps(one) == dcformat.dumps(two)


# --- refused models -------------------------------------------------------------------------------------------------

ONES = np.ones(3, "<f4")
CODEBOOK = np.array([1, 2], "<f4")
CODES = np.array([0, 1, 0], np.uint8)
INDPTR, PLACES = np.array([0, 1, 3]), np.array([0, 0, 1], np.int32)
DESCENDING, TURNED = np.array([0, 4, 3]), np.array([1, 1, 0], np.int32)
WRONG: dict[str, tuple[Tensor, type[FormatError]]] = {
    "another dtype": (Tensor("t", (3,), "float32", np.ones(3)), errors.EncodingError),
    "unknown dtype": (Tensor("t", (3,), "float128", np.ones(3)), errors.EncodingError),
    "codebook of float64": (Tensor("t", (3,), "float64", CODES, CODEBOOK.astype("<f8")), errors.CodebookError),
    "too few values": (Tensor("t", (4,), "float32", ONES), errors.ShapeError),
    "rank 9": (Tensor("t", (1,) * 9, "float32", ONES[:1]), errors.LimitError),
    "too large": (Tensor("t", (1 << 21, 1 << 20), "float32", ONES[:1]), errors.ShapeError),
    "negative dimension": (Tensor("t", (-3,), "float32", ONES), errors.ShapeError),
    "scale of nothing": (Tensor("t", (1,), "int8", np.ones(1, np.int8), scale=0.0), errors.EncodingError),
    "scale of float32": (Tensor("t", (3,), "float32", ONES, scale=2.0), errors.EncodingError),
    "scale of 53 bits": (Tensor("t", (1,), "int8", np.ones(1, np.int8), scale=0.1), errors.EncodingError),
    "codebook out of order": (Tensor("t", (3,), "float32", CODES, CODEBOOK[::-1]), errors.CodebookError),
    "codebook with one value twice": (Tensor("t", (3,), "float32", CODES, CODEBOOK * 0 + 1), errors.CodebookError),
    "codebook with zero": (Tensor("t", (2, 2), "float32", CODES, CODEBOOK - 1, INDPTR, PLACES), errors.CodebookError),
    "code out of range": (Tensor("t", (3,), "float32", CODES + np.uint8(1), CODEBOOK), errors.IndexRangeError),
    "signed codes": (Tensor("t", (3,), "float32", CODES.astype(np.int8), CODEBOOK), errors.EncodingError),
    "a stored zero": (Tensor("t", (2, 2), "float32", ONES * 0, None, INDPTR, PLACES), errors.EncodingError),
    "columns descend": (Tensor("t", (2, 2), "float32", ONES, None, INDPTR, TURNED), errors.IndexRangeError),
    "column out of range": (Tensor("t", (2, 1), "float32", ONES, None, INDPTR, PLACES), errors.IndexRangeError),
    "indptr descend": (Tensor("t", (2, 2), "float32", ONES, None, DESCENDING, PLACES), errors.IndexRangeError),
    "indptr of another shape": (Tensor("t", (3, 2), "float32", ONES, None, INDPTR, PLACES), errors.ShapeError),
    "another name": (Tensor("u", (3,), "float32", ONES), errors.EncodingError),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_invalid_tensors_are_refused(name: str) -> None:
    made, kind = WRONG[name]
    with pytest.raises(FormatError) as caught:
        dcformat.dumps(Model({"t": made}))
    assert type(caught.value) is kind


BEYOND: dict[str, Model] = {
    "name": Model({"n" * 256: Tensor("n" * 256, (3,), "float32", ONES)}),
    "empty name": Model({"": Tensor("", (3,), "float32", ONES)}),
    "label": Model({}, labels=("x" * 1025,)),
    "labels": Model({}, labels=("",) * 65537),
    "metadata": Model({}, metadata={"k": "x" * 65537}),
    "metadata key": Model({}, metadata={"": "x"}),
    "metadata entries": Model({}, metadata={str(k): "" for k in range(1025)}),
    "surrogate": Model({}, metadata={"k": "\ud800"}),
    "extensions": Model({}, extensions=(Extension(1, b""), Extension(1, b""))),
    "extension id": Model({}, extensions=(Extension(128, b""),)),
    "contents": Model({}, extensions=(Extension(1, bytes(layout.MAX_CONTENTS_BYTES)),)),
    "self-test samples": Model({}, self_test=SelfTest(1, 0, bytes(8))),
    "self-test seed": Model({}, self_test=SelfTest(1 << 32, 1, bytes(8))),
    "self-test digest": Model({}, self_test=SelfTest(1, 1, bytes(7))),
}  # fmt: skip


@pytest.mark.parametrize("name", BEYOND)
def test_models_beyond_the_limits_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        dcformat.dumps(BEYOND[name])


def test_unknown_modes_are_value_errors() -> None:
    with pytest.raises(ValueError, match="mode"):
        dcformat.dumps(Model({}), mode="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="relative_index"):
        dcformat.dumps(Model({}), relative_index="none")  # type: ignore[arg-type]


def test_generated_codebooks_are_valid() -> None:
    random = np.random.default_rng(0)
    for dtype in DTYPES[:4]:
        shared = codebook(random, dtype, 50, zero=False)
        assert shared.view(f"<u{shared.dtype.itemsize}").all()


def test_a_tensor_too_sparse_for_the_relative_index_is_refused_at_once() -> None:
    indptr = np.array([0, 1], np.int64)
    far = np.array([(1 << 40) - 1], np.int64)
    tensor = Tensor("w", (1, 1 << 40), "float32", np.ones(1, np.float32), None, indptr, far)
    with pytest.raises(errors.LimitError, match="escapes"):
        dcformat.dumps(Model({"w": tensor}))
