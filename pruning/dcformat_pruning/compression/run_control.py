"""Options for saving and following a compression, which do not change its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dcformat_pruning.compression.goals import Trial
from dcformat_pruning.meter import Report


@dataclass(frozen=True, slots=True)
class RunControl:
    """The directory in which a compression saves its stages, and the functions that it calls as it proceeds.

    Attributes
    ----------
    resume_dir : path, optional
        The directory in which stages are saved. Stages that it already holds are not run again.
    progress : callable, optional
        Called with a `StageProgress` after each batch.
    watch : callable, optional
        Called with each `Trial` when it is done.
    before : int
        Number of stages that the caller saved in `resume_dir` before, after which the others are numbered.
    """

    resume_dir: Path | str | None = None
    progress: Report | None = None
    watch: Callable[[Trial], None] | None = None
    before: int = 0
