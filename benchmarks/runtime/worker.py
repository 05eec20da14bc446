"""Runs one runtime in its own process, which `speed.py` starts, stops while it is not timed, and asks for slices.

    python worker.py RUNTIME NETWORK THREADS

It reads lines of JSON, ``{"batch": n}``, and answers each with ``{"calls": [nanoseconds], "error": ...}``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in ("cli", "runtime", "")]


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, network, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        import networks
        import numpy as np
        from dcformat_cli.bench import timing
        from dcformat_cli.bench.other_runtimes import reference
        from runtimes import RUNTIMES

        model = networks.load(network)
        run = RUNTIMES[name](model, threads)
    except Exception as error:
        answer({"failed": f"{type(error).__name__}: {error}"})
        return
    answer({"ready": True})
    known: dict[int, tuple[list[Any], float]] = {}
    for line in sys.stdin:
        batch = json.loads(line)["batch"]
        try:
            if batch not in known:
                made = networks.inputs(model, batch)
                known[batch] = made, timing.relative_error(np.array(run(made[0])), reference(model, made[0]))
            inputs, error = known[batch]
            answer({"calls": timing.one_turn(run, inputs), "error": error})
        except Exception as problem:
            answer({"failed": f"{type(problem).__name__}: {problem}"})


if __name__ == "__main__":
    main()
