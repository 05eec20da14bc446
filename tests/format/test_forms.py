"""The form in which a tensor is stored, the bytes that it takes, and that nothing else depends on it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dcformat
from dcformat.codecs import Mode
from dcformat.dense import from_dense
from dcformat.digest import tensor_digest
from dcformat.errors import FormatError
from dcformat.forms import as_dense, as_plain, as_shared, as_sparse, forms
from dcformat.model import Model, Tensor
from dcformat.records import replace
from tests.format.strategies import COMPILED, FORMS, equal, examples, tensor, tensors

large = pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
MODES: tuple[Mode, ...] = ("fast", "small", "tiny") if COMPILED else ("fast", "small")


def written(*made: Tensor, mode: Mode = "fast") -> bytes:
    data = dcformat.dumps(Model({t.name: t for t in made}), mode=mode)
    dcformat.verify(data)
    found = dcformat.load(data)
    assert all(equal(found.tensors[t.name], t) for t in made)
    return data


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# --- bytes ----------------------------------------------------------------------------------------------------------


def one_zero() -> np.ndarray:
    values = normal(1, 512, 512)
    values[3, 7] = 0
    return values


def half_zeros() -> np.ndarray:
    values = normal(2, 100_000)
    return np.where(np.arange(len(values)) % 2, values, np.float32(0)).astype(np.float32)


def few_repeat() -> np.ndarray:
    """Return a tensor with half as many values as elements: a codebook of them costs more than it saves."""
    return np.tile(normal(3, 20_000), 2).reshape(200, 200)


RAW: dict[str, Callable[[], np.ndarray]] = {
    "no zero": lambda: normal(0, 200, 300),
    "one zero": one_zero,
    "a vector": lambda: normal(4, 30_000),
    "half zeros": half_zeros,
    "few repeat": few_repeat,
    "more values than a codebook holds": lambda: normal(5, 70_000)[np.arange(280_000) * 7919 % 70_000],
    "rows of one": lambda: normal(6, 5000, 1),
    "tall": lambda: np.where(np.arange(60_000).reshape(30_000, 2) % 60_000 == 5, np.float32(0), normal(7, 30_000, 2)),
    "one element": lambda: normal(8, 1),
    "random integers": lambda: np.random.default_rng(9).integers(-128, 128, (300, 300)).astype(np.int8),
    "halves": lambda: normal(10, 200, 200).astype(np.float16),
}  # fmt: skip


@large
@pytest.mark.parametrize("mode", ["fast", "small"])
@pytest.mark.parametrize("name", RAW)
def test_no_tensor_takes_more_than_its_values(name: str, mode: Mode) -> None:
    """At most a thousandth more, plus the part of the file outside the payloads."""
    values = RAW[name]()
    data = written(from_dense("w", values), mode=mode)
    assert len(data) <= values.nbytes * 1.001 + 48


@large
def test_one_zero_in_a_dense_matrix_costs_nothing() -> None:
    values = one_zero()
    data = written(from_dense("w", values))
    whole = np.where(values == 0, np.float32(1), values)
    assert len(data) <= len(written(from_dense("w", whole))) + 24 < values.nbytes * 0.9
    assert not dcformat.load(data).tensors["w"].is_sparse


@pytest.mark.parametrize(
    ("zeros", "mode", "sparse"),
    [
        pytest.param([3 * 512 + 7], "fast", [False], id="one zero"),
        pytest.param(range(0, 512 * 512, 257), "fast", [False], id="one in 257"),
        pytest.param(range(0, 512 * 512, 255), "fast", [True, False], id="one in 255"),
        pytest.param(range(511 * 512, 512 * 512), "fast", [True, False], id="the last row"),
        pytest.param(range(511, 512 * 512, 512), "fast", [True, False], id="the last column"),
        pytest.param([3 * 512 + 7], "small", [True, False], id="one zero, where gaps cost fractions of a bit"),
    ],
)
@pytest.mark.parametrize("change", [as_dense, as_sparse])
def test_values_with_hardly_any_zeros_are_coded_once(
    change: Callable[[Tensor], Tensor], zeros: list[int], mode: Mode, sparse: list[bool]
) -> None:
    values = normal(1, 512, 512)
    values.flat[list(zeros)] = 0
    made = change(from_dense("w", values))
    assert [form.is_sparse for form in forms(made, mode)] == sparse
    assert all(form.codebook is None and equal(form, made) for form in forms(made, mode))


@large
def test_a_codebook_of_more_than_a_byte_is_kept_if_it_pays() -> None:
    few = normal(1, 300)[np.random.default_rng(1).integers(0, 300, (256, 256))]
    halves = (normal(2, 256, 256).view("<u4") >> 16).astype("<u2")  # some 2,000 distinct values
    for made, most, codebook_size in (
        (from_dense("w", few), 76_000, 300),
        (from_dense("w", halves, "bfloat16"), 90_000, 0),
    ):
        data = written(made)
        assert len(data) < most
        with dcformat.open(data) as file:
            assert file.info("w").codebook_size == codebook_size


@large
def test_zeros_at_the_end_cost_nothing_in_a_sparse_form() -> None:
    """Their gaps are all alike, so that even one zero in a thousand is worth a sparse form."""
    values = normal(1, 1024, 256)
    values[-1] = 0
    assert dcformat.load(written(from_dense("w", values))).tensors["w"].is_sparse


@large
def test_a_pruned_vector_takes_what_a_pruned_matrix_does() -> None:
    values = np.where(np.random.default_rng(11).random(100_000) < 0.1, normal(12, 100_000), 0).astype(np.float32)
    vector, matrix = written(from_dense("w", values)), written(from_dense("w", values.reshape(1, -1)))
    assert abs(len(vector) - len(matrix)) <= 2
    assert len(vector) < np.count_nonzero(values) * 4 + 100_000 * 0.48 / 8
    with dcformat.open(vector) as file:
        assert (file.info("w").form, file.info("w").rows, file.info("w").columns) == ("sparse", 1, 100_000)


@large
@pytest.mark.parametrize("mode", MODES)
def test_a_wide_and_nearly_empty_tensor_is_written_in_little_memory(mode: Mode) -> None:
    """By columns it would take 24 bytes for each of 2^26 columns, only three of which hold an entry."""
    places = np.array([0, 5, (1 << 26) - 1], np.int32)
    made = Tensor("t", (2, 1 << 26), "float32", np.ones(3, "<f4"), None, np.array([0, 1, 3], np.int64), places)
    written(Tensor("t", (2, 3), "float32", np.ones(6, "<f4")), mode=mode)  # kernels are loaded
    tracemalloc.start()
    try:
        dcformat.dumps(Model({"t": made}), mode=mode)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", MODES)
def test_a_few_equal_codes_in_a_huge_tensor_stay_sparse(mode: Mode) -> None:
    """Each code costs almost no bits, but as elements the zeros between the codes would cost many."""
    codes, codebook = np.zeros(3, np.uint8), np.array([7], np.int8)
    places = np.array([5, 1 << 20, (1 << 40) - 1], np.int64)
    made = Tensor("t", (1, 1 << 40), "int8", codes, codebook, np.array([0, 3], np.int64), places)
    assert all(form.is_sparse for form in forms(made, mode))


@large
@pytest.mark.parametrize("mode", MODES)
def test_hundreds_of_small_tensors_take_no_more_than_safetensors(mode: Mode) -> None:
    """The header of safetensors has about 60 bytes of JSON for each tensor, besides the name and the values."""
    made = [from_dense(f"block{k}.norm.weight", normal(k, 4)) for k in range(200)]
    data = written(*made, mode=mode)
    assert len(data) <= sum(60 + len(t.name) + t.nbytes for t in made)


@large
@pytest.mark.slow
def test_contents_of_any_length_are_packed() -> None:
    made = [from_dense(f"module.layers.{k}.norm.weight", np.full(64, 1 + k / 4096, np.float32)) for k in range(3000)]
    plain, packed = written(*made), written(*made, mode="small")
    assert len(plain) == 115_922
    assert len(packed) == 17_734
    with dcformat.open(packed) as file:
        assert file.names == tuple(t.name for t in made)


def test_the_form_in_memory_changes_no_byte() -> None:
    values = np.where(normal(13, 60, 40) > 0.5, np.round(normal(14, 60, 40)), 0).astype(np.float32)
    values += 0  # no negative zeros
    made = from_dense("w", values)
    shared = as_shared(made)
    assert shared is not None
    forms = [made, as_dense(made), as_plain(made), as_dense(as_plain(made)), shared, as_sparse(as_dense(shared))]
    assert len({written(form) for form in forms}) == 1


@large
def test_a_full_codebook_has_no_room_for_a_zero() -> None:
    codebook = np.arange(1, 65_537, dtype="<f4")
    values = np.append(np.tile(codebook, 2), np.zeros(100, np.float32)).reshape(4, -1)
    data = written(from_dense("w", values))
    assert len(data) < values.nbytes // 2 + 12_000


def test_values_that_no_element_has_are_left_out_of_the_codebook() -> None:
    codebook = np.array([-2, -1, 1, 2, 3], "<f4")
    codes = np.array([0, 3] * 3000, np.uint8)
    data = written(Tensor("w", (60, 100), "float32", codes, codebook))
    assert dcformat.load(data).tensors["w"].values().tolist() == [-2, 2] * 3000
    with dcformat.open(data) as file:
        assert file.info("w").codebook_size == 2


@given(tensors())
@settings(max_examples=examples(200))
def test_every_form_has_the_same_elements_and_digest(made: Tensor) -> None:
    if made.is_constant:
        made = replace(made, data=np.repeat(made.data, made.size))
    forms = [as_dense(made), as_sparse(made), as_plain(made), as_plain(as_sparse(made))]
    shared = as_shared(made)
    forms += [] if shared is None else [shared, as_dense(shared), as_sparse(shared)]
    for form in forms:
        assert equal(form, made)
        assert tensor_digest(form) == tensor_digest(made)


# --- the digest -----------------------------------------------------------------------------------------------------


def test_a_tensors_digest_depends_on_its_elements_only() -> None:
    """No group of 64 is cut by the pieces in which a large tensor is hashed."""
    size = 700_000
    values = np.where(np.random.default_rng(15).random(size) < 0.9, normal(16, size), 0).astype(np.float32)
    dense = Tensor("w", (size // 7, 7), "float32", values)
    assert tensor_digest(as_sparse(dense)) == tensor_digest(dense)
    other = values.copy()
    other[size // 2] += 1
    assert tensor_digest(replace(dense, data=other)) != tensor_digest(dense)


def test_the_digest_reveals_any_difference() -> None:
    base = Tensor("w", (2, 3), "int8", np.array([1, 0, 0, 2, 0, 0], np.int8), scale=0.5)
    others = [
        replace(base, shape=(3, 2)), replace(base, scale=0.25), replace(base, data=np.roll(base.data, 1)),
        replace(base, data=np.zeros(6, np.int8)), replace(base, data=np.ones(6, np.int8)),
        replace(base, shape=(6,)), replace(base, data=np.array([1, 0, 0, -2, 0, 0], np.int8)),
    ]  # fmt: skip
    assert len({tensor_digest(t) for t in [base, *others]}) == 8
    assert tensor_digest(replace(base, name="other")) == tensor_digest(base)


def test_the_digest_of_2_40_elements_takes_neither_time_nor_memory() -> None:
    constant = Tensor("w", (1 << 20, 1 << 20), "float32", np.ones(1, "<f4"))
    zeros = replace(constant, data=np.zeros(1, "<f4"))
    rows = 1 << 16
    empty = Tensor("w", (rows, 1 << 24), "float32", np.empty(0, "<f4"), None, np.zeros(rows + 1, np.int64),
                   np.empty(0, np.int32))  # fmt: skip
    assert tensor_digest(empty) == tensor_digest(replace(zeros, shape=(rows, 1 << 24)))
    assert tensor_digest(constant) != tensor_digest(zeros)


# --- copies ---------------------------------------------------------------------------------------------------------


@large
@pytest.mark.parametrize("mode", MODES)
def test_tied_weights_are_stored_once(mode: Mode) -> None:
    values = normal(17, 100, 200)
    one = written(from_dense("encoder", values), mode=mode)
    data = written(from_dense("encoder", values), from_dense("decoder", values.copy()), mode=mode)
    assert len(data) <= len(one) + len("decoder") + 3
    with dcformat.open(data) as file:
        info = file.info("decoder")
        assert (info.copy_of, info.shape, info.payload_bytes) == ("encoder", (100, 200), 0)
        assert file.info("encoder").copy_of is None
        assert file.decoded_bytes == file.info("encoder").decoded_bytes
        assert sum(row.bytes for row in file.ledger()) == file.size
        assert file.tensor("decoder").name == "decoder"
        assert file.usage("decoder").coder == "copy"
    model = dcformat.load(data)
    assert model.tensors["decoder"].data is model.tensors["encoder"].data
    assert dcformat.dumps(model, mode=mode) == data


@large
def test_copies_are_counted_once_in_memory() -> None:
    values = normal(18, 100, 200)
    data = written(*(from_dense(name, values) for name in "abcdefgh"))
    one = written(from_dense("a", values))
    for source in (data, one):
        dcformat.load(source, max_memory=600_000)
        with pytest.raises(FormatError, match="E07"):
            dcformat.load(source, max_memory=79_999)


def test_only_tensors_that_are_equal_in_every_way_are_copies() -> None:
    values = np.array([[1, 0], [0, 3]], np.int8)
    made = [
        from_dense("a", values, "int8", 0.5), from_dense("b", values, "int8", 0.25),
        from_dense("c", values.T, "int8", 0.5), from_dense("d", values.reshape(1, 4), "int8", 0.5),
        from_dense("e", values, "int8", 0.5),
        from_dense("f", values.astype(np.float32)), from_dense("g", values, "int8", 0.25),
    ]  # fmt: skip
    with dcformat.open(written(*made)) as file:
        found = [file.info(name).copy_of for name in file.names]
    assert found == [None, None, "a", None, "a", None, "b"]


def test_a_copy_may_come_long_after_its_original() -> None:
    made = [from_dense(f"t{k}", np.full(3, 1 + k % 300, np.float32)) for k in range(600)]
    with dcformat.open(written(*made)) as file:
        assert [file.info(name).copy_of for name in file.names] == [None] * 300 + [f"t{k}" for k in range(300)]


# --- the contents of a payload's bits --------------------------------------------------------------------------------


@given(tensors(), st.sampled_from(MODES))
@settings(max_examples=examples(200))
def test_the_bits_of_a_payload_add_up(made: Tensor, mode: Mode) -> None:
    check_usage(dcformat.dumps(Model({"t": made}), mode=mode))


@large
@pytest.mark.parametrize("form", FORMS)
def test_the_bits_of_a_small_payload_add_up(form: str) -> None:
    """Positions and codebook would take more bits in separate streams than the shared stream has."""
    for seed in range(12):
        random = np.random.default_rng(seed)
        made = tensor(random, "t", (2, 3), "float32", form, codebook_size=1 + seed % 3, density=0.2 + 0.06 * seed)
        for mode in MODES:
            check_usage(dcformat.dumps(Model({"t": made}), mode=mode))


def check_usage(data: bytes) -> None:
    with dcformat.open(data) as file:
        for name in file.names:
            use = file.usage(name)
            parts = (use.index_bits, use.code_bits, use.codebook_bits, use.table_bits)
            assert min(parts) >= 0
            assert sum(parts) == 8 * file.info(name).payload_bytes
