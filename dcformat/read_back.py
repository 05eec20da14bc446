"""Proves that a file holds the model from which it was made, before anybody gets it."""

from __future__ import annotations

from dcformat.contents_writer import small_sections
from dcformat.digest import ContentDigest, tensor_digest
from dcformat.errors import FormatError
from dcformat.model import Model
from dcformat.opening import open_file
from dcformat.reader import DcfFile
from dcformat.source import Source


class ReadBackError(RuntimeError):
    """Coded data do not decode to the original: a fault of the program or of the machine."""


def require_read_back(model: Model, source: Source, label: str) -> None:
    """Read a file back, and require that it holds the model: its text, its network, and every bit of its tensors.

    Every tensor is decoded once, one at a time. The digest of all content must be the one in the file, which the writer
    computed from the model before it coded anything.

    Raises
    ------
    ReadBackError
        The file holds something else; the message begins with `label` and names the tensor.
    """
    try:
        with open_file(source, max_memory=None, max_work=None) as content:
            _require_same(model, content, label)
    except FormatError as error:
        raise ReadBackError(f"{label}: expected the model when read back, found {error}") from error


def _require_same(model: Model, content: DcfFile, label: str) -> None:
    sections = small_sections(model)
    if content.names != tuple(model.tensors) or content.sections() != sections:
        raise ReadBackError(f"{label}: expected the model's names and network when read back, found others")
    digest, found = ContentDigest(sections), dict[str, bytes]()
    for name in content.names:
        original = content.info(name).copy_of
        found[name] = found[original] if original else tensor_digest(content.tensor(name))
        digest.add(name, found[name])
    if digest.take() == content.digest:
        return
    for name, tensor in model.tensors.items():
        if tensor_digest(tensor) != found[name]:
            raise ReadBackError(f"{label}: {name}: expected the model's values when read back, found others")
    raise ReadBackError(f"{label}: expected the model's digest when read back, found another")
