"""A packed language model generates the text that PyTorch generates."""

from __future__ import annotations

import importlib.util
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType

import dcformat_runtime
import pytest
import torch

#: Exporting a module with PyTorch takes about a second.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FOLDER = ROOT.parent / "shared" / "data" / "stories260k"


@pytest.fixture(scope="module")
def stories() -> ModuleType:
    """Return benchmarks/interop/stories.py."""
    spec = importlib.util.spec_from_file_location("stories", ROOT / "benchmarks/interop/stories.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["stories"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_step_with_a_state_computes_what_the_whole_text_does(stories: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = stories.Sizes(dim=16, hidden=24, layers=2, heads=4, kv_heads=2, vocabulary=31, positions=stories.ROOM)
    llama = stories.Llama(sizes, torch.randn(stories.ROOM, 2, 2)).eval()
    stories.packed(llama, tmp_path / "a.dcf")
    session = dcformat_runtime.load(tmp_path / "a.dcf", backend="numpy")
    assert [info.shape for info in session.outputs] == [(None, 31), *[(None, 2, 2, stories.ROOM, 4)] * 2]
    assert list(islice(stories.packed_tokens(session), 12)) == list(islice(stories.plain_tokens(llama), 12))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="stories260K is not beside the repository")
@pytest.mark.needs_compiler
def test_stories(stories: ModuleType, tmp_path: Path) -> None:
    llama = stories.load_llama(FOLDER / "stories260K.bin")
    stories.packed(llama, tmp_path / "a.dcf")
    session = dcformat_runtime.load(tmp_path / "a.dcf", threads=1)
    found = list(islice(stories.packed_tokens(session), 200))
    assert found == list(islice(stories.plain_tokens(llama), 200))
    begin = " Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    assert stories.text(FOLDER / "tok512.bin", found).startswith(begin)
