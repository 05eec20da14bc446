"""All of onnx's node tests go through import, pack and run; a page in docs/results gives the results."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "docs" / "results" / "onnx-node-tests.md"


def script():
    spec = importlib.util.spec_from_file_location("onnx_node_tests", ROOT / "benchmarks/interop/onnx_node_tests.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # onnx divides by zero to make some of its tests
def test_the_outcomes_are_those_of_the_table():
    node_tests = script()
    outcomes = [node_tests.outcome(case) for case in node_tests.cases()]
    found = Counter(outcome.kind for outcome in outcomes)
    text = TABLE.read_text("utf-8")
    if f"onnx {onnx.__version__}" in text:
        assert node_tests.table(outcomes, onnx.__version__) == text
    # Other versions of onnx have more tests, or fewer.
    count = re.search(r"([\d,]+) pass", text)
    assert count is not None
    passed = int(count[1].replace(",", ""))
    assert found[node_tests.PASSED] >= 0.9 * passed
    assert found[node_tests.DIFFERS] <= 6
