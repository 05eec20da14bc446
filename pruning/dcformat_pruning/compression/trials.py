"""Tries one number of weights: prune, share, settle and pack, each as a stage of the run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_stage

from torch import Tensor, nn

from dcformat.model import Model
from dcformat.records import replace
from dcformat.writer import written_bytes
from dcformat_pruning.compression.compression_settings import Settings
from dcformat_pruning.compression.goals import Trial
from dcformat_pruning.compression.hidden_units import UnitGroup, zero_unread
from dcformat_pruning.compression.packed_module import ExampleCall, Packed, export, pack, packed_metric
from dcformat_pruning.compression.snapshots import Snapshot
from dcformat_pruning.masks import PrunedAwayWarning
from dcformat_pruning.training_stages.running import Run
from dcformat_pruning.training_stages.stage import Stage, StageContext
from dcformat_pruning.training_stages.stage_library import (
    folded,
    prune_gradually,
    quantise_and_finetune,
    share_while_training,
)

#: Estimated work of making and measuring a file, in epochs.
PACKING = 0.3

#: The stages of a trial.
STAGES = ("prune", "share", "settle", "pack")


def stage_names(number: int | None) -> list[str]:
    """Return the names of a trial's stages, with its number unless the run has only this trial."""
    return [name if number is None else f"{name}-{number}" for name in STAGES]


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A trial, and the states of its network.

    Attributes
    ----------
    trial : Trial
    packed : Packed or None
        None if the trial's stages were saved by an earlier run.
    pruned, finished : Snapshot
        The network after pruning, from which a later trial may continue, and at the end.
    """

    trial: Trial
    packed: Packed | None
    pruned: Snapshot
    finished: Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """The parts that the trials of a run have in common.

    Attributes
    ----------
    module : nn.Module
        Changed in place.
    run : Run
    call : ExampleCall
    settings : Settings
    groups : sequence of UnitGroup
        The hidden units of the module.
    alive : mapping of str to Tensor
        Masks of the weights that may be kept.
    numbered : bool
        Whether the run may have several trials.
    """

    module: nn.Module
    run: Run
    call: ExampleCall
    settings: Settings
    groups: Sequence[UnitGroup]
    alive: Mapping[str, Tensor]
    numbered: bool

    def attempt(self, number: int, keep: int, begin: Snapshot) -> Tried:
        """Compress the network that `begin` holds to `keep` weights."""
        begin.restore()
        settings, run = self.settings, self.run
        pruning, sharing, settling = settings.plans()
        names = stage_names(number if self.numbered else None)
        power, cost_power, floor = settings.power, settings.cost_power, settings.floor
        prune = prune_gradually(
            pruning, keep, alive=self.alive, power=power, cost_power=cost_power, floor=floor, name=names[0]
        )
        with warnings.catch_warnings():  # The result names the layers that lost all of their weights.
            warnings.simplefilter("ignore", PrunedAwayWarning)
            run.stage(prune)
        pruned = Snapshot(self.module)
        values, method, rate = settings.clusters, settings.sharing, settings.rate
        share = share_while_training(sharing, values, method=method, rate=rate, name=names[1])
        run.stage(self._trimmed(share))
        run.stage(quantise_and_finetune(settling, settings.bits, settings.levels, name=names[2]))
        made: list[Packed] = []

        def measure(module: nn.Module, context: StageContext) -> tuple[float, int]:
            model = export(module, self.call)
            metric = packed_metric(written_bytes(model, "fast"), module, self.call, context.validate)
            made.append(self.packed(model, number, metric))
            return metric, len(made[0].data)

        report = run.stage(Stage(names[3], lambda module, context: None, measure=measure))
        assert report.size is not None
        trial = Trial(number, keep, report.size, report.metric)
        return Tried(trial, made[0] if made else None, pruned, Snapshot(self.module))

    def _trimmed(self, stage: Stage) -> Stage:
        """Return a stage that first folds batch norms, and zeroes the biases of units that nothing reads."""

        def run(module: nn.Module, context: StageContext) -> None:
            zero_unread(module, self.groups)
            stage.run(module, context)

        return folded(replace_stage(stage, run=run))

    def packed(self, model: Model, number: int, metric: float) -> Packed:
        """Return the file of a trial's model, with the metrics of its stages and of the file as metadata."""
        found = {report.stage: report.metric for report in self.run.reports}
        own = zip(STAGES[:-1], stage_names(number if self.numbered else None), strict=False)
        figures = [f"dense {found['dense']:.4f}", *(f"{short} {found[name]:.4f}" for short, name in own)]
        metrics = ", ".join([*figures, f"file {metric:.4f}"])
        return pack(replace(model, metadata={**self.settings.metadata, "metrics": metrics}), self.settings.mode)
