"""Deltas: the changes from a base, exact, in few bytes, and applied only to that base."""

from __future__ import annotations

import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dcformat
from dcformat.codecs.difference_writer import write_difference
from dcformat.codecs.differences import PIECE_BYTES, PIECE_UNITS, apply_difference
from dcformat.deltas import application
from dcformat.dense import from_dense
from dcformat.errors import BaseError, ChecksumError, DeltaError, FormatError, MemoryLimitError, WorkLimitError
from dcformat.forms import smallest
from dcformat.graph import Graph, Linear, ReLU
from dcformat.model import STORAGE, Delta, Extension, Model, Origin, Step, Tensor
from dcformat.records import replace
from tests.format.strategies import examples

Array = npt.NDArray[Any]


def drawn(dtype: str, count: int, seed: int) -> Array:
    source, storage = np.random.default_rng(seed), STORAGE[dtype]
    if dtype == "bool":
        return source.integers(0, 2, count).astype(bool)
    return source.integers(0, 256, count * storage.itemsize, np.uint8).view(storage)


def changed(values: Array, dtype: str, seed: int, share: float) -> Array:
    source = np.random.default_rng(seed)
    out = np.where(source.random(len(values)) < share, drawn(dtype, len(values), seed + 1), values)
    out[source.random(len(values)) < share / 2] = 0
    return out.astype(values.dtype)


def bfloat16(values: Array) -> Array:
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2")


def same(made: Model, expected: Model) -> bool:
    return dcformat.dumps(made) == dcformat.dumps(expected)


@pytest.mark.parametrize("dtype", STORAGE)
@settings(max_examples=examples(20))
@given(st.integers(0, 300), st.integers(0, 2**32 - 3), st.floats(0, 1))
def test_a_difference_gives_back_every_bit(dtype: str, count: int, seed: int, share: float) -> None:
    old = drawn(dtype, count, seed)
    new = changed(old, dtype, seed, share)
    for before, after in ((old, new), (new, old)):
        made = np.frombuffer(write_difference(after, before, dtype, (count,)), np.uint8)
        assert apply_difference(made, before, dtype, "t").tobytes() == after.tobytes()


