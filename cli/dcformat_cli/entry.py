"""The entry point. It imports the rest under a guard, so that Ctrl-C prints one line from the first moment on."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; never returns."""
    try:
        from dcformat_cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("dcformat: interrupted\n")
        sys.exit(130)
