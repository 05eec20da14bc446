"""The reference decoder decodes small random networks that the package writes to the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dcformat
from dcformat.codecs import MODES, Mode
from dcformat.dense import from_dense
from dcformat.layout import DTYPES, KERNEL_DTYPES
from dcformat.model import STORAGE, Extension, Model, SelfTest, Tensor
from tests.format.graph_strategies import valid_graphs
from tests.spec.support import of_model, reference

SELF_TESTS = st.builds(
    SelfTest, st.integers(0, 2**32 - 1), st.integers(1, 1024), st.binary(min_size=8, max_size=8)
)  # fmt: skip
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)


@st.composite
def tensors(draw: st.DrawFn, name: str) -> Tensor:
    """Draw a small tensor of any form: zeros, few or many repeated values, negative zeros, grids."""
    dtype = draw(st.sampled_from(list(STORAGE)))
    shape = tuple(draw(st.lists(st.integers(0, 7), max_size=4)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = int(np.prod(shape, dtype=np.int64))
    if DTYPES.index(dtype) >= KERNEL_DTYPES:
        few = draw(st.sampled_from([2, 40, 1 << 40]))
        bits = random.integers(0, 2 if dtype == "bool" else few, max(size, 1)).astype("<u8") << draw(st.integers(0, 20))
        narrow = bits & (1 if dtype == "bool" else (1 << 8 * STORAGE[dtype].itemsize) - 1)
        kept = narrow.astype(f"<u{STORAGE[dtype].itemsize}").view(STORAGE[dtype])[:size]
        return from_dense(name, kept.reshape(shape), dtype, exact=True)
    pool: np.ndarray[Any, Any]
    if dtype == "int8":
        pool = random.integers(-128, 128, draw(st.integers(1, 40)), dtype=np.int8)
    else:
        floats = random.normal(size=draw(st.integers(1, 300))).astype(np.float32)
        if draw(st.booleans()):
            floats = (np.round(floats * 16) / 16).astype(np.float32)  # may hold -0.0
        if dtype == "float32":
            pool = floats
        elif dtype == "float16":
            pool = floats.astype(np.float16)
        else:
            pool = (floats.view("<u4") >> 16).astype("<u2")
    values = random.choice(pool, size)
    values[random.random(size) < draw(st.sampled_from([0, 0.1, 0.5, 0.9, 1]))] = 0
    scale = draw(st.sampled_from([1.0, 0.5, 3.0])) if dtype == "int8" else 1.0
    return from_dense(name, values.reshape(shape), dtype, scale)


@st.composite
def models(draw: st.DrawFn) -> Model:
    names = draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), max_size=4, unique=True))
    graph, shapes = draw(st.just((None, {})) | valid_graphs(max_nodes=3))
    made = {name: from_dense(name, np.full(shape, 0.5, np.float32)) for name, shape in shapes.items()}
    return Model(
        made | {name: draw(tensors(name)) for name in names if name not in made},
        graph,
        tuple(draw(st.lists(TEXTS, max_size=3))),
        draw(st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=3)),
        draw(st.none() | SELF_TESTS) if graph else None,
        tuple(Extension(kind, b"\0kept") for kind in sorted(draw(st.sets(st.integers(0, 127), max_size=2)))),
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(model=models())
def test_the_reference_decodes_files_of_the_package(mode: Mode, model: Model) -> None:
    found = reference(dcformat.dumps(model, mode=mode))
    expected = of_model(model)
    # Metadata is a mapping, ordered by its keys.
    assert {key: found[key] for key in expected} == expected


#: The reference decoder takes seconds for the tensors of these tests in `tiny`.
SLOW_IN_TINY = [pytest.param(mode, marks=[pytest.mark.slow] * (mode == "tiny")) for mode in MODES]


@pytest.mark.parametrize("mode", SLOW_IN_TINY)
def test_tables_by_place(mode: Mode) -> None:
    """Codebooks and scales of rows, columns and groups; dense and sparse."""
    random = np.random.default_rng(3)
    books = random.normal(size=(40, 8)).astype(np.float32)
    rows = np.take_along_axis(books, random.integers(0, 8, (40, 60)), 1)
    steps = np.abs(random.normal(size=(40, 1))).astype(np.float32)
    scaled = steps * random.integers(-90, 91, (40, 60)).astype(np.float32)
    uneven = steps * random.integers(-200, 20, (40, 60)).astype(np.float32)
    groups = np.repeat(np.abs(random.normal(size=(10, 4))).astype(np.float32), 16, 1) * random.integers(-7, 8, (10, 64))
    mask = random.random((40, 60)) < 0.3
    arrays = {
        "rows": rows, "columns": rows.T, "scaled": scaled, "uneven": uneven, "groups": groups.astype(np.float32),
        "pruned": np.where(mask, rows, np.float32(0)), "pruned_scaled": np.where(mask, scaled, np.float32(0)),
        "kernels": rows.reshape(40, 5, 12), "brain": np.ascontiguousarray(rows).view("<u4") >> 16,
    }  # fmt: skip
    made = {
        name: from_dense(
            name, array.astype("<u2") if name == "brain" else array, "bfloat16" if name == "brain" else None
        )
        for name, array in arrays.items()
    }
    data = dcformat.dumps(Model(made), mode=mode)
    assert reference(data)["tensors"] == of_model(Model(made))["tensors"]
    with dcformat.open(data) as file:
        coded = {name for name in file.names if file.usage(name).coder == "tables"}
    assert coded >= {"rows", "columns", "scaled", "uneven", "pruned", "kernels"}


@pytest.mark.parametrize("mode", SLOW_IN_TINY)
@pytest.mark.parametrize("share", [1 << 20, 300, 7])
def test_longer_tensors(mode: Mode, share: int) -> None:
    """Sparse, dense and transposed tensors are long enough for four streams, planes and patterns."""
    random = np.random.default_rng(share)
    values = (random.normal(size=share) if share < 1 << 20 else random.normal(size=9000)).astype(np.float32)
    rows = 60 if mode == "fast" else 20
    dense = random.choice(values, (rows, 150))
    sparse = np.where(random.random((150, rows)) < 0.5, dense.T, np.float32(0))
    columns = np.where(np.arange(rows) % 5 == 0, dense.T, np.float32(0))
    arrays = {"dense": dense, "sparse": sparse, "columns": columns}
    model = Model({name: from_dense(name, array) for name, array in arrays.items()})
    found = reference(dcformat.dumps(model, mode=mode))
    assert found["tensors"] == of_model(model)["tensors"]
