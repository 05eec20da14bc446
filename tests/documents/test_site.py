"""The site builds without warnings, is complete, and requests nothing from other hosts."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dcformat_cli.main import VERBS

ROOT = Path(__file__).resolve().parents[2]
APIS = {
    "dcformat": "dcformat", "runtime": "dcformat_runtime", "interop": "dcformat_interop", "pruning": "dcformat_pruning",
}  # fmt: skip

pytestmark = pytest.mark.slow  # building the site takes seconds


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NO_MKDOCS_2_WARNING": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(directory)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return directory


def test_every_document_is_a_page_in_the_menu(site: Path) -> None:
    menu = (site / "index.html").read_text("utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        page = path.relative_to(ROOT / "docs").with_suffix(".html").as_posix().replace("README.html", "index.html")
        assert (site / page).is_file()
        assert f'href="{page}"' in menu, f"{path}: name it in the menu of mkdocs.yml"


def test_the_reference_has_every_verb_and_every_public_name(site: Path) -> None:
    text = (site / "cli.html").read_text("utf-8")
    for verb in VERBS:
        assert f'id="dcformat-{verb}"' in text, verb
    for page, name in APIS.items():
        text = (site / "api" / f"{page}.html").read_text("utf-8")
        for public in importlib.import_module(name).__all__:
            assert re.search(rf'id="{name}\.{public}"', text), f"{name}.{public}"


def test_the_site_loads_nothing_from_elsewhere_and_every_link_leads_somewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", path.read_text("utf-8"), flags=re.DOTALL)
        for tag, target in re.findall(r'<(\w+)[^>]*?\s(?:src|href)="([^"]+)"', text):
            if tag == "a" and re.match(r"https?:", target):
                continue
            assert not re.match(r"(?:\w+:)?//", target), f"{path}: {target}"
            name = target.partition("#")[0].partition("?")[0]
            if path.name != "404.html" and name and not name.startswith(("javascript:", "mailto:")):
                assert (path.parent / name).exists(), f"{path}: {target}"
