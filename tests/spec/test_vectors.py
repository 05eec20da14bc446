"""The package and the reference decoder decode the frozen files to what the manifest says."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.backends import Backend
from dcformat_runtime.self_testing import run_self_test

import dcformat
from dcformat.errors import FormatError
from dcformat.graph_attributes import OPERATORS
from tests.spec.support import (
    SPEC,
    VECTORS,
    manifest,
    package,
    reference,
    reference_decoder,
    reference_reader,
    run_arrays,
    run_graph,
)

MANIFEST = manifest()
VALID: dict[str, Any] = MANIFEST["valid"]
INVALID: dict[str, Any] = MANIFEST["invalid"]
DELTAS: dict[str, Any] = MANIFEST["deltas"]
GOOD_DELTAS = [name for name, entry in DELTAS.items() if "holds" in entry]
BAD_DELTAS = [name for name, entry in DELTAS.items() if "code" in entry]


def read(folder: str, name: str) -> bytes:
    return (VECTORS / folder / name).read_bytes()


@pytest.mark.parametrize("folder", ["valid", "invalid"])
def test_the_files_match_the_manifest(folder: str) -> None:
    assert {path.name for path in (VECTORS / folder).iterdir()} == set(MANIFEST[folder])


def test_each_delta_has_a_base() -> None:
    found = {path.name for path in (VECTORS / "deltas").iterdir()}
    assert found == {made for name in DELTAS for made in (name, f"base_of_{name}")}


@pytest.mark.parametrize("folder", ["valid", "invalid", "deltas"])
def test_frozen(folder: str) -> None:
    changed = [
        name
        for name, entry in MANIFEST[folder].items()
        if hashlib.sha256(read(folder, name)).hexdigest() != entry["file_sha256"]
    ]
    assert not changed


#: The reference decoder takes a quarter of a second or more for each of these.
LONG = {
    "codebook_65536_coder_3.dcf",
    "coder_3_nonempty_10.dcf",
    "container_most_labels.dcf",
    "container_packed_long.dcf",
    "file_of_two_pieces.dcf",
    "long_empty_lines_coder_3.dcf",
    "long_exact_rounding_coder_3.dcf",
    "long_largest_symbols_coder_3.dcf",
    "long_nonempty_coder_3.dcf",
    "model_ds_cnn_keywords.dcf",
    "model_lenet_300_100.dcf",
    "model_lenet_300_100_extreme.dcf",
    "model_lenet_5.dcf",
    "model_resnet_20.dcf",
    "model_resnet_8.dcf",
    "model_vgg_7.dcf",
    "model_vit.dcf",
    "planes_coded_int8.dcf",
    "planes_states_most.dcf",
}


def decoded_in_python(names: Iterable[str]) -> list[Any]:
    """Return parameters for tests that decode vectors with the reference decoder."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in names]


@pytest.mark.parametrize("name", decoded_in_python(VALID))
def test_reference_decodes(name: str) -> None:
    assert reference(read("valid", name)) == VALID[name]["holds"]


@pytest.mark.parametrize("name", VALID)
def test_package_decodes(name: str) -> None:
    expected = VALID[name]["holds"]
    data = read("valid", name)
    with dcformat.open(data) as file:
        file.verify()
        assert package(file) == expected
        for tensor in expected["tensors"]:
            assert file.tensor(tensor["name"]).shape == tuple(tensor["shape"])
            assert file.info(tensor["name"]).dtype == tensor["dtype"]
    model = dcformat.load(data)
    assert list(model.tensors) == [tensor["name"] for tensor in expected["tensors"]]


#: Accounting codes a tensor again; for this line of 2^31 - 1 cells, it needs more memory than is allowed.
UNACCOUNTED = "runs_longest_line.dcf"


@pytest.mark.parametrize("name", [name for name in VALID if name != UNACCOUNTED])
def test_the_bits_of_payloads_add_up(name: str) -> None:
    with dcformat.open(read("valid", name)) as file:
        for tensor in file.names:
            use = file.usage(tensor)
            parts = (use.index_bits, use.code_bits, use.codebook_bits, use.table_bits)
            assert min(parts) >= 0, tensor
            assert sum(parts) == 8 * file.info(tensor).payload_bytes, tensor
            assert str(file.usage(tensor, file.tensor(tensor))) == str(use), tensor


