"""Tensors and models of every form and every coding, for the tests of the format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

import dcformat
from dcformat import layout
from dcformat.codecs import CODER_NAMES
from dcformat.codecs.payload_layout import Coding
from dcformat.codecs.payload_writer import codings, encode_payload
from dcformat.dense import from_dense
from dcformat.floats import ranks
from dcformat.graph import Graph, Linear, Preprocessing, ReLU, Softmax
from dcformat.model import STORAGE, Extension, Model, SelfTest, Tensor, matrix_shape, uniform_bits
from dcformat.writer import write

DTYPES = tuple(STORAGE)
#: The dtypes of vectors: those of networks, and a few others.
VECTOR_DTYPES = (*DTYPES[:4], "float64", "complex64", "int32", "bool")
FORMS = ("constant", "dense", "dense-shared", "sparse", "sparse-shared")
#: The largest finite bit pattern without its sign.
_FINITE = {"float32": 0x7F7FFFFF, "float16": 0x7BFF, "bfloat16": 0x7F7F}
#: Zeros, and the smallest and largest numbers.
_SPECIAL = {"float32": (0, 1 << 31, 1, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800000), "float16": (0, 1 << 15, 1, 0x7BFF, 0xFBFF),
            "bfloat16": (0, 1 << 15, 1, 0x7F7F, 0xFF7F), "int8": (0, 128, 127, 255)}  # fmt: skip
Array = npt.NDArray[np.generic]
COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def examples(count: int) -> int:
    """Return the number of examples for a property; it is small where kernels run as Python."""
    return count if COMPILED else max(count // 20, 3)


def values(random: np.random.Generator, dtype: str, count: int, *, zero: bool = True, grid: bool = False) -> Array:
    """Return values, some of them special; without `zero`, none whose bits are all 0.

    Those of dtypes that networks compute with are finite.
    """
    width = 8 * STORAGE[dtype].itemsize
    if grid and dtype == "float32":
        scaled = (
            random.integers(1, 30, count) * random.choice([-1, 1], count) * np.float64(np.float32(0.0123))
        ).astype("<f4")
        return np.where(random.random(count) < 0.2, np.float32(0), scaled).astype("<f4") if zero else scaled
    if dtype == "bool":
        return random.integers(0 if zero else 1, 2, count).astype(np.bool_)
    bits = random.integers(0, (1 << width) - 1, count, np.uint64, endpoint=True)
    if dtype in _FINITE:
        magnitude = (1 << (width - 1)) - 1
        bits = (bits & np.uint64(1 << (width - 1))) | np.minimum(bits & np.uint64(magnitude), np.uint64(_FINITE[dtype]))
    special = random.choice(np.array(_SPECIAL.get(dtype, (0, 1, (1 << width) - 1)), np.uint64), count)
    bits = np.where(random.random(count) < 0.1, special, bits)
    if not zero:
        bits[bits == 0] = 1
    return bits.astype(f"<u{width // 8}").view(STORAGE[dtype])


def codebook(random: np.random.Generator, dtype: str, size: int, *, zero: bool) -> Array:
    """Return about `size` distinct values in order, at least one."""
    width = 8 * STORAGE[dtype].itemsize
    some = values(random, dtype, 2 * size + 4, zero=zero)
    distinct = np.unique(some.view(f"<u{width // 8}"))
    distinct = random.permutation(distinct)[: max(size, 1)].view(STORAGE[dtype])
    return distinct[np.argsort(ranks(distinct, dtype))]


def tensor(
    random: np.random.Generator, name: str, shape: tuple[int, ...], dtype: str, form: str, *, codebook_size: int = 5,
    density: float = 0.4, grid: bool = False,
) -> Tensor:  # fmt: skip
    """Return a tensor of a form; a tensor that is too small to be constant is dense."""
    size = int(np.prod(shape, dtype=np.int64))
    if DTYPES.index(dtype) >= layout.KERNEL_DTYPES:
        form = form.removesuffix("-shared")
    scale = float(np.float32(0.02)) if dtype == "int8" else 1.0
    if form == "constant" and size > 1:
        return Tensor(name, shape, dtype, values(random, dtype, 1), scale=scale)
    if form in ("constant", "dense"):
        return Tensor(name, shape, dtype, values(random, dtype, size, grid=grid), scale=scale)
    shared = codebook(random, dtype, codebook_size, zero=form == "dense-shared") if form.endswith("shared") else None
    kind = np.uint8 if shared is None or len(shared) <= 256 else np.uint16
    if form == "dense-shared":
        assert shared is not None
        return Tensor(name, shape, dtype, random.integers(0, len(shared), size).astype(kind), shared, scale=scale)
    rows, columns = matrix_shape(shape, True)
    there = np.flatnonzero(random.random(size) < density)
    indptr = np.zeros(rows + 1, np.int64)
    if size:
        np.cumsum(np.bincount(there // columns, minlength=rows), out=indptr[1:])
    indices = (there % max(columns, 1)).astype(np.int32)
    if shared is None:
        data: Array = values(random, dtype, len(there), zero=False, grid=grid)
    else:
        data = random.integers(0, len(shared), len(there)).astype(kind)
    return Tensor(name, shape, dtype, data, shared, indptr, indices, scale)


def by_rows(random: np.random.Generator, name: str, *, scaled: bool) -> Tensor:
    """Return a tensor whose rows have their own scales or codebooks, dense or sparse."""
    steps = np.abs(random.normal(size=(40, 1))).astype(np.float32)
    rows = steps * random.integers(-100, 100, (40, 30)).astype(np.float32)
    if not scaled:
        rows = np.take_along_axis(random.normal(size=(40, 8)).astype(np.float32), random.integers(0, 8, (40, 30)), 1)
    return from_dense(name, np.where(random.random((40, 30)) < random.choice([0.4, 1]), rows, np.float32(0)))


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have the same elements bit for bit, in any form."""
    if (a.name, a.shape, a.dtype, a.scale) != (b.name, b.shape, b.dtype, b.scale):
        return False
    if a.is_constant or b.is_constant:
        return uniform_bits(a) == uniform_bits(b)
    if a.nbytes < 1 << 24:
        return a.to_dense().tobytes() == b.to_dense().tobytes()
    # Rows without entries are left out, because forms may divide a tensor into rows differently.
    return all(np.array_equal(x, y) for x, y in zip(_places(a), _places(b), strict=True))


