"""A malformed model is refused before a kernel could use any of it as an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.backends import Backend

from dcformat.errors import FormatError, MemoryLimitError
from dcformat.graph import Add, Concat, Conv, Flatten, Graph, Linear, MaxPool, Node, Preprocessing, ReLU, Softmax
from dcformat.model import Model, Tensor
from dcformat.records import replace
from tests.runtime.example_networks import BACKENDS, lenet, mlp

Change = Callable[[Tensor], Tensor]


def _set(field: str, at: int, value: int) -> Change:
    def change(tensor: Tensor) -> Tensor:
        array = getattr(tensor, field).copy()
        array[at] = value
        return replace(tensor, **{field: array})

    return change


def _put(**fields: Any) -> Change:
    return lambda tensor: replace(tensor, **fields)


def _sorted_down(tensor: Tensor) -> Tensor:
    assert tensor.indices is not None and tensor.indptr is not None
    indices = tensor.indices.copy()
    row = indices[: tensor.indptr[1]]
    row[:] = row[::-1].copy()
    return replace(tensor, indices=indices)


WEIGHT_LIES: dict[str, Change] = {
    "a column beyond the last": _set("indices", 3, 48),
    "a column far beyond": _set("indices", 3, 2**31 - 1),
    "a negative column": _set("indices", 0, -1),
    "columns out of order": _sorted_down,
    "indptr beyond the entries": _set("indptr", 2, 10**6),
    "a negative number in indptr": _set("indptr", 1, -5),
    "indptr that does not start at 0": _set("indptr", 0, 1),
    "indptr that ends too low": _set("indptr", -1, 1),
    "indptr too short": lambda t: replace(t, indptr=t.indptr[:-1]),  # type: ignore[index]
    "fewer values than columns": lambda t: replace(t, data=t.data[:-1]),
    "more values than columns": lambda t: replace(t, data=np.append(t.data, np.float32(1))),
    "values in two dimensions": lambda t: replace(t, data=t.data[None]),
    "float columns": lambda t: replace(t, indices=t.indices.astype(np.float32)),  # type: ignore[union-attr]
    "indptr of floats": lambda t: replace(t, indptr=t.indptr.astype(np.float64)),  # type: ignore[union-attr]
    "not a number": _set("data", 5, np.nan),  # type: ignore[arg-type]
    "infinity": _set("data", 5, np.inf),  # type: ignore[arg-type]
    "float64 values": lambda t: replace(t, data=t.data.astype(np.float64)),
    "objects": lambda t: replace(t, data=t.data.astype(object)),
    "an unknown dtype": _put(dtype="float128"),
    "another shape": _put(shape=(20, 49)),
    "a shape of rank 3": _put(shape=(20, 6, 8)),
    "no rows": _put(shape=(0, 48)),
    "a negative dimension": _put(shape=(-20, -48)),
    "codes beyond the codebook": lambda t: replace(
        t, data=np.full(t.data.size, 2, np.uint8), codebook=np.array([1, 2], np.float32)
    ),
    "negative codes": lambda t: replace(
        t, data=np.full(t.data.size, -1, np.int8), codebook=np.array([1, 2], np.float32)
    ),
    "no codebook entries": lambda t: replace(t, data=np.zeros(t.data.size, np.uint8), codebook=np.empty(0, np.float32)),
    "dense with too few elements": lambda t: replace(t, indptr=None, indices=None),
    "an int8 scale of infinity": lambda t: replace(t, dtype="int8", data=t.data.astype(np.int8), scale=np.inf),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lie", WEIGHT_LIES)
def test_weights(lie: str, backend: Backend) -> None:
    model = mlp(48, 20, 5).model()
    assert model.tensors["w0"].is_sparse
    tensors = {**model.tensors, "w0": WEIGHT_LIES[lie](model.tensors["w0"])}
    with pytest.raises(FormatError):
        Session.from_model(replace(model, tensors=tensors), backend=backend)


BIAS_LIES: dict[str, Change] = {
    "too short": lambda t: replace(t, data=t.data[:-1]),
    "another shape": _put(shape=(19,)),
    "not a number": _set("data", 5, np.nan),  # type: ignore[arg-type]
    "codes beyond the codebook": lambda t: replace(
        t, data=np.full(t.data.size, 9, np.uint8), codebook=np.array([1, 2], np.float32)
    ),
    "a constant of two values": lambda t: replace(t, data=t.data[:2]),
}


@pytest.mark.parametrize("lie", BIAS_LIES)
def test_biases(lie: str) -> None:
    model = mlp(48, 20, 5).model()
    tensors = {**model.tensors, "b0": BIAS_LIES[lie](model.tensors["b0"])}
    with pytest.raises(FormatError):
        Session.from_model(replace(model, tensors=tensors))


GRAPHS: dict[str, tuple[Node, ...]] = {
    "a value that does not exist yet": (ReLU((2,)), ReLU((1,))),
    "its own value": (ReLU((1,)),),
    "a negative value": (ReLU((-1,)),),
    "too many inputs": (ReLU((0, 0)),),
    "too few inputs": (Add((0,)),),
    "a tensor that does not exist": (Linear((0,), "nothing"),),
    "an image where a vector is needed": (Linear((0,), "w6"),),
    "a kernel larger than the image": (Conv((0,), "w0", "b0", dilation=(9, 9)),),
    "a stride of 0": (Conv((0,), "w0", "b0", stride=(0, 1)),),
    "a negative padding": (Conv((0,), "w0", "b0", padding=(-1, 0)),),
    "groups that do not divide": (Conv((0,), "w0", "b0", groups=3),),
    "another layer's bias": (Conv((0,), "w0", "b2"),),
    "a pool of no size": (MaxPool((0,), (0, 2), (1, 1)),),
    "a pool that holds only padding": (MaxPool((0,), (2, 2), (1, 1), padding=(2, 2)),),
    "softmax along a dimension that is not there": (Softmax((0,), 3),),
    "shapes that differ": (Conv((0,), "w0", "b0"), Add((0, 1))),
    "no operators": (),
}


@pytest.mark.parametrize("lie", GRAPHS)
def test_graphs(lie: str) -> None:
    model = lenet().model()
    with pytest.raises(FormatError):
        Session.from_model(replace(model, graph=Graph.sequential((1, 12, 12), GRAPHS[lie])))


@pytest.mark.parametrize("shape", [(0,), (1, 0, 12), (-1, 12, 12)])
def test_input_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(FormatError):
        Session.from_model(Model({}, Graph.sequential(shape, (Flatten((0,)),))))


@pytest.mark.parametrize(
    "rule", [Preprocessing((0.0,), (0.0,)), Preprocessing((np.nan,), (1.0,)), Preprocessing((), ())]
)
def test_preprocessing(rule: Preprocessing) -> None:
    with pytest.raises(FormatError):
        Session.from_model(lenet().model(rule))


def test_an_operator_of_a_later_version() -> None:
    class Later(Node):
        pass

    with pytest.raises(FormatError, match="expected a known operator"):
        Session.from_model(Model({}, Graph.sequential((3,), (Later((0,)),))))


HUGE: dict[str, tuple[Node, ...]] = {
    "a convolution padded to 17 GB": (
        Conv((0,), "w0", "b0", stride=(65536, 65536), padding=(32768, 32768), padding_end=(32768, 32768)),
    ),
    "a result of 34 GB": (Conv((0,), "w0", "b0", padding=(20000, 20000), padding_end=(20000, 20000)),),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lie", HUGE)
def test_small_files_that_would_take_much_memory(lie: str, backend: Backend) -> None:
    model = lenet().model()
    with pytest.raises(FormatError):
        Session.from_model(replace(model, graph=Graph.sequential((1, 12, 12), HUGE[lie])), backend=backend)


def test_only_numpy_pads_a_pool() -> None:
    """The kernels clip windows to the image, so this takes hardly any memory; NumPy would pad to 17 GB."""
    model = replace(
        lenet().model(),
        graph=Graph.sequential((1, 12, 12), (MaxPool((0,), (65536, 65536), (1, 1), (32768, 32768), (32768, 32768)),)),
    )
    x = np.arange(144, dtype=np.float32).reshape(1, 1, 12, 12)
    assert np.array_equal(Session.from_model(model, backend="numba")(x), np.full((1, 1, 13, 13), 143, np.float32))
    with pytest.raises(MemoryLimitError):
        Session.from_model(model, backend="numpy")


LONG: dict[str, tuple[Node, ...]] = {
    "a chain": tuple(ReLU((k,)) for k in range(5_000)),
    "values that leave holes in the arena": (
        *(ReLU((0,)) for _ in range(3_000)),
        *(Concat((k, k + 2)) for k in range(1, 2_997, 4)),
        Concat((1, 2)),
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_many_operators_take_time_in_proportion(name: str) -> None:
    """65,536 operators are allowed; the work for each must not grow with their number."""
    session = Session.from_model(Model({}, Graph.sequential((3,), LONG[name])), backend="numba")
    x = np.array([[-1, 0, 2]], np.float32)
    times = session.output_shape[0] // 3
    assert np.array_equal(session(x), [[0, 0, 2] * times])
    assert np.array_equal(session(np.repeat(x, 3, axis=0))[2], [0, 0, 2] * times)
