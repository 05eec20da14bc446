"""Makes the description on a package index of the README.

Links and pictures of the README are files of the repository, which an index page does not have, and the project states
no address to which they could lead. So pictures and their captions are left out, and such links become their text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def description(readme: str) -> str:
    """Return the README without pictures, and without links to files."""
    without = re.sub(r"!\[[^\]]*\]\([^)]*\)\n+(\*[^*]+\*\n+)?", "", readme)
    return re.sub(r"\[([^\[\]]*)\]\((?!https?:)[^)]*\)", r"\1", without)


class ReadmeHook(MetadataHookInterface):
    """Sets the field `readme`."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description to the project's metadata."""
        readme = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": description(readme)}