@pytest.mark.parametrize("name", decoded_in_python(GOOD_DELTAS))
def test_deltas_make_new_files(name: str) -> None:
    """[B1] to [B14]: the reference decoder and the package get the same result from a delta and its base."""
    data, base = read("deltas", name), read("deltas", f"base_of_{name}")
    expected = DELTAS[name]["holds"]
    made = reference_decoder.summary(reference_decoder.apply(data, base))
    assert json.loads(json.dumps(made)) == expected
    dcformat.verify(data)
    again = reference(dcformat.dumps(dcformat.apply(data, base)))
    assert {**again, "version": [1, 0]} == expected


@pytest.mark.parametrize("name", BAD_DELTAS)
def test_deltas_are_rejected(name: str) -> None:
    data, base = read("deltas", name), read("deltas", f"base_of_{name}")
    dcformat.verify(data)
    with pytest.raises(reference_reader.DecodeError) as refused:
        reference_decoder.apply(data, base)
    with pytest.raises(FormatError) as caught:
        dcformat.apply(data, base)
    assert (refused.value.code, caught.value.code) == (DELTAS[name]["code"],) * 2


@pytest.mark.parametrize("name", INVALID)
def test_reference_rejects(name: str) -> None:
    with pytest.raises(reference_reader.DecodeError) as caught:
        reference(read("invalid", name))
    assert caught.value.code == INVALID[name]["code"]


def by_load(data: bytes) -> None:
    dcformat.load(data)


def by_tensor(data: bytes) -> None:
    with dcformat.open(data) as file:
        for tensor in file.names:
            file.tensor(tensor)


def by_verify(data: bytes) -> None:
    with dcformat.open(data) as file:
        file.verify()


@pytest.mark.parametrize("name", INVALID)
def test_package_rejects(name: str) -> None:
    data = read("invalid", name)
    for way in (by_load, by_tensor, by_verify):
        if way is not by_verify and INVALID[name]["requirements"] == ["D1"]:
            way(data)  # only the digest is wrong, which `verify` must find
            continue
        with pytest.raises(FormatError) as caught:
            way(data)
        assert caught.value.code == INVALID[name]["code"], way.__name__


def test_ignorable_sections_survive_a_rewrite() -> None:
    """[C3]: unknown sections are kept byte for byte."""
    data = read("valid", "container_ignorable_sections.dcf")
    with dcformat.open(dcformat.dumps(dcformat.load(data))) as file:
        kept = [[128 | extension.kind, extension.payload.hex()] for extension in file.extensions]
    assert kept == VALID["container_ignorable_sections.dcf"]["holds"]["extensions"]
    assert len(kept) == 2


#: Every fourth vector, of any kind, is rewritten in the tests that are not slow.
REWRITTEN = [pytest.param(name, marks=[pytest.mark.slow] * (number % 4 > 0)) for number, name in enumerate(VALID)]


@pytest.mark.parametrize("name", REWRITTEN)
def test_survives_a_rewrite(name: str) -> None:
    """A vector that the package rewrites decodes to the same network, in the reference decoder too."""
    found = reference(dcformat.dumps(dcformat.load(read("valid", name))))
    expected = {**copy.deepcopy(VALID[name]["holds"]), "version": [1, 0]}
    # The stored parts may change with the form, but the digest of the elements may not.
    for tensor in (*found["tensors"], *expected["tensors"]):
        tensor.pop("stored_sha256", None)
    assert found == expected


@pytest.mark.parametrize("mode", ["fast", "small", "tiny"])
def test_self_tests_pass(mode: str) -> None:
    """[S1]: a frozen network still gives the frozen answers, with room for rounding."""
    model = dcformat.load(read("valid", f"written_network_{mode}.dcf"))
    assert model.self_test is not None and model.graph is not None
    assert run_self_test(model) is True
    test, shape = model.self_test, model.graph.input_shape
    count = test.samples * int(np.prod(shape))
    pixels = np.frombuffer(reference_decoder.self_test_pixels(test.seed, count), np.uint8)
    outputs = Session.from_model(model, backend="numpy")(pixels.reshape(test.samples, *shape))
    best = np.sort(outputs, axis=1)[:, ::-1]
    assert (best[:, 0] - best[:, 1] >= np.abs(outputs).max(axis=1) / 1000).all()
    winners = outputs.argmax(axis=1).astype("<u4").tobytes()
    assert hashlib.sha256(winners).digest()[:8] == test.digest


