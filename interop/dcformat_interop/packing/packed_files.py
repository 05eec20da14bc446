"""The files of a packed checkpoint: one, or several with an index, as safetensors has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import dcformat
from dcformat import layout
from dcformat.assembly import CodedTensor, write_file
from dcformat.codecs import Mode
from dcformat.contents import TensorInfo, parse_entry
from dcformat.contents_writer import check_limits, small_sections
from dcformat.errors import FormatError
from dcformat.files import replacing
from dcformat.model import Delta, Extension, Model
from dcformat.reader import DcfFile
from dcformat.wording import counted
from dcformat_interop.packing.indexes import Index, compare, find_index, read_index
from dcformat_interop.packing.origin import SafetensorsOrigin, check_tensors, read_origin
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import Array, Budget

#: The ending of an index's name, and the name that `write_shards` gives it.
INDEX_SUFFIX = ".dcf.index.json"
INDEX_NAME = f"model{INDEX_SUFFIX}"


def sections(
    names: Sequence[str], metadata: Mapping[str, str], extensions: Sequence[Extension] = ()
) -> list[tuple[int, bytes]]:
    """Return the sections of a file without a network, except the tensor table. Raises `FormatError`."""
    model = Model(dict.fromkeys(names), metadata=dict(metadata), extensions=tuple(extensions))  # type: ignore[arg-type]
    check_limits(model)
    return small_sections(model)


def write_one(
    tensors: Sequence[CodedTensor],
    mode: Mode,
    metadata: Mapping[str, str],
    extensions: Sequence[Extension],
    file: BinaryIO,
) -> int:
    """Write all tensors as one file, and return its size in bytes.

    Raises
    ------
    FormatError
        There are more tensors, or longer names or texts, than a file may have.
    """
    return write_file(tensors, sections([each.name for each in tensors], metadata, extensions), mode, file)


def write_shards(
    tensors: Sequence[CodedTensor],
    mode: Mode,
    metadata: Mapping[str, str],
    extensions: Sequence[Extension],
    directory: Path,
    max_bytes: int,
) -> list[Path]:
    """Write tensors, in their order, as files of about `max_bytes` at most, and then an index.

    A tensor whose payload is larger has a file to itself. The first file has the extensions.

    Returns
    -------
    list of Path
        The files and, last, the index, which holds the content digest of each file.

    Raises
    ------
    FormatError, OSError
        As in `write_one`; a file cannot be written.
    """
    groups = _groups(tensors, max_bytes)
    written, where, digests = [], {}, {}
    for number, group in enumerate(groups, start=1):
        path = directory / f"model-{number:05}-of-{len(groups):05}.dcf"
        with replacing(path) as file:
            write_one(group, mode, metadata, extensions if number == 1 else (), file)
        where.update(dict.fromkeys((each.name for each in group), path.name))
        with dcformat.open(path) as made:
            digests[path.name] = made.digest.hex()
        written.append(path)
    total = sum(parse_entry(each.head, each.size).nbytes for each in tensors)
    content = {"metadata": {"total_size": total, "content_digests": digests}, "weight_map": where}
    with replacing(directory / INDEX_NAME) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")
    return [*written, directory / INDEX_NAME]


def _groups(tensors: Sequence[CodedTensor], max_bytes: int) -> list[list[CodedTensor]]:
    groups: list[list[CodedTensor]] = [[]]
    used = 0
    for tensor in tensors:
        size = tensor.size + len(tensor.head) + layout.CRC_BYTES
        full = used + size > max_bytes or len(groups[-1]) == layout.MAX_TENSORS
        if groups[-1] and full:
            groups.append([])
            used = 0
        groups[-1].append(tensor)
        used += size
    return groups


class PackedFiles:
    """A packed checkpoint in one file or several, tensor by tensor.

    Attributes
    ----------
    path : str
        The name that the user gave.
    """

    def __init__(self, path: str, files: Sequence[DcfFile]) -> None:
        self.path, self._files = path, files
        self._where: dict[str, DcfFile] = {}
        for file in files:
            for name in file.names:
                if name in self._where:
                    raise UnfitError(path, "each tensor in one file", "it in two", name)
                self._where[name] = file

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors."""
        return tuple(self._where)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata, which all files share."""
        return self._files[0].metadata

    def info(self, name: str) -> TensorInfo:
        """Return a tensor's entry in the table of contents."""
        return self._where[name].info(name)

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield a tensor's elements, as `DcfFile.pieces` does."""
        return self._where[name].pieces(name)

    @property
    def files(self) -> Sequence[DcfFile]:
        """The files themselves, in the order of their names."""
        return self._files

    @property
    def delta(self) -> Delta | None:
        """The delta that a file is, if it is one."""
        return next((file.delta for file in self._files if file.delta is not None), None)

    def work(self, name: str) -> int:
        """Return the maximum number of steps needed to decode a tensor."""
        return self._where[name].work(name)

    def damaged(self) -> dict[str, FormatError]:
        """Return the tensors that are damaged or missing, with the reasons, as `DcfFile.damaged` does."""
        return {name: error for file in self._files for name, error in file.damaged().items()}

    def origin(self, max_memory: int | None = layout.DEFAULT_MAX_MEMORY) -> SafetensorsOrigin | None:
        """Return the safetensors files that the checkpoint was made from, or None if it does not name them.

        Parameters
        ----------
        max_memory : int or None
            Maximum number of bytes that the description may take; None for no limit.

        Raises
        ------
        MemoryLimitError
            The description takes more memory than allowed.
        UnfitError
            The description is damaged or does not fit the tensors.
        """
        found = read_origin(self.path, [each for file in self._files for each in file.extensions], max_memory)
        if found is not None:
            infos = {name: (self.info(name).dtype, self.info(name).shape) for name in self.names}
            check_tensors(self.path, found, infos)
        return found


