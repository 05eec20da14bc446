"""Packs a model, then reads the bytes back and compares them before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from dcformat.model import Model, Tensor
from dcformat.read_back import ReadBackError
from dcformat_cli.progress import Count, counting
from dcformat_cli.terminal import note, say

if TYPE_CHECKING:
    from dcformat.codecs import Mode, RelativeIndex
    from dcformat.modes import AnyMode, ModeTrial, SmallestFile
    from dcformat.writer import Encode


def packed_in(
    mode: AnyMode, make: Callable[[Mode], bytes], elements: int, seconds: float | None = None
) -> SmallestFile:
    """Pack with `make` in a mode; for ``auto``, try several and keep the smallest file that decodes in time.

    Parameters
    ----------
    mode : {'auto', 'fast', 'small', 'tiny'}
    make : callable
        Returns the bytes of the file in a mode.
    elements : int
        Number of elements of all tensors, which decides on the modes that are tried.
    seconds : float or None
        The longest time to decode; None for `modes.DECODE_SECONDS`.
    """
    from dcformat.modes import DECODE_SECONDS, modes_to_try, smallest_file

    limit = DECODE_SECONDS if seconds is None else seconds
    return smallest_file(make, modes_to_try(mode, elements, limit), limit)


def choice_line(trials: Sequence[ModeTrial], mode: Mode) -> str:
    """Return the sizes in all modes that were tried, the one that was kept, and the time that it takes to decode."""
    sizes = ", ".join(f"{trial.mode} {trial.bytes:,}" for trial in trials)
    seconds = next(trial.seconds for trial in trials if trial.mode == mode)
    kept = f": kept {mode}" if len(trials) > 1 else " bytes"
    return f"{sizes}{kept}; decodes in about {1e3 * seconds:.2g} ms"


def say_choice(asked: AnyMode, trials: Sequence[ModeTrial], mode: Mode, *, err: bool = False) -> None:
    """Print why a mode was kept, if the user left the choice to the command; `err` sends it to stderr."""
    if len(trials) > 1:
        say(choice_line(trials, mode), err=err)
    elif asked == "auto":
        note("mode fast: the others are not tried for a network of this size (--mode small, --mode tiny)")


def trials_as_json(trials: Sequence[ModeTrial]) -> dict[str, Any]:
    """Return the sizes and times by mode."""
    return {trial.mode: {"bytes": trial.bytes, "seconds": trial.seconds} for trial in trials}


def packed_model(model: Model, label: str, mode: Mode, relative_index: RelativeIndex = "escape") -> bytes:
    """Pack `model`, read the bytes back, compare the two, and return the bytes; errors call them `label`.

    Raises
    ------
    ReadBackError
        The packed bytes do not decode to the model.
    FormatError
        The model breaks a limit of the format.
    """
    from dcformat.read_back import require_read_back
    from dcformat.writer import write

    out = BytesIO()
    if relative_index == "filler":
        write(model, out, mode=mode, relative_index=relative_index)
    else:
        with counting(f"packing ({mode})") as progress:
            write(model, out, mode=mode, encode=_counted(len(model.tensors), mode, progress))
    packed = out.getvalue()
    require_read_back(model, packed, label)
    return packed


def _counted(total: int, mode: Mode, progress: Count) -> Encode:
    """Return the writer's encoder, which reports each tensor before it is coded."""
    from dcformat.forms import smallest

    done = iter(range(total))

    def encode(tensor: Tensor) -> tuple[Tensor, bytes]:
        progress(next(done), total, tensor.name)
        return smallest(tensor, mode)

    return encode


def checked_encoder(total: int, mode: Mode, progress: Count) -> Encode:
    """Return the writer's encoder for `total` tensors, which reads each payload back and reports its progress.

    The encoder raises `ReadBackError` if a payload does not decode to its tensor.
    """
    from dcformat.codecs.payload_layout import parse_payload
    from dcformat.codecs.payload_reader import read_payload
    from dcformat.contents import parse_entry
    from dcformat.contents_writer import EntryHead
    from dcformat.digest import tensor_digest

    code = _counted(total, mode, progress)

    def encode(tensor: Tensor) -> tuple[Tensor, bytes]:
        stored, payload = code(tensor)
        info = parse_entry(bytes(EntryHead.of(stored)), len(payload))
        found = read_payload(parse_payload(info, np.frombuffer(payload, np.uint8)))
        if tensor_digest(found) != tensor_digest(tensor):
            raise ReadBackError(f"{tensor.name}: expected the tensor's values when read back, found others")
        return stored, payload

    return encode
