"""Progress of a run with several stages: the current stage, and the share of all work that is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StageProgress:
    """The progress of a run.

    Attributes
    ----------
    stage : str
        The name of the stage.
    number, stages : int
        The position of the stage, from 1, and the number of stages.
    unit : str
        The unit of counting within the stage, such as epochs or augmented images; empty if nothing is counted.
    done : float
        Number of units done, including a fraction of the current one.
    total : int
        Number of units of the stage; 0 if nothing is counted.
    share : float
        Share of the run's estimated work that is done, 0 to 1.
    figures : mapping of str to float
        Figures to show, such as the loss of the last whole epoch.
    """

    stage: str
    number: int
    stages: int
    unit: str
    done: float
    total: int
    share: float
    figures: Mapping[str, float] = field(default_factory=dict)


#: Called with each step.
Report = Callable[[StageProgress], None]


class Meter:
    """Adds up the work of a run's stages, and reports each step with the share of the work that is done.

    Parameters
    ----------
    report : callable
        Called with a `StageProgress`.
    stages : sequence of (str, float)
        The names of the stages and their estimated work, in any unit.
    """

    def __init__(self, report: Report, stages: Sequence[tuple[str, float]]) -> None:
        self._report = report
        self._names = [name for name, _ in stages]
        self._work = {(number, ""): work for number, (_, work) in enumerate(stages)}
        self._done: dict[tuple[int, str], float] = {}
        self._begun: set[int] = set()
        self._number, self._saved = 0, 0.0
        self._known: Mapping[str, float] = {}

    def show(self, figures: Mapping[str, float]) -> None:
        """Add figures to all further reports, such as the last metric."""
        self._known = figures

    def begin(self, number: int, *, saved: float = 0.0) -> None:
        """Enter a stage; the stages before it are done.

        What an earlier run did takes no time now: stages that were never entered, and the share `saved` of this one, 0
        to 1. If it counted as work, a resumed run would seem fast, and its remaining time would be too small.
        """
        for key, work in self._work.items():
            if key[0] < number:
                self._work[key] = self._done[key] = work if key[0] in self._begun else 0.0
        self._begun.add(number)
        self._number, self._saved = number, saved
        self._work[number, ""] *= 1 - saved
        self._step("", "", 0, 0, {})

    def prepare(self, work: float, unit: str, done: int, total: int) -> None:
        """Report preparation before the stage's own work; the first report of a `unit` adds `work` to the total."""
        self._work.setdefault((self._number, unit), work)
        self._step(unit, unit, done, total, {})

    def count(self, unit: str, done: float, total: int, figures: Mapping[str, float]) -> None:
        """Report the progress of the stage's own work."""
        self._step("", unit, done, total, figures)

    def __call__(self, stage: str, done: float, total: int, figures: Mapping[str, float]) -> None:
        """Report the epochs of a stage; a `Progress` for `training.fit`."""
        self.count("epochs", done, total, figures)

    def _step(self, part: str, unit: str, done: float, total: int, figures: Mapping[str, float]) -> None:
        if total:
            saved = 0.0 if part else self._saved
            self._done[self._number, part] = self._work[self._number, part] * (done / total - saved) / (1 - saved)
        share = sum(self._done.values()) / (sum(self._work.values()) or 1.0)
        name = self._names[self._number]
        figures = {**figures, **self._known}
        self._report(StageProgress(name, self._number + 1, len(self._names), unit, done, total, share, figures))