def is_sharded(path: Path) -> bool:
    """Return whether `opened` treats a path as several files: an index, or a directory."""
    return path.is_dir() or path.name.endswith(INDEX_SUFFIX)


def named_files(path: Path, *, max_memory: int | None = layout.DEFAULT_MAX_MEMORY) -> list[Path]:
    """Return the files that an index names, or the index in a directory. Raises the errors of `opened_files`."""
    index, found = _index(path, max_memory)
    return [index.parent / name for name in sorted(set(found.where.values()))]


def _index(path: Path, max_memory: int | None) -> tuple[Path, Index]:
    """Return an index and its path."""
    index = find_index(path, INDEX_SUFFIX) if path.is_dir() else path
    if index is None:
        raise UnfitError(path, f"a .dcf file, or a directory with an index (*{INDEX_SUFFIX})", "no index in it")
    return index, read_index(index, Budget(str(path), max_memory))


@contextmanager
def opened_files(
    path: Path,
    *,
    max_memory: int | None = layout.DEFAULT_MAX_MEMORY,
    max_work: int | None = layout.DEFAULT_MAX_WORK,
    partial: bool = False,
) -> Iterator[PackedFiles]:
    """Open the files of a packed checkpoint: an index, or a directory with one.

    The options are those of `dcformat.open`, for each file; `max_memory` applies to the index too.

    Raises
    ------
    UnfitError
        There is no index or more than one, or it is damaged, takes too much memory, names a file outside its
        directory, or disagrees with the files.
    FormatError, OSError
        A file is damaged or cannot be read.
    """
    index, found = _index(path, max_memory)
    with ExitStack() as stack:

        def open_one(path: Path) -> DcfFile:
            return stack.enter_context(dcformat.open(path, max_memory=max_memory, max_work=max_work, partial=partial))

        files = {name: open_one(index.parent / name) for name in sorted(set(found.where.values()))}
        packed = PackedFiles(str(path), list(files.values()))
        compare(index, found.where, {name: file for file, content in files.items() for name in content.names})
        if not partial:
            _compare_digests(index, found.digests, files)
            _compare_size(index, found.total_size, [packed.info(name) for name in packed.names])
        yield packed


def _compare_digests(index: Path, digests: Mapping[str, str], files: Mapping[str, DcfFile]) -> None:
    """Raise `UnfitError` if a file is not the one with which the index was written, though its tensors are alike."""
    for name, file in files.items():
        stated, digest = digests.get(name), file.digest.hex()
        if stated is not None and stated != digest:
            expected = f"{name} with the content digest {stated}"
            raise UnfitError(index, expected, f"{digest}: the file is one of another checkpoint")


def _compare_size(index: Path, stated: object, infos: Iterable[TensorInfo]) -> None:
    """Raise `UnfitError` if the index states another size than the tensors have: it may leave out a file."""
    total = sum(info.nbytes for info in infos)
    if stated is not None and stated != total:
        raise UnfitError(index, f"{counted(total, 'byte')} of tensors, as its files have", f"total_size {stated!r:.40}")