def test_every_error_has_a_vector() -> None:
    # The reader decides how much work is too much, so no file shows that.
    codes = {kind.code for kind in FormatError.__subclasses__()} - {"E16"}
    bad = [*INVALID.values(), *(DELTAS[name] for name in BAD_DELTAS)]
    assert {entry["code"] for entry in bad} == codes


def test_reference_decoder_imports_the_standard_library_only() -> None:
    files = {path.stem: path for path in SPEC.glob("reference_*.py")}
    found = set()
    for path in files.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Import):
                found.update(name.name.partition(".")[0] for name in node.names)
    assert found - set(sys.stdlib_module_names) == set(files) - {"reference_decoder"}


def test_reference_decoder_as_a_program() -> None:
    """It needs no packages: a new process runs it without site-packages."""
    name = "container_labels.dcf"
    command = [sys.executable, "-E", "-s", "-S", str(SPEC / "reference_decoder.py"), str(VECTORS / "valid" / name)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == VALID[name]["holds"]
    bad = subprocess.run([*command[:-1], str(VECTORS / "invalid" / "file_magic.dcf")], capture_output=True, text=True)
    assert bad.returncode == 1
    assert bad.stderr.startswith("E01 ")


RUNS = [name for name, entry in VALID.items() if "run" in entry]


def run(name: str, inputs: list[list[float]]) -> list[list[float]]:
    """Return the result of the specification's program for one sample."""
    file = reference_decoder.decode(read("valid", name))
    assert file.graph is not None
    tensors = {
        key: run_arrays.Array(tensor.shape, [run_arrays.from_bits(bits) for bits in tensor.values])
        for key, tensor in file.tensors.items()
    }
    given = [run_arrays.Array(port["shape"], x) for port, x in zip(file.graph["inputs"], inputs, strict=True)]
    return [output.values for output in run_graph.run(file.graph, tensors, given)]


@pytest.mark.parametrize("name", RUNS)
def test_graphs_give_the_frozen_outputs(name: str) -> None:
    """The manifest has what `run_graph` computed; libraries of functions differ in last bits."""
    found = run(name, VALID[name]["run"]["inputs"])
    for output, expected in zip(found, VALID[name]["run"]["outputs"], strict=True):
        np.testing.assert_allclose(output, expected, rtol=1e-6, atol=1e-7)


def test_a_run_vector_shows_every_operator() -> None:
    shown = {operator["operator"] for name in RUNS for operator in VALID[name]["holds"]["graph"]["operators"]}
    assert shown == {kind.__name__ for kind in OPERATORS.values()}


@pytest.mark.parametrize("place", [5.0, -6.0, 0.5, float("nan")])
def test_a_place_beyond_the_table_fails(place: float) -> None:
    """[G13]."""
    with pytest.raises(ValueError, match="Gather"):
        run("run_gather.dcf", [[0.0, place, 0.0, 0.0]])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", RUNS)
def test_sessions_give_the_frozen_outputs(name: str, backend: Backend) -> None:
    model = dcformat.load(read("valid", name))
    assert model.graph is not None
    ports, run = model.graph.inputs, VALID[name]["run"]
    given = {
        port.name: np.array(x, np.float32).reshape(1, *port.shape) for port, x in zip(ports, run["inputs"], strict=True)
    }
    session = Session.from_model(model, backend=backend)
    found = session(given) if len(given) > 1 or len(run["outputs"]) > 1 else {"output": session(*given.values())}
    shapes = VALID[name]["holds"]["graph"]["shapes"]
    for output, expected in zip(model.graph.outputs, run["outputs"], strict=True):
        assert list(found[output.name].shape[1:]) == shapes[output.value]
        largest = np.abs(expected).max()
        np.testing.assert_allclose(found[output.name].reshape(-1), expected, rtol=1e-5, atol=1e-6 * largest)
