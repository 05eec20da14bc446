"""The files from which mutations begin: the tests' small files, the specification's vectors, and random models.

The set of files depends only on the code, so a seed and an index identify an input.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

import dcformat
from dcformat import graph as ops
from dcformat.dense import from_dense
from dcformat.graph import Graph, Node, Preprocessing, Shape
from dcformat.model import Model, SelfTest, Tensor
from fuzz import container
from fuzz.container import File, ParseError
from tests.format.strategies import DTYPES, FORMS, by_rows, dumps_as, large_vectors, tensor, vectors, ways

ROOT = Path(__file__).resolve().parent.parent
#: In larger files, mutations would seldom hit the parts that matter.
LARGEST = 8192


@cache
def seeds(more: Path | None = None, models: int = 60) -> tuple[list[bytes], list[File]]:
    """Return all seeds as bytes, and those that can be taken apart as fields; `more` is a folder of further files."""
    frozen = sorted((ROOT / "spec" / "vectors").rglob("*.dcf"))
    given = sorted(more.rglob("*.dcf")) if more is not None else []
    made = [data for _, data in (*vectors(), *large_vectors())]
    made += [model_file(Random(number)) for number in range(models)]
    made += _long_planes()
    raw = list(dict.fromkeys((*made, *(path.read_bytes() for path in (*frozen, *given)))))
    raw = [data for data in raw if len(data) <= LARGEST]
    return raw, [file for data in raw for file in _parsed(data)]


def _long_planes() -> Iterator[bytes]:
    """Yield small files with planes so long that many states of rANS take turns; in the second, rows share tables."""
    rare = np.random.default_rng(0).random((64, 1050)) < 0.05
    odd = np.arange(64)[:, None] % 2 == 1
    one, several = (Model({"w": from_dense("w", (3 + bits).astype(np.uint8), "uint8")}) for bits in (rare, rare ^ odd))
    yield dcformat.dumps(one, mode="fast")
    yield dcformat.dumps(several, mode="small")


def _parsed(data: bytes) -> Iterator[File]:
    try:
        yield container.parse(data)
    except ParseError:
        return


def model_file(random: Random) -> bytes:
    """Return a file of a random network, or of unrelated tensors, written in a random mode or way."""
    model = network(random) if random.randrange(4) else Model({t.name: t for t in _bag(random)})
    what = random.randrange(4)
    if what < 3:
        return dcformat.dumps(model, mode=("fast", "small", "tiny")[what])
    first = next(iter(model.tensors.values()))
    way = random.choice(list(ways(first)))
    if len(model.tensors) == 1:
        return dumps_as(model, way)
    return dcformat.dumps(model)


def _bag(random: Random) -> Iterator[Tensor]:
    for number in range(random.randrange(1, 5)):
        if not random.randrange(4):
            yield by_rows(np.random.default_rng(random.getrandbits(32)), f"t{number}", scaled=bool(random.randrange(2)))
            continue
        shape = tuple(random.choice((0, 1, 2, 3, 5, 8)) for _ in range(random.randrange(5)))
        yield _tensor(random, f"t{number}", shape, random.choice(FORMS), random.choice(DTYPES))


def _tensor(random: Random, name: str, shape: Shape, form: str, dtype: str) -> Tensor:
    generator = np.random.default_rng(random.getrandbits(32))
    codebook_size = random.choice((1, 2, 3, 5, 17))
    return tensor(
        generator, name, shape, dtype, form, codebook_size=codebook_size, density=random.choice((0.1, 0.5, 0.9))
    )


class _Builder:
    """Grows a network operator by operator, and keeps the shape of every value."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.image = bool(random.getrandbits(1))
        shape: Shape = (random.choice((1, 3)), random.randrange(3, 9), random.randrange(3, 9))
        self.values: list[Shape] = [shape if self.image else (random.randrange(1, 12),)]
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}

    def add(self, make: type[Node], *fields: object) -> None:
        """Append an operator that reads the last value, if that fits; a binary operator reads the value twice."""
        at = len(self.values) - 1
        node = make((at, at) if make in (ops.Add, ops.Concat) else (at,), *fields)
        shapes = {name: t.shape for name, t in self.tensors.items()}
        self.values.append(node.output_shape([self.values[i] for i in node.values], shapes))
        self.nodes.append(node)

    def weight(self, shape: Shape) -> str:
        """Return the name of a new tensor."""
        name = f"{'w' if len(shape) > 1 else 'b'}{len(self.tensors)}"
        dtype = self.random.choice(("float32", "float32", "float16", "bfloat16", "int8"))
        self.tensors[name] = _tensor(self.random, name, shape, self.random.choice(FORMS), dtype)
        return name

    def grow(self) -> None:
        """Append one random operator that fits."""
        random, shape = self.random, self.values[-1]
        if len(shape) == 3:
            self._grow_image(shape)
        elif random.randrange(3):
            out = random.randrange(1, 10)
            name = self.weight((out, shape[0]))
            self.add(ops.Linear, name, self.weight((out,)) if random.getrandbits(1) else None)
        else:
            self.add(random.choice((ops.ReLU, ops.Softmax, ops.Add, ops.Concat)))

    def _grow_image(self, shape: Shape) -> None:
        random = self.random
        what = random.randrange(7)
        kernel = min(random.randrange(1, 4), *shape[1:])
        if what < 3:
            groups = random.choice((1, shape[0]))
            out = groups * random.randrange(1, 4)
            name = self.weight((out, shape[0] // groups, kernel, kernel))
            pair, one = (random.randrange(1, 3),) * 2, (1, 1)
            bias = self.weight((out,)) if random.getrandbits(1) else None
            self.add(ops.Conv, name, bias, pair, *((random.randrange(2),) * 2,) * 2, one, groups)
        elif what == 3:
            self.add(random.choice((ops.MaxPool, ops.AvgPool)), (kernel, kernel), (random.randrange(1, 3),) * 2)
        elif what == 4:
            how = random.choice(("", "mean", "max"))
            self.add(*((ops.Reduce, how, (1, 2)) if how else (ops.Flatten,)))
        else:
            self.add(random.choice((ops.ReLU, ops.Add, ops.Concat)))


def network(random: Random) -> Model:
    """Return a random network whose shapes fit."""
    builder = _Builder(random)
    for _ in range(random.randrange(1, 7)):
        builder.grow()
    while not builder.tensors:
        builder.grow()
    channels = builder.values[0][0] if builder.image else 1
    count = random.choice((0, 1, channels))
    rule = Preprocessing((0.5,) * count, (0.25,) * count) if count else None
    graph = Graph.sequential(builder.values[0], tuple(builder.nodes), rule)
    labels = tuple(f"class {i}" for i in range(builder.values[-1][0])) if random.getrandbits(1) else ()
    test = SelfTest(random.getrandbits(32), random.randrange(1, 5), bytes(8)) if random.getrandbits(1) else None
    return Model(builder.tensors, graph, labels, {"by": "a seed"} if random.getrandbits(1) else {}, test)