def _places(tensor: Tensor) -> tuple[Array, Array]:
    indptr, indices, values = tensor.to_csr()
    rows = np.searchsorted(indptr, np.arange(len(indices)), side="right") - 1
    return rows * tensor.columns + indices.astype(np.int64), values


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are equal bit for bit, form included."""

    def bits(x: Array | None) -> object:
        return None if x is None else (x.dtype.itemsize, x.dtype.kind, x.tobytes())

    def equal(x: Array | None, y: Array | None) -> bool:
        return x is y is None or (x is not None and y is not None and np.array_equal(x, y))

    return (
        (a.name, a.shape, a.dtype, a.scale) == (b.name, b.shape, b.dtype, b.scale)
        and bits(a.data) == bits(b.data)
        and bits(a.codebook) == bits(b.codebook)
        and equal(a.indptr, b.indptr)
        and equal(a.indices, b.indices)
    )


def small_graph() -> Graph:
    return Graph.sequential(
        (6,),
        (Linear((0,), "fc1", "bias"), ReLU((1,)), Linear((2,), "fc2"), Softmax((3,))),
        Preprocessing((0.5,), (0.25,)),
    )


def small_model() -> Model:
    """Return a network of three tensors, with everything else that a file can hold."""
    random = np.random.default_rng(7)
    tensors = [
        tensor(random, "fc1", (4, 6), "float32", "sparse-shared", codebook_size=3),
        tensor(random, "bias", (4,), "float32", "dense"),
        tensor(random, "fc2", (3, 4), "float32", "dense-shared", codebook_size=4),
    ]
    return Model(
        {t.name: t for t in tensors}, small_graph(), ("zero", "one", "zwei \u00e4"), {"by": "a test", "empty": ""},
        SelfTest(5, 2, bytes(range(8))), (Extension(1, b"what"), Extension(127, b"")),
    )  # fmt: skip


# --- every way to code a tensor -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How a payload is coded; `each` is the number of lines in a chunk, 0 for one chunk."""

    coding: Coding
    each: int = 0

    def __str__(self) -> str:
        flags = [name for name in ("transposed", "every_element", "fillers", "blocks") if getattr(self.coding, name)]
        return "-".join([CODER_NAMES[self.coding.coder], *flags, *["chunked"] * bool(self.each)])


