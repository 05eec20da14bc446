"""Which tensor is which: own names, a wrapper's names, or order and shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dcformat_cli.checkpoints import Dense
from dcformat_cli.failures import InputError
from dcformat_cli.matching import match

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
        InputError, match=r"model.npz: 2.weight .*fc2.weight.*expected shape \(100, 300\), found \(100, 301\)"
    ):
        match(PATH, LENET, given)


def test_a_missing_and_a_left_over_layer() -> None:
    given = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    del given["4.weight"], given["4.bias"]
    with pytest.raises(InputError, match=r"expected 3 layers .*found 2 \(0, 2\)"):
        match(PATH, LENET, given)
    more = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    more["6.weight"] = more["4.weight"]
    with pytest.raises(InputError, match="expected 3 layers"):
        match(PATH, LENET, more)


def test_a_missing_bias() -> None:
    given = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    del given["2.bias"]
    with pytest.raises(InputError, match=r"expected 2\.bias .*found no such tensor"):
        match(PATH, LENET, given)


def test_tensors_that_are_neither_weights_nor_biases() -> None:
    given = tensors({"fc1": "0", "fc2": "2", "fc3": "4"})
    given["1.running_mean"] = given["0.bias"]
    with pytest.raises(InputError, match=r"weights and biases only, found the tensor '1\.running_mean'"):
        match(PATH, LENET, given)
