"""Runs stages one after another: each is saved when it is done, and not run again."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

import dcformat
from dcformat_pruning.masks import nonzero_weights
from dcformat_pruning.objectives import memory_errors
from dcformat_pruning.training_stages.saved_stages import SavedStage, load_stage, save_stage
from dcformat_pruning.training_stages.stage import Stage, StageContext, StageReport


class Run:
    """A module on its way through stages.

    Parameters
    ----------
    module : nn.Module
        Changed in place.
    context : StageContext
    folder : path or None
        Where stages are saved; None saves nothing.
    settings : str
        Identifies the run, so that it does not continue from another run's stage.
    first : int
        Number of the first stage in the names of files.

    Attributes
    ----------
    reports : list of StageReport
        The stages so far.
    """

    def __init__(
        self, module: nn.Module, context: StageContext, folder: Path | str | None, settings: str, first: int = 0
    ) -> None:
        self._module, self._context, self._first = module, context, first
        self._folder = None if folder is None else Path(folder)
        self._key = f"{settings} torch={torch.__version__} dcformat={dcformat.__version__}"
        self.reports: list[StageReport] = []

    def stage(self, stage: Stage) -> StageReport:
        """Run a stage and save it, or load it if it was saved.

        Raises
        ------
        CheckpointError
            The file of the stage is damaged, or belongs to a run with other settings.
        MemoryError
            PyTorch could not get the memory that the stage needs.
        """
        number, module, context = len(self.reports), self._module, self._context
        place = self._first + number
        saved = None if self._folder is None else load_stage(self._folder, place, stage.name, self._key)
        if saved is not None:
            if stage.rebuild is not None:
                stage.rebuild(module)
            module.load_state_dict(saved.state)
            context.carried = dict(saved.carried)
            report = StageReport(**json.loads(saved.report))
        else:
            context.stage = stage.name
            if context.meter is not None:
                context.meter.begin(number)
            with memory_errors(f"stage {stage.name}"):
                report = self._fresh(stage)
            if self._folder is not None:
                content = SavedStage(module.state_dict(), context.carried, json.dumps(asdict(report)))
                save_stage(self._folder, place, stage.name, self._key, content)
        if context.meter is not None:
            context.meter.show({"validation metric": report.metric})
        self.reports.append(report)
        return report

    def _fresh(self, stage: Stage) -> StageReport:
        module, context = self._module, self._context
        started = time.perf_counter()
        # A user's loader and a dropout layer draw from the global generator.
        with torch.random.fork_rng([context.device] if context.device.type == "cuda" else []):
            torch.manual_seed(context.stage_seed)
            stage.run(module, context)
        module.eval()
        if stage.measure is None:
            metric, size = context.validate(module), None
        else:
            metric, size = stage.measure(module, context)
        return StageReport(stage.name, metric, nonzero_weights(module), time.perf_counter() - started, size)
