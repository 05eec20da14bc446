"""The check refuses a network that computes something else, and allows for rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_interop import TfliteImport, UnfitError, import_tflite
from dcformat_runtime import Session

from tests.interop.tflite.support import HAS_LITERT, random
from tests.interop.tflite.test_quantized import IN, OUT, integers, quantized
from tests.interop.tflite.writer import Operator, Tensor, constant, model

Array = npt.NDArray[Any]
pytestmark = pytest.mark.skipif(not HAS_LITERT, reason="LiteRT is not installed (ai-edge-litert)")


def floats() -> bytes:
    tensors = [Tensor((1, 8)), constant(random((5, 8), 1)), constant(random((5,), 2)), Tensor((1, 5), name="scores")]
    return model(tensors, [Operator("FULLY_CONNECTED", [0, 1, 2], [3])], [0], [3])


def whole() -> bytes:
    tensors = [
        quantized((1, 8), IN), constant(integers((5, 8), 1), scale=0.02),
        constant(np.arange(5, dtype=np.int32), scale=1e-3), quantized((1, 5), OUT, name="scores"),
    ]  # fmt: skip
    return model(tensors, [Operator("FULLY_CONNECTED", [0, 1, 2], [3])], [0], [3])


def run(imported: TfliteImport, change: Any) -> Any:
    session = Session.from_model(imported.model, backend="numpy")

    def changed(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {name: change(array) for name, array in session(inputs).items()}

    return imported.check(changed)


def test_networks_that_compute_the_same() -> None:
    comparison = run(import_tflite(floats()), lambda array: array)
    assert comparison.difference is not None
    assert comparison.difference < 1e-6
    assert comparison.rounding is None
    assert comparison.describe().startswith("checked against LiteRT ")
    assert comparison.describe().endswith(" of the largest output")
    comparison = run(import_tflite(whole()), lambda array: array)
    assert comparison.inputs == 100
    assert comparison.rounding is not None
    assert comparison.rounding.fits()
    assert comparison.describe().endswith("of rounding")


def test_other_numbers() -> None:
    with pytest.raises(UnfitError, match=r"output 'scores': expected at most 0\.0001 of the largest number"):
        run(import_tflite(floats()), lambda array: array * np.float32(1.001))
    with pytest.raises(UnfitError, match="output 'scores': expected at most"):
        run(import_tflite(floats()), lambda array: array * np.nan)
    with pytest.raises(UnfitError, match=r"output 'scores': expected shape \(1, 5\), found \(1, 4\)"):
        run(import_tflite(floats()), lambda array: array[:, :4])


def changed(share: float, by: int) -> Any:
    """Return a change of a share of the numbers by some steps."""

    def change(array: Array) -> Array:
        chosen = np.random.default_rng(int(np.abs(array.astype(int)).sum())).random(array.shape) < share
        return np.where(chosen, array + np.where(array > 0, -by, by), array).astype(array.dtype)

    return change


def test_other_integers() -> None:
    comparison = run(import_tflite(whole()), changed(0.004, 1))
    assert comparison.rounding is not None
    assert 0 < comparison.rounding.share < 0.01
    assert comparison.rounding.steps == 1
    assert comparison.describe().endswith("% of the numbers differ, by at most 1 step of rounding")
    changes: Any = (
        changed(0.05, 1), changed(0.005, 2), lambda array: array[:, ::-1], lambda array: array // 2,
        lambda array: np.minimum(array, 126) + 1,
    )  # fmt: skip
    for change in changes:
        with pytest.raises(UnfitError, match=r"output 'scores': expected as from LiteRT, .* 99% of the numbers equal"):
            run(import_tflite(whole()), change)


def test_a_model_that_litert_does_not_run() -> None:
    tensors = [Tensor((1, 4, 4, 2)), constant(random((5, 3, 3, 2))), Tensor((1, 4, 4, 5))]
    data = model(tensors, [Operator("CONV_2D", [0, 1], [2], {"stride_h": 1, "stride_w": 1})], [0], [2])  # no bias
    with pytest.raises(UnfitError, match=r"expected a model that LiteRT .* runs, found RuntimeError"):
        run(import_tflite(data), lambda array: array)
