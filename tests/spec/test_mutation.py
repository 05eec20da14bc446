"""The mutation test finds mistakes, lets harmless changes survive, and lists only mutants as survivors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.spec.support import SPEC, mutation_test, mutations

MUTANTS = {mutant.text: mutant for module in mutations.MODULES for mutant in mutations.mutants(module)}


def test_every_kind_of_change_is_made() -> None:
    kinds = Counter(text.rpartition("[")[2].partition("]")[0] for text in MUTANTS)
    assert kinds["check left out"] > 100
    assert {"Lt -> LtE", "LtE -> Lt", "no lower limit", "no upper limit", "And -> Or", "60 -> 61"} <= set(kinds)
    assert len(MUTANTS) > 2000


def test_survivors_are_mutants_and_have_a_reason() -> None:
    entries = json.loads(mutation_test.SURVIVORS.read_text(encoding="utf-8"))
    listed = [text for entry in entries for text in entry["mutants"]]
    assert not [text for text in listed if text not in MUTANTS]
    assert len(listed) == len(set(listed))
    assert all(len(entry["reason"]) > 20 for entry in entries)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            'reader.Reader.end: check(self.left() == 0, "E04", message) [check left out]', marks=pytest.mark.slow
        ),
        "coders.decode_values: mantissa = max(bits - 1 - e, 0) [1 -> 2]",
        "mixing.Mixer.predict: return clamp(sum(w * x for w, x in zip(self.weights, inputs, strict=True)) >> 16, "
        "-3071, 3071) [16 -> 17]",
        "payloads.module: FOUR_STREAMS_FROM = 4096 [4096 -> 4097]",
        "shapes.windows: return count - 1 if (count - 1) * stride >= size + before else count [GtE -> Gt]",
    ],
)
def test_mistakes_are_found_out(text: str) -> None:
    """The test needs its own process, because a mutant replaces the modules of the decoder."""
    mutant = MUTANTS[text]
    program = (
        "import mutation_test as m, sys\n"
        f"mutant = m.Mutant({mutant.module!r}, {mutant.number}, '', 0, 0)\n"
        "found = m.vectors()\n"
        "m.prepare({vector.name: 1.0 for vector in found})\n"
        "fast = [v.name for v in found if len(v.data) < 9000 and 'model' not in v.name and 'long' not in v.name]\n"
        "print(m.killer(mutant, fast))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=SPEC, capture_output=True, text=True, check=True)
    assert run.stdout.strip(), text


def test_a_harmless_change_survives() -> None:
    """The decoder itself, loaded as mutants are, gives the expected result for every vector."""
    program = (
        "import mutation_test as m\n"
        "found = m.vectors()[:40]\n"
        "decoder = m.load({name: m.compiled(name) for name in m.MODULES})\n"
        "print(all(vector.found(decoder) == vector.expected for vector in found))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=SPEC, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"


def test_it_needs_the_standard_library_only() -> None:
    help_text = subprocess.run(
        [sys.executable, "-E", "-s", "-S", str(Path(SPEC) / "mutation_test.py"), "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "--sample" in help_text and "--state" in help_text


def test_results_outlast_new_vectors_but_not_changed_ones(tmp_path: Path) -> None:
    first, second = (mutation_test.Vector(f"valid/{name}.dcf", name.encode(), None) for name in "ab")
    path = tmp_path / "state.jsonl"
    state = mutation_test.State(path, [first])
    state.keep("reach", first.name, [0.01, ["coders:7"]])
    state.keep("killer", "a mutant", first.name)
    state.keep("killer", "another", "")
    state.keep("killer", "a third", "import")

    more = mutation_test.State(path, [first, second])
    reach: dict[str, object] = dict(more.reach)
    assert reach == {first.name: [0.01, ["coders:7"]]}
    assert more.killers == {"a mutant": first.name, "a third": "import"}
    assert more.survived == {"another": {first.name}}

    changed = mutation_test.State(path, [mutation_test.Vector(first.name, b"changed", None), second])
    assert changed.reach == {} and changed.killers == {"a third": "import"}
    assert changed.survived == {"another": set()}
    assert changed.hints["a mutant"] == first.name
