"""The documents are right: the README's commands parse, its Python runs, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dcformat_cli.main import VERBS

import dcformat
from tests.documents.blocks import check_arguments, run_page
from tests.documents.pages import readme

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "spec/*.md", "data/*.md", "models/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)
COMMANDS = re.findall(r"^ {4}(dcformat .+?)(?: +#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_parses(line: str) -> None:
    check_arguments(line)


def test_the_readme_shows_every_verb() -> None:
    for verb in VERBS:
        assert f"dcformat {verb}" in README


@pytest.mark.needs_compiler
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope = readme()
    run_page(README, scope, "README.md")
    assert scope["logits"].shape == (3, 10)
    assert dcformat.load("bag.dcf").tensors.keys() == scope["checkpoint"].tensors.keys()
    for name in ("model", "tagger"):
        assert dcformat.load(f"{name}.dcf").graph is not None


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
        check_arguments(line)