@pytest.mark.needs_compiler
def test_pieces_are_joined() -> None:
    old = drawn("int16", PIECE_UNITS + 70_000, 1)
    new = changed(old, "int16", 2, 0.01)
    made = np.frombuffer(write_difference(new, old, "int16", (2, len(old) // 2)), np.uint8)
    assert apply_difference(made, old, "int16", "t").tobytes() == new.tobytes()


@pytest.mark.needs_compiler
def test_the_table_of_a_difference_takes_little_memory() -> None:
    old = drawn("uint8", 2 * PIECE_UNITS, 1)
    new = (old.astype(int) // 2).astype(np.uint8)
    made = np.frombuffer(write_difference(new, old, "uint8", (len(old),)), np.uint8)
    assert made[0] == 1  # it has a table
    tracemalloc.start()
    try:
        assert np.array_equal(apply_difference(made, old, "uint8", "t"), new)
        assert tracemalloc.get_traced_memory()[1] < 6 * len(old) + PIECE_BYTES // 4
    finally:
        tracemalloc.stop()


def weights(count: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(count) * 0.02).astype("<f4")


def nudged(values: Array, share: float) -> Array:
    source = np.random.default_rng(5)
    there = source.random(len(values)) < share
    out = values.copy()
    out[there] += (source.standard_normal(int(there.sum())) * 1e-4).astype("<f4")
    return out


@pytest.mark.needs_compiler
@pytest.mark.parametrize(("share", "of_float32", "of_bfloat16"), [(0.01, 105, 155), (0.05, 24, 43), (0.2, 6.8, 15)])
def test_few_changed_weights_take_few_bytes(share: float, of_float32: float, of_bfloat16: float) -> None:
    old = weights(400_000)
    new = nudged(old, share)
    assert old.nbytes / len(write_difference(new, old, "float32", (400, 1000))) > of_float32
    before, after = bfloat16(old), bfloat16(new)
    assert before.nbytes / len(write_difference(after, before, "bfloat16", (400, 1000))) > of_bfloat16


@pytest.mark.needs_compiler
@pytest.mark.parametrize(("share", "ratio"), [(0.01, 250), (0.05, 70), (0.2, 22)])
def test_weights_that_move_to_a_neighbour(share: float, ratio: float) -> None:
    old = weights(400_000)
    there = np.random.default_rng(3).random(len(old)) < share
    new = np.where(there, np.nextafter(old, np.float32(1)), old)
    assert old.nbytes / len(write_difference(new, old, "float32", (400, 1000))) > ratio


@pytest.mark.needs_compiler
def test_small_steps_everywhere_take_less_than_a_whole_tensor() -> None:
    old = weights(200_000)
    new = (old * (1 + 1e-3 * np.random.default_rng(1).standard_normal(len(old)))).astype("<f4")
    whole = len(dcformat.dumps(Model({"w": from_dense("w", new)})))
    assert len(write_difference(new, old, "float32", (200, 1000))) < 0.6 * whole
    before, after = bfloat16(old), bfloat16(new)
    whole = len(dcformat.dumps(Model({"w": from_dense("w", after, "bfloat16")})))
    assert len(write_difference(after, before, "bfloat16", (200, 1000))) < 0.1 * whole


def test_pruned_weights_cost_a_mark() -> None:
    old = weights(200_000)
    new = np.where(np.abs(old) < 0.0135, 0, old).astype("<f4")
    # Magnitude decides, and the exponent gives most of it: less than half a bit per weight.
    assert len(write_difference(new, old, "float32", (200, 1000))) < len(old) / 16


def test_changed_rows_cost_no_marks_elsewhere() -> None:
    old = weights(200_000).reshape(200, 1000)
    new = old.copy()
    new[17] += 1
    made = write_difference(new.ravel(), old.ravel(), "float32", old.shape)
    assert len(made) < 4 * 1000


def network() -> Model:
    source = np.random.default_rng(0)
    first = np.where(source.random((30, 20)) < 0.2, source.choice([-0.5, 0.25, 1.5], (30, 20)), 0).astype("<f4")
    tensors = {
        "a.weight": from_dense("a.weight", first),
        "b.weight": from_dense("b.weight", weights(300).reshape(10, 30)),
    }
    graph = Graph.sequential((20,), [Linear((0,), "a.weight"), ReLU((1,)), Linear((2,), "b.weight")])
    return Model(tensors, graph, tuple("0123456789"), {"k": "v"}, extensions=(Extension(3, b"kept"),))


def test_nothing_changed_takes_little_more_than_two_digests() -> None:
    model = network()
    base = dcformat.dumps(model)
    made = dcformat.dumps(dcformat.delta(model, base))
    assert len(made) == 54
    assert same(dcformat.apply(made, base), model)


@pytest.mark.parametrize("mode", ["fast", "small", "tiny"])
def test_the_same_mode_gives_the_same_file(mode: Any) -> None:
    model = network()
    changes = {**model.tensors, "a.weight": from_dense("a.weight", model.tensors["a.weight"].to_dense() * 2)}
    new = replace(model, tensors=changes, metadata={"k": "w"})
    base = dcformat.dumps(model, mode="small")
    made = dcformat.dumps(dcformat.delta(new, base, mode=mode), mode=mode)
    assert dcformat.dumps(dcformat.apply(made, base), mode=mode) == dcformat.dumps(new, mode=mode)


def test_a_codebook_that_moves_costs_its_values() -> None:
    model = network()
    tensor = model.tensors["a.weight"]
    assert tensor.codebook is not None
    moved = replace(tensor, codebook=tensor.codebook + np.float32(0.01))
    new = replace(model, tensors={**model.tensors, "a.weight": moved})
    delta = dcformat.delta(new, dcformat.dumps(model))
    assert delta.tensors["a.weight"].size < 40
    assert same(dcformat.apply(dcformat.dumps(delta), dcformat.dumps(model)), new)


def test_tensors_come_and_go() -> None:
    model = network()
    values = model.tensors["b.weight"].to_dense()
    new = Model(
        {
            "fresh": from_dense("fresh", np.arange(5, dtype="<f4")),
            "renamed": from_dense("renamed", values),
            "a.weight": from_dense("a.weight", np.ones((2, 2), "<f4") * np.arange(2, dtype="<f4")),
        }
    )
    delta = dcformat.delta(new, dcformat.dumps(model))
    assert delta.delta is not None
    assert delta.delta.steps == (Step("new", 1), Step("changed", 1, 0, (Origin(1, "renamed"),)), Step("new", 1))
    assert delta.delta.sections == ()
    assert same(dcformat.apply(dcformat.dumps(delta), dcformat.dumps(model)), new)


def test_small_tensors_in_a_row_share_a_difference() -> None:
    source = np.random.default_rng(0)
    old = {f"layer.{n}.weight": from_dense(f"layer.{n}.weight", weights(700, n).reshape(7, 100)) for n in range(50)}
    new = {}
    for name, tensor in old.items():
        values = tensor.to_dense().copy()
        values[source.random(values.shape) < 0.01] += np.float32(1e-3)
        new[name] = from_dense(name, values)
    new["layer.3.weight"] = old["layer.3.weight"]
    base = dcformat.dumps(Model(old))
    delta = dcformat.delta(Model(new), base)
    assert delta.delta is not None and delta.delta.in_place
    assert [(step.kind, step.count) for step in delta.delta.steps] == [("changed", 49)]
    made = dcformat.dumps(delta)
    assert len(made) < 1600
    assert same(dcformat.apply(made, base), Model(new))


def steps(old: dict[str, Array], new: dict[str, Array]) -> list[tuple[str, int, int]]:
    """Return the steps of a delta between models of these arrays, once it is known to give the new model."""
    before, after = (Model({name: from_dense(name, array) for name, array in each.items()}) for each in (old, new))
    base = dcformat.dumps(before)
    delta = dcformat.delta(after, base)
    assert delta.delta is not None
    assert same(dcformat.apply(dcformat.dumps(delta), base), after)
    return [(step.kind, step.first, step.count) for step in delta.delta.steps]


def test_tensors_that_stay_in_a_row_share_a_step() -> None:
    old = {name: weights(30, n) for n, name in enumerate("abcd")}
    assert steps(old, {name: old[name] for name in "bca"}) == [("kept", 1, 2), ("kept", 0, 1)]


def test_tensors_of_other_dtypes_share_no_difference() -> None:
    old = {"a": weights(1200, 1), "b": weights(1200, 2).astype("<f2"), "c": weights(1200, 3)}
    new = {name: old[name].copy() for name in "cba"}
    for array in new.values():
        array[::97] += np.asarray(0.25, array.dtype)
    assert steps(old, new) == [("changed", 0, 1)] * 3


@pytest.mark.needs_compiler
def test_tensors_share_a_difference_only_if_that_takes_fewer_bytes() -> None:
    old = {name: weights(60_000, n).reshape(200, 300) for n, name in enumerate("xy")}
    new = {name: array.copy() for name, array in old.items()}
    for place, array in enumerate(new.values(), start=5):
        array[:, place] = weights(200, 9)  # A column costs little only where the shape is known.
    assert steps(old, new) == [("changed", 0, 1)] * 2
    old = {name: drawn("uint8", 300_000, n) for n, name in enumerate("xy")}
    new = {name: array.copy() for name, array in old.items()}
    for array in new.values():
        array[::1000] += 1
    assert steps(old, new) == [("changed", 0, 1)] * 2  # Together, they are too large.


def test_only_neighbours_share_a_difference_unless_all_stay_in_place() -> None:
    old = {name: from_dense(name, weights(50, n)) for n, name in enumerate("abcd")}
    new = {name: from_dense(name, weights(50, n + 1)) if name in "acd" else old[name] for n, name in enumerate("abcd")}
    del new["a"]
    new["e"] = from_dense("e", np.zeros((2, 2), "<f4"))
    new["a"] = old["a"]
    base = dcformat.dumps(Model(old))
    assert same(dcformat.apply(dcformat.dumps(dcformat.delta(Model(new), base)), base), Model(new))


def test_the_scale_of_int8() -> None:
    codes = np.arange(6, dtype="i1")
    old, new = (Model({"q": from_dense("q", codes, "int8", scale)}) for scale in (0.5, 0.25))
    made = dcformat.dumps(dcformat.delta(new, dcformat.dumps(old)))
    assert dcformat.apply(made, dcformat.dumps(old)).tensors["q"].scale == 0.25


def test_a_base_in_another_mode_is_the_same_base() -> None:
    model = network()
    new = replace(model, labels=tuple("abcdefghij"))
    made = dcformat.dumps(dcformat.delta(new, dcformat.dumps(model)))
    assert same(dcformat.apply(made, dcformat.dumps(model, mode="tiny")), new)


def test_another_base_is_refused(tmp_path: Path) -> None:
    model = network()
    made = dcformat.dumps(dcformat.delta(model, dcformat.dumps(model)))
    other = tmp_path / "other.dcf"
    dcformat.save(replace(model, metadata={"k": "other"}), other)
    with pytest.raises(
        BaseError, match=r"other\.dcf: not the base of this delta: base: expected the delta's base, of content digest"
    ):
        dcformat.apply(made, other)


def test_deltas_do_not_chain() -> None:
    base = dcformat.dumps(network())
    delta = dcformat.delta(network(), base)
    with pytest.raises(DeltaError, match="expected one that stands alone"):
        dcformat.delta(network(), dcformat.dumps(delta))
    with pytest.raises(DeltaError, match="expected a model"):
        dcformat.delta(delta, base)
    with pytest.raises(DeltaError, match="expected a delta, found one that stands alone"):
        dcformat.apply(base, base)


def test_open_files_and_a_delta_read_alone() -> None:
    model, base = network(), dcformat.dumps(network())
    new = replace(model, tensors={**model.tensors, "b.weight": from_dense("b.weight", weights(300, 1).reshape(10, 30))})
    made = dcformat.dumps(dcformat.delta(new, base))
    dcformat.verify(made)
    with dcformat.open(made) as delta, dcformat.open(base) as old:
        assert delta.graph is None and delta.delta is not None and old.delta is None
        assert delta.delta.base == old.digest
        assert delta.delta.result == dcformat.dumps(new)[-8:]
        assert same(dcformat.apply(delta, old), new)
    assert dcformat.load(made).delta is not None


def test_every_flipped_bit_of_a_delta_is_noticed() -> None:
    model, base = network(), dcformat.dumps(network())
    new = replace(model, tensors={**model.tensors, "b.weight": from_dense("b.weight", weights(300, 1).reshape(10, 30))})
    made = dcformat.dumps(dcformat.delta(new, base))
    for bit in range(0, 8 * len(made), 5):
        altered = bytearray(made)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            dcformat.verify(altered)


def test_a_result_with_another_digest() -> None:
    model, base = network(), dcformat.dumps(network())
    delta = dcformat.delta(model, base)
    assert delta.delta is not None
    lying = replace(delta, delta=replace(delta.delta, result=bytes(8)))
    with pytest.raises(ChecksumError, match="content digest of the new file"):
        dcformat.apply(dcformat.dumps(lying), base)


def test_limits() -> None:
    zeros = Tensor("z", (1 << 32,), "float32", np.zeros(1, "<f4"))
    base = dcformat.dumps(Model({"z": zeros}))
    string = Tensor("z", (2,), "uint8", np.zeros(2, np.uint8))
    delta = Delta(base[-8:], bytes(8), (), (Step("changed", 1, 0, (Origin(0),)),))
    bomb = dcformat.dumps(Model({"z": string}, delta=delta))
    with pytest.raises(MemoryLimitError, match="applying the delta"):
        dcformat.apply(bomb, base)
    old, new = (Model({"w": from_dense("w", weights(10_000, seed))}) for seed in (1, 2))
    made = dcformat.dumps(dcformat.delta(new, dcformat.dumps(old)))
    with pytest.raises(WorkLimitError):
        dcformat.apply(made, dcformat.dumps(old), max_work=1 << 18)


def pair_of(kind: str) -> tuple[Model, Model]:
    """Return an old and a new model: of the same names, of others in another order, or of networks."""
    source = np.random.default_rng(8)
    old = {f"w{n}": from_dense(f"w{n}", source.standard_normal((40, 50)).astype(np.float32)) for n in range(12)}
    new = {n: from_dense(n, nudged(t.to_dense().reshape(-1), 0.02).reshape(t.shape)) for n, t in old.items()}
    new["w3"] = old["w3"]
    if kind == "reordered":
        extra = from_dense("extra", source.standard_normal(70).astype(np.float32))
        new = {"extra": extra, **dict(reversed(new.items()))}
    if kind == "network":
        graph = Graph.sequential((50,), [Linear((0,), "w0")])
        return Model(old, graph, metadata={"a": "b"}), Model(new, graph, metadata={"a": "c"})
    return Model(old), Model(new)


@pytest.mark.parametrize("kind", ["in place", "reordered", "network"])
def test_a_new_file_is_written_tensor_by_tensor(kind: str) -> None:
    old, new = pair_of(kind)
    base, change = dcformat.dumps(old), dcformat.dumps(dcformat.delta(new, dcformat.dumps(old)))
    out = BytesIO()
    with application(change, base) as made:
        assert list(made.infos) == list(new.tensors)
        assert made.write(out, "fast", lambda tensor: smallest(tensor, "fast")) == len(out.getvalue())
    assert out.getvalue() == dcformat.dumps(new)


@pytest.mark.needs_compiler
def test_a_file_may_be_written_that_does_not_fit_in_memory() -> None:
    source = np.random.default_rng(8)
    old = {f"w{n}": from_dense(f"w{n}", source.standard_normal((200, 200)).astype(np.float32)) for n in range(30)}
    old["last"] = from_dense("last", weights(10_000).reshape(100, 100))
    new = dict(old) | {"last": from_dense("last", nudged(weights(10_000), 0.02).reshape(100, 100))}
    base = dcformat.dumps(Model(old))
    change = dcformat.dumps(dcformat.delta(Model(new), base))
    with pytest.raises(MemoryLimitError, match="applying the delta"):
        dcformat.apply(change, base, max_memory=4_000_000)
    out = BytesIO()
    with application(change, base, max_memory=4_000_000) as made:
        made.write(out, "fast", lambda tensor: smallest(tensor, "fast"))
    assert out.getvalue() == dcformat.dumps(Model(new))
    with application(change, base, max_memory=200_000) as made, pytest.raises(MemoryLimitError):
        made.write(out, "fast", lambda tensor: smallest(tensor, "fast"))


def test_nothing_is_written_of_a_file_with_another_digest() -> None:
    old, new = pair_of("in place")
    base = dcformat.dumps(old)
    made = dcformat.delta(new, base)
    assert made.delta is not None
    lie = dcformat.dumps(replace(made, delta=replace(made.delta, result=bytes(8))))
    out = BytesIO()
    with application(lie, base) as wrong, pytest.raises(ChecksumError, match="content digest of the new file"):
        wrong.write(out, "fast", lambda tensor: smallest(tensor, "fast"))
    assert out.getvalue() == b""