def way(
    coder: int, *, transposed: bool = False, every_element: bool = False, fillers: bool = False, blocks: bool = False
) -> Way:
    """Return a way to code in one chunk."""
    return Way(Coding(coder, transposed, every_element, fillers, blocks))


def ways(tensor: Tensor, some: int = 2) -> Iterator[Way]:
    """Return every way to code a tensor of this form, in one chunk and in chunks of `some` lines."""
    for coding in codings(tensor):
        yield Way(coding)
        if not tensor.is_constant:
            yield Way(coding, some)


def payload(tensor: Tensor, way: Way) -> bytes:
    """Return a tensor's payload, coded in the given way."""
    lines = tensor.columns if way.coding.transposed else tensor.rows
    return encode_payload(tensor, way.coding, way.each if way.each < lines else 0)


def dumps_as(model: Model, way: Way) -> bytes:
    """Return a model's file with every tensor coded in the given way."""
    out = BytesIO()
    write(model, out, encode=lambda tensor: (tensor, payload(tensor, way)))
    return out.getvalue()


def vectors() -> Iterator[tuple[str, bytes]]:
    """Return names and small files: one for each form, dtype and way to code it, and for each other part of a file.

    Where kernels run as Python, there is only one dtype, because each file takes as long as a hundred compiled ones.
    """
    for mode in ("fast", "small", "tiny"):
        yield f"model-{mode}", dcformat.dumps(small_model(), mode=mode)
    yield "empty", dcformat.dumps(Model({}))
    for scaled in (False, True):
        made = by_rows(np.random.default_rng(4), "t", scaled=scaled)
        yield f"tables-{scaled}", dcformat.dumps(Model({"t": made}))
    random = np.random.default_rng(1)
    for dtype in VECTOR_DTYPES if COMPILED else VECTOR_DTYPES[:1]:
        for form in FORMS:
            if form.endswith("-shared") and DTYPES.index(dtype) >= layout.KERNEL_DTYPES:
                continue
            made = tensor(random, "t", (5, 7), dtype, form, grid=form == "dense")
            for one in ways(made):
                yield f"{dtype}-{form}-{one}", dumps_as(Model({"t": made}), one)


def large_vectors() -> Iterator[tuple[str, bytes]]:
    """Return names and files that need many symbols: four streams, two planes of code symbols, 64-bit positions."""
    random = np.random.default_rng(2)
    for codebook_size in (20, 300):
        made = tensor(random, "t", (90, 100), "float32", "sparse-shared", codebook_size=codebook_size, density=0.55)
        for one in (way(0), way(1), way(1, transposed=True), way(1, every_element=True), way(2), way(3)):
            yield f"{codebook_size}-{one}", dumps_as(Model({"t": made}), one)
    made = tensor(random, "t", (70, 100), "float16", "sparse-shared", codebook_size=9, density=0.02)
    yield "fillers", dumps_as(Model({"t": made}), way(1, fillers=True))
    made = tensor(random, "t", (90, 100), "float16", "sparse", density=0.55)
    for one in (way(1, blocks=True), way(1, transposed=True, blocks=True), way(2, transposed=True)):
        yield f"values-{one}", dumps_as(Model({"t": made}), one)
    places = np.array([0, 3, 300], np.int64)
    yield (
        "wide",
        dcformat.dumps(
            Model({"t": Tensor("t", (1, 1 << 33), "int8", np.ones(3, np.int8), None, np.array([0, 3]), places)})
        ),
    )


# --- drawn by hypothesis --------------------------------------------------------------------------------------------

shapes = st.lists(st.integers(0, 6), max_size=layout.MAX_RANK).filter(lambda s: np.prod(s, dtype=np.int64) <= 3000)


@st.composite
def tensors(draw: st.DrawFn, name: str = "t") -> Tensor:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = tuple(draw(st.one_of(shapes, st.sampled_from([[], [1], [40, 30], [1, 300], [300, 1]]))))
    return tensor(
        random, name, shape, draw(st.sampled_from(DTYPES)), draw(st.sampled_from(FORMS)),
        codebook_size=draw(st.sampled_from([1, 2, 3, 16, 255, 256, 257, 700])),
        density=draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 0.95, 1.0])), grid=draw(st.booleans()),
    )  # fmt: skip
