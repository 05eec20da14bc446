"""The documents are right: the README's commands parse, its Python runs, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from dcformat_cli.main import VERBS, cli
from safetensors.numpy import save_file

import dcformat

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "spec/*.md", "data/*.md", "models/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)
COMMANDS = re.findall(r"^ {4}(dcformat .+?)(?: +#.*)?$", README, re.MULTILINE)


class Tagger(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Embedding(9, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.scores(tokens)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_parses(line: str) -> None:
    _, verb, *arguments = shlex.split(line)
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    command.make_context(verb, arguments)


def test_the_readme_shows_every_verb() -> None:
    for verb in VERBS:
        assert f"dcformat {verb}" in README


@pytest.mark.needs_compiler
def test_the_python_of_the_readme_runs(dcf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, with_torch = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shutil.copy(dcf, tmp_path / "model.dcf")
    save_file({"w": np.ones((2, 3), np.float32)}, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    scope = {"x": np.zeros((3, 784), np.float32)}
    exec(compile(program, "README.md", "exec"), scope)
    assert scope["logits"].shape == (3, 10)
    assert (tmp_path / "smaller.dcf").stat().st_size < dcf.stat().st_size
    assert dcformat.load(tmp_path / "bag.dcf").tensors.keys() == {"w"}
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    exec(compile(with_torch, "README.md", "exec"), {"dcformat": dcformat, "module": module, "tagger": Tagger()})
    for name in ("model", "tagger"):
        assert dcformat.load(tmp_path / f"{name}.dcf").graph is not None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_make_runs_what_the_readme_says() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^ {4}make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for line in re.findall(r"^\t\$\(BIN\)/(dcformat .+)$", makefile, re.MULTILINE):
        test_a_command_of_the_readme_parses(line)
