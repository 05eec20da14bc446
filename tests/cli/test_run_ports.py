"""`dcformat run` on networks with several inputs and outputs, of other dtypes, and without a batch."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcformat_cli.array_files import read_arrays

import dcformat
from dcformat import Model, from_dense
from dcformat.graph import Add, Binary, Gather, Graph, Output, Port, Reduce, ReLU
from dcformat.records import replace
from tests.cli.support import Invoke, refused, save_npz

TABLE = np.arange(21, dtype=np.float32).reshape(7, 3)
TOKENS = np.arange(8).reshape(2, 4) % 7
STATE = np.array([[[1, 2, 3], [0, 0, 0]], [[4, 4, 4], [5, 5, 7]]], np.float32)
SUM = STATE + TABLE[TOKENS].sum(axis=1)
EXPECTED = "expected 'tokens' int64 (batch, 4), 'state' float32 (2, batch, 3)"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Write a network of tokens ``(batch, 4)`` and a state ``(2, batch, 3)`` to the next state and a token."""
    graph = Graph(
        (Port((4,), "tokens", "int64"), Port((2, 3), "state", "float32", 1)),
        (Gather(("table", 0)), Reduce((2,), "sum", (0,)), Add((1, 3)), Reduce((3,), "argmax", (0,))),
        (Output(4, "next", "float32", 1), Output(5, "token", "int32", 0), Output(3, "scores", "float32", 0)),
    )
    dcformat.save(Model({"table": from_dense("table", TABLE)}, graph, ("low", "middle")), tmp_path / "two.dcf")
    return tmp_path / "two.dcf"


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Write both inputs of `two` to an archive, and each to its own file."""
    save_npz(tmp_path / "x.npz", {"state": STATE, "tokens": TOKENS})
    np.save(tmp_path / "tokens.npy", TOKENS)
    np.save(tmp_path / "state.npy", STATE)
    return tmp_path / "x.npz"


def check(outputs: Any) -> None:
    assert set(outputs) == {"next", "token", "scores"}
    np.testing.assert_array_equal(outputs["next"], SUM)
    np.testing.assert_array_equal(outputs["token"], np.array([2, 2], np.int32), strict=True)


def test_an_archive_to_an_archive(invoke: Invoke, two: Path, arrays: Path, tmp_path: Path) -> None:
    result = invoke("run", two, "--input", arrays, "-o", tmp_path / "y.npz")
    assert (result.exit_code, result.output) == (0, "")
    check(np.load(tmp_path / "y.npz"))
    first = (tmp_path / "y.npz").read_bytes()
    refused(invoke("run", two, "--input", arrays, "-o", tmp_path / "y.npz"), "-f replaces it", code=2)
    assert invoke("run", two, "--input", arrays, "-f", "-o", tmp_path / "y.npz").exit_code == 0
    assert (tmp_path / "y.npz").read_bytes() == first


def test_a_file_for_each_input(invoke: Invoke, two: Path, arrays: Path, tmp_path: Path) -> None:
    named = ["--input", f"tokens={tmp_path / 'tokens.npy'}", "--input", f"state={tmp_path / 'state.npy'}"]
    document = json.loads(invoke("run", two, *named, "-o", tmp_path / "y.npz", "--json").stdout)
    assert (document["images"], document["output"], document["shape"]) == (2, str(tmp_path / "y.npz"), None)
    check(np.load(tmp_path / "y.npz"))


def test_pipes(invoke: Invoke, two: Path, arrays: Path, tmp_path: Path) -> None:
    result = invoke("run", two, "--input", "-", "-o", "-", stdin=arrays.read_bytes())
    check(np.load(io.BytesIO(result.stdout_bytes)))
    named = ["--input", f"state={tmp_path / 'state.npy'}", "--input", "tokens=-"]
    result = invoke("run", two, *named, "-o", "-", "--json", stdin=(tmp_path / "tokens.npy").read_bytes())
    check(np.load(io.BytesIO(result.stdout_bytes)))
    assert json.loads(result.stderr)["output"] == "stdout"


def test_a_summary_of_every_output(invoke: Invoke, two: Path, arrays: Path) -> None:
    lines = invoke("run", two, "--input", arrays).stdout.splitlines()
    assert lines[0].startswith(f"{two}: outputs (backend num")
    assert [line.split() for line in lines[3:6]] == [
        ["next", "(2,", "2,", "3)", "float32", "19", "60", "38.4167"],
        ["token", "(2,)", "int32", "2", "2", "2"],
        ["scores", "(2,", "3)", "float32", "18", "53", "35.5"],
    ]
    assert lines[6:] == ["scores[0]: largest 2 (26), 1 (22), 0 (18)", "scores[1]: largest 2 (53), 1 (49), 0 (45)"]
    document = json.loads(invoke("run", two, "--input", arrays, "--json").stdout)
    assert document["classes"] is None
    assert "labels" not in document
    assert document["outputs"][1] == {
        "name": "token", "shape": [2], "dtype": "int32", "min": 2, "max": 2, "mean": 2.0,
    }  # fmt: skip


def test_labels_are_those_of_the_first_output(invoke: Invoke, two: Path, arrays: Path) -> None:
    model = dcformat.load(two)
    assert model.graph is not None
    graph = replace(model.graph, outputs=model.graph.outputs[::-1])
    dcformat.save(replace(model, graph=graph), two)
    assert "scores[0]: largest 2 (26), middle (22), low (18)" in invoke("run", two, "--input", arrays).stdout
    dcformat.save(replace(model, graph=replace(graph, outputs=graph.outputs[:1])), two)
    assert invoke("run", two, "--input", arrays).stdout.splitlines() == ["2", "2"]


def test_many_samples_are_counted(invoke: Invoke, two: Path, tmp_path: Path) -> None:
    save_npz(tmp_path / "x.npz", {"state": np.ones((2, 7, 3), np.float32), "tokens": np.zeros((7, 4), np.int64)})
    lines = invoke("run", two, "--input", tmp_path / "x.npz").stdout.splitlines()
    assert lines[-2:] == ["scores[4]: largest 2 (8), 1 (4), 0 (0)", "scores: 2 more samples"]


def test_figures_that_are_no_finite_numbers(invoke: Invoke, tmp_path: Path) -> None:
    dcformat.save(Model({}, Graph.sequential((2, 2), (ReLU((0,)),))), tmp_path / "a.dcf")
    for name, values, figures in (
        ("inf", [[[1, np.inf], [0, 0]]], [0.0, "inf", "inf"]), ("empty", np.zeros((0, 2, 2)), [None] * 3),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", np.array(values, np.float32))
        document = json.loads(invoke("run", tmp_path / "a.dcf", "--input", tmp_path / f"{name}.npy", "--json").stdout)
        (output,) = document["outputs"]
        assert [output[key] for key in ("min", "max", "mean")] == figures
        assert document["classes"] is None
        assert invoke("run", tmp_path / "a.dcf", "--input", tmp_path / f"{name}.npy").exit_code == 0


def test_a_network_without_a_batch(invoke: Invoke, tmp_path: Path) -> None:
    graph = Graph(
        (Port((2, 3), "a", "float32", None), Port((), "b", "float64", None)),
        (Binary((0, 1), "mul"), Reduce((2,), "sum", (0,))),
        (Output(3, "sum", "float16", None),),
    )
    dcformat.save(Model({}, graph), tmp_path / "a.dcf")
    save_npz(tmp_path / "x.npz", {"a": np.ones((2, 3), np.float32), "b": np.array(0.25)})
    options = ["run", tmp_path / "a.dcf", "--input", tmp_path / "x.npz"]
    assert invoke(*options, "-o", tmp_path / "y.npy").exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.full(3, 0.5, np.float16), strict=True)
    document = json.loads(invoke(*options, "--json").stdout)
    assert (document["images"], document["classes"]) == (1, [0])
    assert "sum[0]: largest 0 (0.5), 1 (0.5), 2 (0.5)" in invoke(*options).stdout


def test_truth_values(invoke: Invoke, tmp_path: Path) -> None:
    graph = Graph((Port((3,), "x", "bool"),), (Binary((0, 0), "mul"),), (Output(1, "y", "bool"),))
    dcformat.save(Model({}, graph), tmp_path / "a.dcf")
    np.save(tmp_path / "x.npy", np.array([[True, False, True]]))
    lines = invoke("run", tmp_path / "a.dcf", "--input", tmp_path / "x.npy").stdout.splitlines()
    assert lines[3].split() == ["y", "(1,", "3)", "bool", "0", "1", "0.666667"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": None}, f"x.npz: inputs: {EXPECTED}; found 'state'"),
        ({"more": TOKENS}, f"x.npz: inputs: {EXPECTED}; found 'state', 'tokens', 'more'"),
        ({"tokens": TOKENS[:, :3]}, "x.npz: shape of input 'tokens': expected (batch, 4), found (2, 3)"),
        ({"tokens": TOKENS.astype(float)}, "x.npz: dtype of input 'tokens': expected int64, found float64"),
        ({"tokens": TOKENS[:1]}, "x.npz: batch sizes: expected equal ones"),
        ({"tokens": TOKENS + 9}, "x.npz: index: expected whole numbers from -7 to 6"),
        ({"tokens": np.array([{}], object)}, "x.npz: tokens: expected arrays of numbers, found object"),
    ],
)
def test_arrays_that_do_not_fit(
    invoke: Invoke, two: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"state": STATE, "tokens": TOKENS, **change}
    save_npz(tmp_path / "x.npz", {name: array for name, array in given.items() if array is not None})
    refused(invoke("run", two, "--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz"), message)
    assert not (tmp_path / "y.npz").exists()


def test_the_file_that_does_not_fit_is_named(invoke: Invoke, two: Path, arrays: Path, tmp_path: Path) -> None:
    state = ["--input", f"state={tmp_path / 'state.npy'}"]
    swapped = ["--input", f"tokens={tmp_path / 'state.npy'}"]
    refused(invoke("run", two, *state, *swapped), f"{tmp_path / 'state.npy'}: shape of input 'tokens'")
    refused(invoke("run", two, *state), f"state.npy: inputs: {EXPECTED}; found 'state'")
    refused(invoke("run", two, *state, "--input", arrays), f"{arrays}: expected each input once, found 'state' in")
    refused(
        invoke("run", two, "--input", tmp_path / "tokens.npy"),
        f"tokens.npy: expected arrays for {EXPECTED.removeprefix('expected ')}, found one without a name",
    )
    refused(invoke("run", two, "--input", f"state={arrays}"), "x.npz: expected a .npy array for input 'state'")


def test_a_name_of_the_output_that_does_not_fit(invoke: Invoke, two: Path, arrays: Path, tmp_path: Path) -> None:
    result = invoke("run", two, "--input", arrays, "-o", tmp_path / "y.npy")
    refused(result, "y.npy: expected a name ending in .npz for 3 outputs, found .npy")


def test_misuse(invoke: Invoke, two: Path, arrays: Path, tmp_path: Path) -> None:
    for options, message in (
        (["--input", "a=x.npy", "--input", "a=y.npy"], "a different NAME=X.npy"),
        (["--input", arrays, "--input", arrays], "a different NAME=X.npy"),
        (["--input", "a=-", "--input", "b=-"], "expected one file from stdin, found several"),
        (["--input", "=x.npy"], "expected NAME=X.npy, found '=x.npy'"),
        (["--input", "x="], "expected NAME=X.npy, found 'x='"),
    ):
        refused(invoke("run", two, *options), message, code=2)
    refused(invoke("run", "-", "--input", "a=-"), "expected FILE or --input from stdin, found both", code=2)
    same = invoke("run", two, "--input", f"tokens={tmp_path / 'tokens.npy'}", "-f", "-o", tmp_path / "tokens.npy")
    refused(same, "expected an output other than the input", code=2)


def test_a_file_whose_name_has_an_equals_sign(invoke: Invoke, tmp_path: Path) -> None:
    dcformat.save(Model({}, Graph.sequential((2, 2), (ReLU((0,)),))), tmp_path / "a.dcf")
    np.save(tmp_path / "lr=1.npy", np.ones((1, 2, 2), np.float32))
    assert invoke("run", tmp_path / "a.dcf", "--input", tmp_path / "lr=1.npy").exit_code == 0


def test_a_data_set_needs_one_input(invoke: Invoke, two: Path, data: Path) -> None:
    for options in ([], ["--data", data]):
        refused(invoke("run", two, *options), "two.dcf: expected one input and one output", "give arrays with --input")


@pytest.mark.parametrize("cut", [10, 200, -1])
def test_a_damaged_archive(invoke: Invoke, two: Path, arrays: Path, cut: int) -> None:
    raw = arrays.read_bytes()[:cut]
    arrays.write_bytes(raw)
    message = "expected a NumPy .npz archive of plain arrays, found a damaged one"
    refused(invoke("run", two, "--input", arrays), f"x.npz: {message}")
    refused(invoke("run", two, "--input", "-", stdin=raw), f"stdin: {message}")


def test_an_archive_that_takes_too_much_memory(invoke: Invoke, two: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", tokens=np.zeros((1 << 22, 4), np.int64))
    message = "expected an archive that takes at most 104,857,600 bytes of memory"
    result = invoke("run", two, "--input", tmp_path / "x.npz", "--max-memory", "100M")
    refused(result, f"x.npz: tokens: {message}", "134,217,728")


def test_a_pipe_that_takes_too_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"PK\3\4" + bytes(3 << 20))

    monkeypatch.setattr("sys.stdin", Stdin)
    with pytest.raises(dcformat.errors.MemoryLimitError, match="archive"):
        read_arrays("-", 2 << 20)
