"""Loads ``.pt2`` archives, without anything in them that could run code.

`torch.export.load` unpickles tensors and example inputs, evaluates sizes as Python, and loads compiled libraries. So it
gets a copy of the archive that has none of that: only tensors of plain bytes, and a graph in which every text has been
checked.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from dcformat_interop.kinds import zip_damage
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import JSON_BYTES, Budget
from dcformat_interop.torch_import.translation import quiet

_MODEL, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")

#: The members that identify the kind of the archive.
_MARKS = ("archive_format", "archive_version", ".data/version", "byteorder")

#: The archive of PyTorch 2.7 and earlier.
_OLD = "serialized_exported_program.json"

#: Operators of tensors and of sizes, but none that reads or writes files.
_TARGET = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b|save\b)\w+\.\w+|_operator\.\w+|torch\.sym_\w+|math\.\w+"
    r"|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
)

#: A size: numbers, symbols, and sums, products, quotients and comparisons of them. Powers could take forever, and so
#: could the search if a row of digits could be cut in many ways.
_SIZE = re.compile(
    r"(Symbol\('[a-z]+\d+'(, (positive|nonnegative|integer)=True)*\)"
    r"|(Integer|Add|Mul|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|ModularIndexing"
    r"|CeilToInt|FloorToInt|TruncToInt|ToFloat|IntTrueDiv)\(|([a-z]+\d+|\d{1,20})(?!\d)|true|false|[ ,()+-]|\*(?!\*))*"
)
_STACK = re.compile(r"[\w.,;@#<>\[\] -]*")
_WORD = re.compile(r"[\w.+:-]*")
_ARGUMENT = re.compile(r"[\w ,>.-]{0,100}")
_LONGEST = 2_000

_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")


def load_program(path: Path, max_memory: int | None) -> Any:
    """Return the `torch.export.ExportedProgram` of an archive.

    Parameters
    ----------
    path : Path
    max_memory : int or None
        Maximum number of bytes of the archive's contents; None for no limit.

    Raises
    ------
    UnfitError
        The file is no such archive, is damaged, or holds something that could run code, which the message names.
    OSError
        The file cannot be read.
    """
    import torch

    with path.open("rb") as file, TemporaryFile() as safe:
        try:
            _copy(str(path), file, safe, Budget(str(path), max_memory, "a program"))
        except (UnfitError, OSError, MemoryError):
            raise
        except Exception as error:  # zipfile and zlib raise errors of many classes, and JSON may have any structure
            raise _unfit(path, "a torch.export program", f"a damaged one ({zip_damage(file, error)})") from None
        safe.seek(0)
        try:
            with quiet():
                return torch.export.load(safe)
        except Exception as error:  # PyTorch raises errors of many classes
            raise _unfit(
                path, "a torch.export program", f"one that PyTorch cannot load ({_first_line(error)})"
            ) from error


def _copy(path: str, file: IO[bytes], safe: IO[bytes], budget: Budget) -> None:
    """Write to `safe` the necessary parts of an archive that cannot run code."""
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(safe, "w") as out:
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if _MODEL not in members:
            raise _unfit(path, "one program, saved with PyTorch 2.8 or later", _instead(members, archive.namelist()))

        def add(name: str) -> None:
            budget.take(members[name].file_size, name)
            out.writestr(f"model/{name}", archive.read(members[name]))

        def parsed(name: str) -> Any:
            budget.take(2 * JSON_BYTES * members[name].file_size, name)  # for what is read, and for what is written
            return json.loads(archive.read(members[name]))

        for name in _MARKS:
            if name in members:
                add(name)
        for name in _CONFIGS:
            config = parsed(name)
            for stored in _stored_files(path, name, config):
                add(f"{name.rpartition('/')[0]}/{stored}")
            out.writestr(f"model/{name}", json.dumps(_checked(path, config)))
        out.writestr(f"model/{_SAMPLES}", b"")
        out.writestr(f"model/{_MODEL}", json.dumps(_checked(path, parsed(_MODEL))))


def _instead(members: Mapping[str, Any], names: list[str]) -> str:
    if _OLD in names:
        return "one of an earlier version: save it again"
    others = [name for name in members if name.startswith("models/")]
    return f"programs of other names: {', '.join(others[:3])}" if others else "none"


def _stored_files(path: str, name: str, config: Any) -> set[str]:
    """Return the files that hold a config's tensors; refuse those that are pickled."""
    files = set()
    for tensor, entry in config["config"].items():
        if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            raise _unfit(
                path, "tensors of plain bytes", "a pickled object, which could run code", f"{name}: {tensor!r}"
            )
        files.add(entry["path_name"])
    return files


def _checked(path: str, value: Any, key: str = "") -> Any:
    """Return a part of a graph on the CPU, without guards and traces; refuse texts that do not belong in it."""
    if isinstance(value, dict):
        if key in ("device", "as_device"):
            return {"type": "cpu", "index": None}
        for name in value:
            _check(path, "name", name, _WORD)
        if "target" in value and "metadata" in value:
            stack = value["metadata"].get("nn_module_stack")
            value = {**value, "metadata": {} if stack is None else {"nn_module_stack": stack}}
        return {name: [] if name == "guards_code" else _checked(path, part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_checked(path, part, key) for part in value]
    if isinstance(value, str):
        if key in ("in_spec", "out_spec"):
            _check_tree(path, json.loads(value)[1] if value else None)
        else:
            _check(path, key, value, _TEXTS.get(key, _WORD))
    return value


_TEXTS = {"target": _TARGET, "expr_str": _SIZE, "nn_module_stack": _STACK, "as_string": _ARGUMENT}


def _check(path: str, key: str, text: str, allowed: re.Pattern[str]) -> None:
    if len(text) > _LONGEST or not allowed.fullmatch(text):
        expected = "operators of PyTorch's aten library" if allowed is _TARGET else "plain names and sizes"
        raise _unfit(path, expected, repr(text), key)


def _check_tree(path: str, tree: Any) -> None:
    """Refuse nested arguments and results that are not tuples, lists and dicts."""
    if tree is None:
        return
    if tree["type"] not in _TREES:
        raise _unfit(path, "tuples, lists and dicts of tensors", tree["type"], "arguments and results")
    context = json.loads(tree["context"]) if tree["context"] is not None else None
    if context is not None and not (isinstance(context, list) and all(isinstance(name, str) for name in context)):
        raise _unfit(path, "dicts whose keys are text", tree["context"], "arguments and results")
    for part in tree["children_spec"]:
        _check_tree(path, part)


def _unfit(path: str | Path, expected: str, found: str, what: str = "") -> UnfitError:
    return UnfitError(path, expected, found, what)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
