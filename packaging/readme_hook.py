"""Makes the description on a package index from the README, and the project's addresses.

Links and pictures of the README are files of the repository, which an index page does not have. If `repository` in
pyproject.toml names the address of the repository, such links and pictures lead there, and the metadata state it.
Otherwise, pictures and their captions are left out, and only the text of such links remains.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: The branch or tag that links to the repository name.
_BRANCH = "HEAD"


def urls(repository: str) -> dict[str, str]:
    """Return the project's addresses by their labels on an index page; none if the repository has no address."""
    if not repository:
        return {}
    files = f"{repository}/blob/{_BRANCH}"
    return {
        "Source": repository, "Documentation": f"{files}/docs/README.md", "Changelog": f"{files}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }  # fmt: skip


def description(readme: str, repository: str) -> str:
    """Return the README with absolute links and pictures, or without them if the repository has no address."""
    if repository:
        pictures = re.sub(r"(!\[[^\]]*\])\((?!https?:)([^)]*)\)", rf"\1({repository}/raw/{_BRANCH}/\2)", readme)
        return re.sub(r"(\[[^\[\]]*\])\((?!https?:|#)([^)]*)\)", rf"\1({repository}/blob/{_BRANCH}/\2)", pictures)
    without = re.sub(r"!\[[^\]]*\]\([^)]*\)\n+(\*[^*]+\*\n+)?", "", readme)
    return re.sub(r"\[([^\[\]]*)\]\((?!https?:)[^)]*\)", r"\1", without)


class ReadmeHook(MetadataHookInterface):
    """Sets the fields `readme` and `urls`."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description and the addresses to the project's metadata."""
        repository = str(self.config.get("repository", "")).rstrip("/")
        readme = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": description(readme, repository)}
        metadata["urls"] = urls(repository)
