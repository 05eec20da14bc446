"""Every code block of the pages in docs/ runs and prints what the page shows, or the page says why it does not run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nbformat
import numpy as np
import pytest
from dcformat_runtime import Session

import dcformat
from dcformat.graph import GRU, Graph, Linear
from tests.documents.blocks import RUN, blocks, check_arguments, indented_code, run_page, steps
from tests.documents.pages import ROOT, SETUPS, Scope, recurrent_tensors
from tests.pruning.support import alive

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
TEXTS = {page: (ROOT / page).read_text("utf-8") for page in PAGES}
RUNNING = [p for p in PAGES if any(b.reason is None and b.language in RUN for b in blocks(TEXTS[p]))]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("DCFORMAT_DATA", raising=False)
    return tmp_path


def run(page: str) -> Scope:
    scope = SETUPS[page]()
    run_page(TEXTS[page], scope, page)
    return scope


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    assert not indented_code(TEXTS[page]), "code belongs in a fenced block (see tests/documents/blocks.py)"
    for block in blocks(TEXTS[page]):
        assert block.language in (*RUN, "text") or block.reason, f"{page}:{block.line} does not run, and has no reason"


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_have_the_right_options(page: str) -> None:
    for block in blocks(TEXTS[page]):
        for step in steps(block) if block.language in ("sh", "console") else ():
            if step.command.startswith("dcformat "):
                check_arguments(step.command)


CHECKED = {"docs/pruning.md", "docs/pytorch.md", "docs/runtime.md"}
#: Pages that train networks, which takes seconds.
TRAINING = {"docs/faq.md", "docs/own-model.md"}


@pytest.mark.needs_compiler
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[pytest.mark.slow] * (p in TRAINING)) for p in sorted(set(RUNNING) - CHECKED)],
)
def test_a_page_runs(page: str, directory: Path) -> None:
    run(page)


@pytest.mark.needs_compiler
def test_the_page_on_pruning_does_what_it_says(directory: Path) -> None:
    scope = run("docs/pruning.md")
    assert sum(scope["ticket"].alive.values()) == alive(scope["fresh"]) == 12_000
    assert sum(scope["units"].values()) >= 60 + 30 - 5
    assert 0 < alive(scope["network"]) <= 5_000
    model = dcformat.load("pruned.dcf")
    weights = [tensor.to_dense() for name, tensor in model.tensors.items() if name.endswith("weight")]
    assert sum(int((w != 0).sum()) for w in weights) == alive(scope["network"])
    assert all(len(set(w[w != 0].tolist())) <= 16 for w in weights)


def test_the_page_on_pruning_names_everything_that_the_package_offers() -> None:
    import dcformat_pruning
    from dcformat_pruning import schedules

    text = TEXTS["docs/pruning.md"]
    for name in set(dcformat_pruning.__all__) - {"Result", "StageReport"}:
        assert f"`{name}`" in text, name
    for name in set(schedules.__all__) - {"Rewind", "Retraining", "one_shot"}:
        assert name in text, name


@pytest.mark.slow
def test_the_page_on_pytorch_does_what_it_says(directory: Path) -> None:
    run("docs/pytorch.md")
    assert len(dcformat.load("model.dcf").labels) == 10


@pytest.mark.needs_compiler
def test_the_page_on_the_runtime_does_what_it_says(directory: Path) -> None:
    scope = run("docs/runtime.md")
    assert scope["logits"].shape == (2, 10)
    # The same weights over the whole sequence in one call.
    nodes = GRU((0,), "weight", "recurrent"), Linear((1,), "tags")
    model = dcformat.Model(recurrent_tensors(), Graph.sequential((5, 8), nodes))
    whole = Session.from_model(model)(scope["frames"].swapaxes(0, 1))
    np.testing.assert_allclose(np.stack(scope["tags"], axis=1), whole, rtol=1e-5, atol=1e-5)


def test_the_notebook_is_that_of_its_page() -> None:
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "docs" / "tools" / "notebook.py")
    assert spec is not None and spec.loader is not None
    notebook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebook)
    text = (ROOT / "docs" / "own-model.ipynb").read_text("utf-8")
    nbformat.validate(nbformat.reads(text, as_version=4))
    assert text == notebook.make_notebook(TEXTS["docs/own-model.md"]), "run docs/tools/notebook.py docs/own-model.md"
