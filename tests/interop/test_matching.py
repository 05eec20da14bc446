"""Matching tensors by their own names, by a wrapper's names, or by order and shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dcformat_interop import Dense, UnfitError, match

from dcformat.architectures import ARCHITECTURES

PATH = Path("model.npz")
LENET = ARCHITECTURES["lenet-300-100"]


def tensors(rename: dict[str, str]) -> dict[str, Dense]:
    """Return LeNet's tensors under other layer names."""
    out = {}
    for name, shape in LENET.shapes.items():
        layer, _, part = name.partition(".")
        out[f"{rename[layer]}.{part}" if rename[layer] else part] = Dense("float32", np.zeros(shape, np.float32))
    return out


@pytest.mark.parametrize(
    "names",
    [("fc1", "fc2", "fc3"), ("module.fc1", "module.fc2", "module.fc3"), ("0", "2", "10"), ("a", "b", "c")],
)
def test_names_in_order(names: tuple[str, str, str]) -> None:
    given = tensors(dict(zip(("fc1", "fc2", "fc3"), names, strict=True)))
    expected = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    assert match(PATH, LENET, given) == expected
    assert match(PATH, LENET, dict(reversed(given.items()))) == expected


def test_shapes_decide_where_order_does_not() -> None:
    given = tensors({"fc1": "features", "fc2": "middle", "fc3": "classifier"})
    names = match(PATH, LENET, given)
    assert names[0] == "features.weight"
    assert names[-1] == "classifier.bias"


def test_a_shape_that_does_not_fit_is_named() -> None:
    given = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    given["2.weight"] = Dense("float32", np.zeros((100, 301), np.float32))
    with pytest.raises(
        UnfitError, match=r"model.npz: 2.weight .*fc2.weight.*expected shape \(100, 300\), found \(100, 301\)"
    ):
        match(PATH, LENET, given)


def test_a_missing_and_a_left_over_layer() -> None:
    given = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    del given["4.weight"], given["4.bias"]
    with pytest.raises(UnfitError, match=r"expected 3 layers .*found 2 \(0, 2\)"):
        match(PATH, LENET, given)
    more = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    more["6.weight"] = more["4.weight"]
    with pytest.raises(UnfitError, match="expected 3 layers"):
        match(PATH, LENET, more)


def test_a_missing_bias() -> None:
    given = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    del given["2.bias"]
    with pytest.raises(UnfitError, match=r"expected 2\.bias .*found no such tensor"):
        match(PATH, LENET, given)


def test_tensors_that_are_neither_weights_nor_biases() -> None:
    given = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    given["1.running_mean"] = given["0.bias"]
    with pytest.raises(UnfitError, match=r"weights and biases only, found the tensor '1\.running_mean'"):
        match(PATH, LENET, given)


def test_another_architecture_that_fits_better_is_named() -> None:
    other = ARCHITECTURES["lenet-5"]
    given = {name: Dense("float32", np.zeros(shape, np.float32)) for name, shape in other.shapes.items()}
    message = r"model\.npz: expected 3 layers .*8 of 8 tensors fit lenet-5: try --architecture lenet-5"
    with pytest.raises(UnfitError, match=message):
        match(PATH, LENET, given)
    del given["conv1.bias"]
    with pytest.raises(UnfitError, match="7 of 7 tensors fit lenet-5"):
        match(PATH, LENET, given)


def test_no_hint_where_the_architecture_is_the_nearest() -> None:
    given = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    given["2.weight"] = Dense("float32", np.zeros((100, 301), np.float32))
    with pytest.raises(UnfitError) as caught:
        match(PATH, LENET, given)
    assert "--architecture" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_transposed_kernels_get_a_hint(dtype: str) -> None:
    given = {
        name: Dense(dtype, np.zeros(shape[::-1], np.int8 if dtype == "int8" else np.float32))
        for name, shape in LENET.shapes.items()
    }
    message = (
        r"fc1\.weight: expected shape \(300, 784\), found \(784, 300\), transposed as Keras keeps it: transpose it"
    )
    with pytest.raises(UnfitError, match=message):
        match(PATH, LENET, given)
    lenet5 = ARCHITECTURES["lenet-5"]
    order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    given = {n: Dense(dtype, np.zeros(s, np.int8).transpose(order[len(s)])) for n, s in lenet5.shapes.items()}
    with pytest.raises(UnfitError, match=r"conv1\.weight: .*found \(5, 5, 1, 20\), transposed as Keras keeps it"):
        match(PATH, lenet5, given)
    renamed = {name.replace("weight", "kernel:0"): dense for name, dense in given.items()}
    with pytest.raises(UnfitError, match=r"'conv1\.kernel:0' \(a kernel as Keras calls it: transpose it"):
        match(PATH, lenet5, renamed)


@pytest.mark.parametrize("reason", ["NaN or infinity in 1 place", "int64"])
def test_the_error_names_a_weight_that_was_left_out(reason: str) -> None:
    given = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    del given["2.weight"]
    with pytest.raises(UnfitError, match=rf"2\.weight: expected finite values .*lenet-300-100 .*, found {reason}"):
        match(PATH, LENET, given, {"2.weight": reason})


def test_other_entries_that_were_left_out_do_not_matter() -> None:
    given = tensors({"fc1": "module.0", "fc2": "module.2", "fc3": "module.4"})
    assert match(PATH, LENET, given, {"module.ids": "int64", "x": "None", "y.bias": "skipped as asked"}) == list(given)
