"""A hook of MkDocs: brings pages from outside of docs/ into the site, and fixes links between the repository's files.

Documents link to each other by their places in the repository, so that the links work there too. A link to a file that
is a page or an asset of the site becomes a link within the site. Any other file of the repository has no address on
the site, so a link to it becomes its text.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]

#: Pages from outside of docs/; on the site they have the same path.
OUTSIDE = ("CHANGELOG.md", "models/README.md", "spec/coders.md", "spec/dcformat.md", "spec/errata.md")

_CODE_OR_LINK = re.compile(r"```.*?```|`[^`\n]*`|(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)", re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the text with links that are right on the site."""
    here = page.file.src_uri

    def mend(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        if target is None or re.match(r"[a-z]+:|#", target):
            return match.group()
        name, _, anchor = target.partition("#")
        found = _on_the_site(Path(page.file.abs_src_path or here).parent / name, files)
        if found is None:
            return text
        relative = os.path.relpath(found, Path(here).parent)
        return f"{image}[{text}]({relative}{'#' * bool(anchor)}{anchor})"

    return _CODE_OR_LINK.sub(mend, markdown)


def _on_the_site(path: Path, files: Files) -> str | None:
    """Return the place of a file of the repository on the site; None if it has none."""
    name = os.path.relpath(os.path.normpath(path), ROOT)
    for candidate in (name.removeprefix("docs/"), f"{name}/README.md"):
        if (candidate in OUTSIDE or name.startswith("docs/")) and files.get_file_from_path(candidate):
            return candidate
    return None
