"""`dcformat doctor`: why a model is as large as it is, and whether the installation works."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from dcformat_interop.packing.shards import find_shards, is_several

import dcformat
from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import require_no_delta
from dcformat.wording import counted
from dcformat_cli.findings import Stored
from dcformat_cli.input_files import naming, spooled
from dcformat_cli.pack.delta_packing import is_dcf
from dcformat_cli.shared_options import LocalFile, as_json, max_memory
from dcformat_cli.terminal import TextTable, emit_json, note, say, show_notes
from dcformat_cli.writing import packed_in

if TYPE_CHECKING:
    from dcformat_interop import Dense

    from dcformat import DcfFile

#: Bytes beside the tensors, such as those of an optimizer, that are worth a line.
_BESIDE = 1 << 14

#: Optional packages, and their uses.
_EXTRAS = {
    "numba": "compiled kernels", "torch": "compress, study, PyTorch files", "matplotlib": "plots of study",
    "onnx": "ONNX models", "onnxscript": "PyTorch programs", "onnxruntime": "fast checks of ONNX models",
    "ai_edge_litert": "checks of TFLite models", "jinja2": "report", "optuna": "sweep", "ray": "clusters",
    "fsspec": "URLs other than http", "huggingface_hub": "models on Hugging Face", "scipy": "sparse matrices in Python",
}  # fmt: skip

_NAMED = 4


@click.command("doctor")
@click.argument("model", metavar="[MODEL]", required=False, type=LocalFile())
@max_memory()
@as_json()
def doctor_command(model: str | None, max_memory: int | None, as_json: bool) -> None:
    """Explain why MODEL (- for stdin) is as large as it is, and how small packing makes it.

    MODEL is a checkpoint (safetensors, .npz, PyTorch), a network (ONNX, TFLite, .pt2) or a .dcf file. It may also be a
    directory with safetensors files, their index, or a repository in the Hugging Face cache (org/name). Its tensors are
    packed in memory, and nothing is written. Without MODEL, the command examines the installation.
    """
    document = _installation() if model is None else _examined(model, max_memory)
    if as_json:
        emit_json(document)
    elif model is None:
        _say_installation(document)
    else:
        _say_model(document)


def _examined(name: str, max_memory: int | None) -> dict[str, Any]:
    from dcformat.writer import written_bytes
    from dcformat_cli.findings import findings

    limit = DEFAULT_MAX_MEMORY if max_memory is None else max_memory
    with spooled(name) as path, naming(name):
        size = _bytes(path, limit)
        tensors, left_out = _tensors(path, limit)
        verb = "repack" if is_dcf(path) else "pack"
        model = dcformat.Model({
            key: dcformat.from_dense(key, dense.values, dense.dtype, dense.scale, exact=True)
            for key, dense in tensors.items()
        })  # fmt: skip
        packed = packed_in("auto", lambda mode: written_bytes(model, mode), model.elements)
        with dcformat.open(packed.data, max_memory=None, max_work=None) as content:
            stored = {key: _stored(content, key) for key in content.names}
        found = findings(tensors, stored)
    beside = size - sum(dense.values.nbytes for dense in tensors.values())
    return {
        "file": name,
        "bytes": size,
        "tensors": len(tensors),
        "parameters": model.elements,
        "left_out": left_out,
        "beside": max(beside, 0) if verb == "pack" else 0,
        "findings": [dict(finding._asdict()) for finding in found],
        "packed": {trial.mode: trial.bytes for trial in packed.trials},
        "command": _command(name, verb, any(finding.what.startswith("float64") for finding in found), left_out),
    }


def _bytes(path: Path, max_memory: int) -> int:
    """Return the size of a file, or of all safetensors files of a directory or index."""
    if is_several(path):
        return sum(shard.stamp[0] for shard in find_shards(path, max_memory=max_memory).shards)
    return path.stat().st_size


def _stored(content: DcfFile, name: str) -> Stored:
    return Stored(content.usage(name).coder, content.info(name).payload_bytes)


def _command(name: str, verb: str, wide: bool, left_out: Iterable[str]) -> str:
    """Return the command that makes the file smaller, without the entries that have to be left out."""
    output = f"{Path(name).stem}.new.dcf" if name != "-" else "model.dcf"
    words = ["dcformat", verb, shlex.quote(name), "-o", shlex.quote(output)]
    words += ["--float32"] if wide and verb == "pack" else []
    return " ".join(words + [f"--skip {shlex.quote(each)}" for each in left_out])


def _tensors(path: Path, max_memory: int) -> tuple[Mapping[str, Dense], dict[str, str]]:
    """Return the tensors of any file that `pack` reads, and the reasons why others are left out."""
    from dcformat_interop import Dense, read_checkpoint
    from dcformat_interop.misfits import misfit

    from dcformat_cli.foreign_networks import network_kind, read_network

    if is_dcf(path):
        model = dcformat.load(path, max_memory=max_memory)
        require_no_delta(model.delta)
    elif network_kind(path) is not None:
        model = read_network(path, (), (), single=True, exact=True, max_memory=max_memory).model
    else:
        read = read_checkpoint(path, max_memory=max_memory)
        show_notes(read.notes)
        misfits = {key: misfit(key, dense.values.shape) for key, dense in read.tensors.items()}
        unfit = {key: f"a {each.what} that a .dcf file cannot hold" for key, each in misfits.items() if each}
        if unfit:
            listed = ", ".join(map(repr, unfit))
            note(f"left out, because of their names or shapes (pack needs --skip for them): {listed}"[:300])
        return {key: read.tensors[key] for key in read.tensors if key not in unfit}, {**read.left_out, **unfit}
    made = {name: Dense(t.dtype, t.to_dense(max_memory=max_memory), t.scale) for name, t in model.tensors.items()}
    return made, {}


def _say_model(document: Mapping[str, Any]) -> None:
    size, parameters = document["bytes"], document["parameters"]
    tensors = counted(document["tensors"], "tensor")
    say(f"{document['file']}: {size:,} bytes; {tensors}, {counted(parameters, 'parameter')}")
    if document["beside"] >= _BESIDE:
        say(f"{document['beside']:,} bytes are beside the tensors: headers, optimizer state, masks; packing drops them")
    for finding in document["findings"]:
        figures = (finding["elements"], finding["bytes"], finding["packed"])
        row = (_named(finding["tensors"]), *(f"{figure:,}" for figure in figures))
        TextTable(finding["what"], ("tensors", "elements", "bytes", "tensors packed"), [row]).show()
    if not document["findings"]:
        say("nothing unusual was found in the tensors")
    sizes = ", ".join(f"{mode} {count:,}" for mode, count in document["packed"].items())
    say(f"packed, the tensors take {sizes} bytes: {document['command']}")


def _named(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _installation() -> dict[str, Any]:
    from dcformat_runtime import cpu

    from dcformat import datasets, jit
    from dcformat.jit.machine_code import store
    from dcformat_cli.compiling import all_kernels
    from dcformat_cli.verbs.bench_command import machine

    kernels = all_kernels()
    folder = store.folder()
    try:
        data: str | None = str(datasets.find_directory())
    except (OSError, ValueError):
        data = None
    return {
        "dcformat": dcformat.__version__,
        "executable": sys.executable,
        "machine": machine(),
        "vectors": cpu.level(),
        "compiles": jit.can_compile(),
        "kernels": {"all": len(kernels), "saved": sum(kernel.path() is not None for kernel in kernels)},
        "folder": None if folder is None else str(folder),
        "writable": folder is not None and _writable(Path(folder)),
        "data": data,
        "packages": {name: _version(name) for name in _EXTRAS},
    }


def _writable(folder: Path) -> bool:
    """Return whether a folder can be written, or made."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def _version(name: str) -> str | None:
    """Return the version of a package, None if it is not installed, or why it cannot be imported."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        return None if error.name == name else f"broken: {error}"
    except Exception as error:  # A package that does not fit the others may raise anything.
        return f"broken: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
    return str(getattr(module, "__version__", "unknown"))


def _say_installation(found: Mapping[str, Any]) -> None:
    machine = found["machine"]
    say(f"dcformat {found['dcformat']}, Python {machine['python']} ({found['executable']})")
    say(f"processor: {machine['processor']}, {counted(machine['cores'], 'core')}, vectors {machine['vectors']}")
    kernels = "are compiled by Numba" if found["compiles"] else "run only where they were saved, or in NumPy"
    saved = f"{found['kernels']['saved']} of {found['kernels']['all']} are saved"
    say(f"kernels: {kernels}; {saved}; dcformat warmup compiles them all")
    place = "none: set DCFORMAT_CACHE_DIR" if found["folder"] is None else found["folder"]
    say(f"machine code is saved in: {place}{'' if found['writable'] else ' (which cannot be written)'}")
    say(f"data set: {found['data'] or 'none found: set DCFORMAT_DATA or give --data'}")
    rows = [(name, found["packages"][name] or "missing", use) for name, use in _EXTRAS.items()]
    TextTable("packages", ("package", "version", "for"), rows).show()
