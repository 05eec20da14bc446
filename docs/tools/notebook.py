"""Makes the notebook of a page: its prose as text, its blocks as cells, and the output that it shows as their output.

    python docs/tools/notebook.py docs/own-model.md

A test runs the page and another one the cells, and the notebook must be the one that this program makes from the page.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

_PART = re.compile(r"^```(?P<language>python|console|text)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def make_notebook(page: str) -> str:
    """Return the notebook's JSON."""
    cells: list[dict[str, Any]] = []
    end = 0
    for match in _PART.finditer(page):
        _add_text(cells, page[end : match.start()])
        end = match.end()
        if match["language"] == "python":
            cells.append(_code(match["code"]))
        elif match["language"] == "console":
            for part in re.split(r"^\$ ", match["code"], flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                cells.append(_code(f"!{command}\n", output))
        else:
            cells[-1]["outputs"] = _outputs(match["code"])
    _add_text(cells, page[end:])
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _add_text(cells: list[dict[str, Any]], text: str) -> None:
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).strip()
    if text:
        cells.append({"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)})


def _code(source: str, output: str = "") -> dict[str, Any]:
    lines = source.rstrip().splitlines(keepends=True)
    return {
        "cell_type": "code", "execution_count": None, "metadata": {}, "outputs": _outputs(output), "source": lines,
    }  # fmt: skip


def _outputs(text: str) -> list[dict[str, Any]]:
    return [{"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}] if text else []


def main() -> None:
    """Write the notebook beside its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    page: Path = parser.parse_args().page
    page.with_suffix(".ipynb").write_text(make_notebook(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
