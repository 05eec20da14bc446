"""Imports, packs and runs every node test of the onnx package, and writes the table in docs/results.

    python benchmarks/interop/onnx_node_tests.py docs/results/onnx-node-tests.md

A test gives a model of one operator with inputs and outputs. Inputs that an operator needs as constants (axes, shapes,
weights) are inputs of the model. So an import is tried with all inputs open, with whole numbers other than the first
input fixed, and with all inputs except one fixed. Outputs must agree to one part in 1,000, as onnx asks of a backend.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from dcformat_interop import UnfitError, UnsupportedOperatorsError, import_onnx
from dcformat_runtime import InputError, Session

import dcformat

#: Inputs and outputs that a network can have.
_DTYPES = ("float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")

#: The reasons for which some tests give other results.
_KNOWN = {
    "test_resize_downsample_scales_linear_align_corners": "where a scaled size is not whole, the test and onnxruntime "
    "differ, and a network computes as onnxruntime does",
}

PASSED, REFUSED, OUT_OF_SCOPE, DIFFERS = "passed", "refused", "out of scope", "differs"


class Outcome(NamedTuple):
    """The outcome of a test; `operator` is the subject of the test."""

    name: str
    operator: str
    kind: str
    reason: str = ""


def cases() -> list[Any]:
    """Return all node tests of the installed onnx package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making some tests divides by zero
        from onnx.backend.test.case.node import collect_testcases

        return list(collect_testcases(None))


def outcome(case: Any) -> Outcome:
    """Import, pack and run a test."""
    reason = _out_of_scope(case)
    if reason:
        return Outcome(case.name, _operator(case), OUT_OF_SCOPE, reason)
    found = [_tried(case, fixed) for fixed in _fixed_inputs(case)]
    order = (PASSED, DIFFERS, REFUSED)
    kind, reason = min(found, key=lambda pair: order.index(pair[0]))
    return Outcome(case.name, _operator(case), kind, _KNOWN.get(case.name, reason))


def _operator(case: Any) -> str:
    """Return the operator that a test is about; the nodes of an expanded test are those of its definition."""
    node = case.model.graph.node[-1]
    match = re.match(r"([A-Za-z]+)_test_\w+_expanded", node.name or node.output[0])
    return match[1] if match else str(node.op_type)


def _out_of_scope(case: Any) -> str:
    """Return why a file cannot hold the network of a test, or an empty string."""
    domains = {entry.domain for entry in case.model.opset_import} - {"", "ai.onnx"}
    if domains:
        return f"domain {', '.join(sorted(domains))}"
    if min(entry.version for entry in case.model.opset_import) < 7:
        return "operator set before 7"
    inputs, outputs = case.data_sets[0]
    if not inputs:
        return "no input"
    for array in (*inputs, *outputs):
        if not isinstance(array, np.ndarray | np.generic):
            return "sequences and optional values"
        if array.dtype.name not in _DTYPES:
            return "text" if array.dtype.kind in "OSU" else array.dtype.name
        if not array.size:
            return "arrays without elements"
        if array.dtype.kind in "iu" and np.abs(array.astype(float)).max() > 1 << 24:
            return "whole numbers above 2^24"
    return ""


def _fixed_inputs(case: Any) -> Iterator[set[str]]:
    """Yield the sets of inputs to make constant."""
    names, inputs = [value.name for value in case.model.graph.input], case.data_sets[0][0]
    yield set()
    yield {name for name, array in list(zip(names, inputs, strict=False))[1:] if array.dtype.kind in "iub"}
    yield set(names[1:])
    if len(names) > 2:
        yield {name for name in names if name != names[1]}


def _tried(case: Any, fixed: set[str]) -> tuple[str, str]:
    names = [value.name for value in case.model.graph.input]
    inputs, outputs = case.data_sets[0]
    given = dict(zip(names, inputs, strict=False))
    try:
        imported = import_onnx(
            case.model.SerializeToString(), values={name: given[name] for name in fixed if name in given}
        )
        session = Session.from_model(dcformat.load(dcformat.dumps(imported.model)), backend="numpy")
        found = session({name: array for name, array in given.items() if name not in fixed})
    except UnsupportedOperatorsError as error:
        return REFUSED, "; ".join(error.reasons)
    except UnfitError as error:
        return REFUSED, f"{error.expected}, not {error.found}"
    except InputError as error:
        return REFUSED, str(error)
    for value, wanted in zip(case.model.graph.output, outputs, strict=True):
        if found[value.name].shape != wanted.shape:
            return DIFFERS, f"shape {found[value.name].shape} instead of {wanted.shape}"
        if not np.allclose(found[value.name].astype(float), wanted.astype(float), 1e-3, 1e-5, equal_nan=True):
            return DIFFERS, "other values"
    return PASSED, ""


def table(outcomes: Sequence[Outcome], version: str) -> str:
    """Return the document."""
    kinds = Counter(outcome.kind for outcome in outcomes)
    by_operator: Mapping[str, list[Outcome]] = defaultdict(list)
    for found in outcomes:
        by_operator[found.operator].append(found)
    lines = [
        "# ONNX's node tests",
        "",
        f"`benchmarks/interop/onnx_node_tests.py` wrote this page with onnx {version}. Of its {len(outcomes):,} node",
        f"tests, {kinds[PASSED]:,} pass through import, pack and run, {kinds[REFUSED]:,} are refused by name, and",
        f"{kinds[OUT_OF_SCOPE]:,} are out of scope: a network in a `.dcf` file has no text, sequences, empty arrays,",
        f"or unsigned numbers of 16 bits and more. Other results: {kinds[DIFFERS]:,}.",
        "",
        "| operator | passed | refused | out of scope | differs | why |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for operator, found in sorted(by_operator.items()):
        counts = Counter(outcome.kind for outcome in found)
        why = "; ".join(sorted({outcome.reason for outcome in found if outcome.reason}))
        numbers = " | ".join(str(counts[kind] or "") for kind in (PASSED, REFUSED, OUT_OF_SCOPE, DIFFERS))
        lines.append(f"| {operator} | {numbers} | {why.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table to the file that the command line names."""
    import onnx

    Path(sys.argv[1]).write_text(table([outcome(case) for case in cases()], onnx.__version__), "utf-8")


if __name__ == "__main__":
    main()
