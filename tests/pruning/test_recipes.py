"""Recipes from start to end on a small data set: results repeat, runs resume, and errors name the cause."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dcformat_pruning.data import training_data
from dcformat_pruning.lenets import CheckpointError, build
from dcformat_pruning.masks import PruningError
from dcformat_pruning.recipes import (
    RECIPES,
    Recipe,
    Result,
    Stage,
    StageContext,
    StageProgress,
    compress_architecture,
    nonzero_weights,
)
from safetensors.torch import save_file
from torch import nn

import dcformat

pytestmark = pytest.mark.filterwarnings("ignore::dcformat_pruning.masks.PrunedAwayWarning")


def bits(result: Result) -> dict[str, bytes]:
    return {name: tensor.to_dense().tobytes() for name, tensor in result.model.tensors.items()}


def check_steps(seen: list[StageProgress], recipe: Recipe) -> None:
    """Check that every stage, every whole epoch and the preparation of images are reported.

    The share of the work falls only when a teacher's targets, which the plan does not know of, are added to it.
    """
    names = [stage.name for stage in recipe.stages]
    trained = {stage.name for stage in recipe.stages if stage.epochs}
    if recipe.goal is not None:
        names += ["dense", "prune", "share", "settle", "pack", "order units"]
        trained |= {"prune", "share", "settle"}
    assert list(dict.fromkeys((step.stage, step.number, step.stages) for step in seen)) == [
        (name, number, len(names)) for number, name in enumerate(names, start=1)
    ]
    whole = [step for step in seen if step.unit == "epochs" and step.done == int(step.done)]
    assert {step.stage for step in whole} == trained
    assert all(np.isfinite(step.figures["loss"]) for step in whole)
    for name in trained:
        done = [step.done for step in whole if step.stage == name]
        total = {step.total for step in whole if step.stage == name}
        assert done == list(range(1, max(total, default=0) + 1))
    assert any(step.unit == "augmented images" and step.number == 1 for step in seen)
    shares = [step.share for step in seen if step.unit]
    falls = sum(after < before for before, after in itertools.pairwise(shares))
    assert falls <= any(step.unit == "taught images" for step in seen)
    assert 0 < shares[0] < 0.5
    assert 0.5 < shares[-1] <= 1.0


#: Networks and recipes that train for seconds even on a few small images.
LONG = {("default", "lenet-5"), ("default", "lenet-300-100"), ("record", "lenet-5"), ("record", "lenet-300-100")}
SHORT_AND_LONG = ["classic", pytest.param("record", marks=pytest.mark.slow)]


@pytest.mark.parametrize(
    ("recipe", "architecture"),
    [pytest.param(r, a, marks=[pytest.mark.slow] * ((r, a) in LONG)) for r in RECIPES for a in RECIPES[r]],
)
def test_a_recipe_makes_a_sparse_model_with_shared_values(recipe: str, architecture: str, digits: Path) -> None:
    seen: list[StageProgress] = []
    result = compress_architecture(architecture, recipe, epochs=5, device="cpu", data=digits, progress=seen.append)
    compressing = [] if RECIPES[recipe][architecture].goal is None else ["prune", "share", "settle"]
    assert [s.stage for s in result.stages] == [s.name for s in RECIPES[recipe][architecture].stages] + compressing
    check_steps(seen, RECIPES[recipe][architecture])
    assert result.stages[-1].weights == nonzero_weights(result.module)
    assert result.stages[-1].weights < 0.15 * sum(p.numel() for p in result.module.parameters())
    for name, tensor in result.model.tensors.items():
        if name.endswith("weight"):
            assert tensor.is_sparse
            assert len(np.unique(tensor.values())) <= 255
    assert result.model.metadata["recipe"] == recipe
    packed = dcformat.load(dcformat.dumps(result.model, mode=result.mode))
    module = build(architecture)
    state = {name: torch.from_numpy(tensor.to_dense()) for name, tensor in packed.tensors.items()}
    module.load_state_dict(state)
    images = training_data(digits).validation.floats(slice(0, 50))
    assert torch.equal(module(images), result.module(images))


@pytest.mark.parametrize("recipe", SHORT_AND_LONG)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(recipe: str, digits: Path) -> None:
    runs = [
        compress_architecture("lenet-300-100", recipe, seed=s, epochs=4, device="cpu", data=digits) for s in (3, 3, 4)
    ]
    assert bits(runs[0]) == bits(runs[1])
    assert bits(runs[0]) != bits(runs[2])


@pytest.mark.parametrize("recipe", SHORT_AND_LONG)
def test_an_interrupted_run_ends_as_it_would_have(recipe: str, digits: Path, tmp_path: Path) -> None:
    whole = compress_architecture(
        "lenet-300-100", recipe, epochs=4, device="cpu", data=digits, resume_dir=tmp_path / "whole"
    )
    saved = len(list((tmp_path / "whole").iterdir()))
    for left in (1, saved - 2):
        folder = tmp_path / f"after {left}"
        folder.mkdir()
        for number, path in enumerate(sorted((tmp_path / "whole").iterdir())):
            if number < left:
                (folder / path.name).write_bytes(path.read_bytes())
        done = {path.stem.partition("-")[2] for path in folder.iterdir()}
        again = compress_architecture("lenet-300-100", recipe, epochs=4, device="cpu", data=digits, resume_dir=folder)
        assert bits(again) == bits(whole)
        assert [s.metric for s in again.stages] == [s.metric for s in whole.stages]
        kept = [[stage for stage in made.stages if stage.stage in done] for made in (again, whole)]
        assert kept[0] == kept[1] != []


def test_stages_of_another_run_are_refused(digits: Path, tmp_path: Path) -> None:
    compress_architecture("lenet-300-100", "classic", epochs=1, device="cpu", data=digits, resume_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"expected a stage of 'lenet-300-100 classic seed=1 .*, found one of"):
        compress_architecture(
            "lenet-300-100", "classic", epochs=1, seed=1, device="cpu", data=digits, resume_dir=tmp_path
        )


def test_a_checkpoint_takes_the_place_of_dense_training(digits: Path, tmp_path: Path) -> None:
    dense = build("lenet-300-100", 9)
    path = tmp_path / "mine.safetensors"
    save_file({f"{n}": v.contiguous() for n, v in dense.state_dict().items()}, path)
    result = compress_architecture("lenet-300-100", "classic", epochs=1, device="cpu", data=digits, checkpoint=path)
    assert result.stages[0].stage == "train"
    assert result.stages[0].weights == nonzero_weights(dense)
    largest = dense.get_parameter("fc1.weight").detach().abs() >= dense.get_parameter(
        "fc1.weight"
    ).detach().abs().quantile(0.94)
    pruned = result.module.get_parameter("fc1.weight") != 0
    assert pruned[largest].float().mean() > 0.99


def test_unknown_names_and_counts_are_refused(digits: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe: expected one of classic, .*, found 'best'"):
        compress_architecture("lenet-300-100", "best", data=digits)
    with pytest.raises(ValueError, match="architecture: expected one of lenet-300-100, lenet-5, found 'vgg'"):
        compress_architecture("vgg", data=digits)
    with pytest.raises(ValueError, match="architecture: expected one of lenet-300-100, found 'lenet-5'"):
        compress_architecture("lenet-5", "extreme", data=digits)
    with pytest.raises(ValueError, match="epochs: expected at least 1, found 0"):
        compress_architecture("lenet-300-100", "classic", epochs=0, data=digits)


def test_a_layer_without_weights_is_named(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(module: nn.Module, context: StageContext) -> None:
        module.get_parameter("fc2.weight").data.zero_()

    recipe = RECIPES["default"]["lenet-300-100"]
    stages = (*recipe.stages, Stage("kill", kill))
    monkeypatch.setitem(RECIPES["default"], "lenet-300-100", replace(recipe, stages=stages))
    with pytest.raises(PruningError, match=r"fc2\.weight: expected nonzero weights before pruning, found none"):
        compress_architecture("lenet-300-100", "default", epochs=2, device="cpu", data=digits)
