"""Helpers that import models, run them, and compare them with LiteRT where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from dcformat_interop import TfliteImport, import_tflite
from dcformat_interop.tflite_import import litert_worker
from dcformat_runtime import Session

from dcformat.graph import Graph

Array = npt.NDArray[Any]

HAS_LITERT = find_spec("ai_edge_litert") is not None


def run(data: bytes, *inputs: npt.ArrayLike) -> Array | list[Array]:
    """Import a model, check it with LiteRT where that is installed, and return its outputs for some inputs."""
    imported = checked(data)
    session = Session.from_model(imported.model, backend="numpy")
    arrays = {port.name: np.asarray(x, port.dtype) for port, x in zip(graph_of(imported).inputs, inputs, strict=True)}
    results = list(session(arrays).values())
    return results[0] if len(results) == 1 else results


def checked(data: bytes, **options: Any) -> TfliteImport:
    """Import a model, and check it with LiteRT where that is installed."""
    imported = import_tflite(data, **options)
    imported.check(Session.from_model(imported.model, backend="numpy"), in_this_process)
    return imported


def in_this_process(path: str, data: bytes, inputs: Sequence[Array], other_kernels: bool = False) -> list[Array]:
    """Run LiteRT in this process, which saves the second that a new one takes."""
    return litert_worker.outputs(data, inputs, other_kernels)


def graph_of(imported: TfliteImport) -> Graph:
    assert imported.model.graph is not None
    return imported.model.graph


def kinds(imported: TfliteImport) -> list[str]:
    """Return the kinds of a network's operators."""
    return [node.kind for node in graph_of(imported).nodes]


def random(shape: Sequence[int], seed: int = 0) -> Array:
    """Return float32 numbers, most of them between -3 and 3."""
    return np.random.default_rng(seed).standard_normal(tuple(shape)).astype(np.float32)
