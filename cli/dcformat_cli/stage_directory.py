"""The directory of complete stages from which an interrupted `dcformat compress` continues."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType

from dcformat_interop import match, read_checkpoint

from dcformat.architectures import Architecture
from dcformat.files import replacing
from dcformat_cli.failures import UnfitError
from dcformat_cli.terminal import note, show_notes

#: The names of the files that a run makes in its directory. A run never touches other files there.
_STAGE = re.compile(r"\d\d-[\w-]+\.pt")
_OURS = re.compile(rf"{_STAGE.pattern}|start\.safetensors|\.stage-\w+\.tmp")


class StageDirectory:
    """The directory of a run's stages; a context manager around the run.

    Parameters
    ----------
    output : Path
        The file that the run makes; the stages are in ``OUTPUT.stages`` unless `directory` is given.
    directory : Path or None
        The user's own directory; the stages stay there.
    resuming : bool
        Whether to continue from the stages in the directory. Otherwise an earlier run's stages are removed first.
    keep : bool
        Whether to keep the stages of a successful run.
    """

    def __init__(self, output: Path, directory: Path | None, *, resuming: bool, keep: bool) -> None:
        self.directory = directory or output.with_name(output.name + ".stages")
        self._resuming = resuming
        self._keep = keep or directory is not None

    def __enter__(self) -> StageDirectory:
        if self.directory.exists() and not self.directory.is_dir():
            raise UnfitError(self.directory, "a directory for the stages", "a file")
        left = self._files(_STAGE)
        if self._resuming and not left:
            note(f"{self.directory}: no stage to continue from; starting with the first")
        elif left and not self._resuming:
            note(f"{self.directory}: removed an earlier run's stages (--resume would have continued from them)")
            self._remove()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._keep:
            self._remove()
        elif error is not None and self._files(_STAGE):
            note(f"{self.directory}: complete stages were kept; --resume continues from them")

    def start_from(self, path: Path, architecture: Architecture) -> Path:
        """Check a user's checkpoint, and save it among the stages in float32 with the architecture's names.

        Raises
        ------
        UnfitError
            The checkpoint does not fit the architecture.
        """
        from safetensors.numpy import save

        read = read_checkpoint(path)
        show_notes(read.notes)
        arrays = {}
        names = match(path, architecture, read.tensors, read.left_out)
        for wanted, name in zip(architecture.shapes, names, strict=True):
            dense = read.tensors[name]
            if dense.dtype == "int8":
                raise UnfitError(path, "float weights to train from", "int8", name)
            bits = dense.values
            arrays[wanted] = (bits.astype("<u4") << 16).view("<f4") if dense.dtype == "bfloat16" else bits.astype("<f4")
        self.directory.mkdir(parents=True, exist_ok=True)
        start = self.directory / "start.safetensors"
        with replacing(start) as out:
            out.write(save(arrays))
        return start

    def _files(self, pattern: re.Pattern[str]) -> list[Path]:
        if not self.directory.is_dir():
            return []
        return sorted(path for path in self.directory.iterdir() if pattern.fullmatch(path.name))

    def _remove(self) -> None:
        for path in self._files(_OURS):
            path.unlink(missing_ok=True)
        if self.directory.is_dir() and not any(self.directory.iterdir()):
            self.directory.rmdir()
