"""The reference models of MLPerf Tiny, where they are beside the repository, compute what LiteRT computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dcformat_interop import import_tflite
from dcformat_runtime import Session

from dcformat import dumps
from tests.interop.tflite.support import HAS_LITERT, graph_of, kinds

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "mlperf_tiny"
NAMES = (
    "ad_autoencoder_float", "ad_autoencoder_int8", "ic_resnet8_float", "ic_resnet8_int8", "kws_dscnn_float",
    "kws_dscnn_int8", "sww_int8", "vww_mobilenet_float", "vww_mobilenet_int8",
)  # fmt: skip

#: The number of weights and biases of each network.
PARAMETERS = {"ad": 265_864, "ic": 77_706, "kws": 22_604, "sww": 46_459, "vww": 210_850}

pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the models of MLPerf Tiny are not beside the repository"),
    pytest.mark.needs_compiler,
]


@pytest.mark.skipif(not HAS_LITERT, reason="LiteRT is not installed (ai-edge-litert)")
@pytest.mark.parametrize("name", NAMES)
def test_the_models_compute_the_same(name: str) -> None:
    imported = import_tflite(FOLDER / f"{name}.tflite")
    comparison = imported.check(Session.from_model(imported.model))
    assert comparison is not None
    assert (comparison.rounding is not None) == name.endswith("int8")


@pytest.mark.parametrize("name", NAMES)
def test_the_networks(name: str) -> None:
    imported = import_tflite(FOLDER / f"{name}.tflite")
    parameters = sum(t.size for name, t in imported.model.tensors.items() if not name.endswith(".scale"))
    assert parameters == PARAMETERS[name.partition("_")[0]]
    assert kinds(imported).count("transpose") <= 1
    assert graph_of(imported).inputs[0].dtype == ("int8" if name.endswith("int8") else "float32")
    assert not any(";" in tensor for tensor in imported.model.tensors)


@pytest.mark.slow
def test_the_networks_of_integers_are_small() -> None:
    """As TensorFlow Lite files they take 762,696 bytes, and 372,292 with xz."""
    names = [name for name in NAMES if name.endswith("int8") and name != "sww_int8"]
    sizes = [len(dumps(import_tflite(FOLDER / f"{name}.tflite").model, mode="tiny")) for name in names]
    assert sum(sizes) <= 306_000


@pytest.mark.parametrize("name", ["ad_autoencoder_int8", "kws_dscnn_int8", "vww_mobilenet_int8"])
@pytest.mark.skipif(not HAS_LITERT, reason="LiteRT is not installed (ai-edge-litert)")
def test_the_same_integers_as_litert(name: str) -> None:
    imported = import_tflite(FOLDER / f"{name}.tflite")
    session = Session.from_model(imported.model)
    comparison = imported.check(session)
    assert comparison is not None
    assert comparison.rounding == (0, 0)


@pytest.mark.parametrize(("name", "least"), [("kws_dscnn_int8", 899), ("kws_dscnn_float", 897)])
def test_keywords_are_recognised(name: str, least: int) -> None:
    """LiteRT recognises 902 of 1,000 with the integers, and 900 with the floats."""
    with np.load(FOLDER / "kws_samples.npz") as samples:
        x, labels = samples["x"], samples["y"]
    if name.endswith("float"):
        x = (x.astype(np.float32) - 83) * np.float32(0.5847029)
    found = Session.from_model(import_tflite(FOLDER / f"{name}.tflite").model)(x)
    assert np.count_nonzero(found.argmax(1) == labels) >= least
