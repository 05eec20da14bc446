"""Packs PyTorch modules and writes a table of their differences from PyTorch, and of the cost of packing.

    python benchmarks/interop/torch_models.py models.jsonl docs/results/torch-models.md [MODEL ...]

Each model is packed in its own process, as by `from_module`, and added to models.jsonl; models already in the file are
kept. Small ones are packed from a ``.pt2`` archive too. Models of torchvision (0.28.0 belongs to torch 2.13.0) have
random weights; so have the taggers, which are an embedding and two bidirectional layers.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import dcformat_runtime
import torch
from dcformat_interop import import_pt2
from dcformat_interop.torch_import import import_program
from dcformat_pruning.export.example_inputs import example_inputs
from dcformat_pruning.export.torch_program import exported
from torch import nn

import dcformat

#: Models of at most this many parameters are packed from an archive too.
_SMALL = 6_000_000


class Tagger(nn.Module):
    """An embedding, two bidirectional layers, and a score for each of 9 tags."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 32)
        self.recurrent: nn.RNNBase = kind(32, 48, 2, batch_first=True, bidirectional=True)
        self.scores = nn.Linear(96, 9)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.scores(self.recurrent(self.embedding(tokens))[0])
        return scores


def vision(name: str) -> Callable[[], tuple[nn.Module, Any]]:
    def make() -> tuple[nn.Module, Any]:
        import torchvision  # type: ignore[import-not-found,unused-ignore]

        module = torchvision.models.get_model(name)
        for parameter in module.parameters():
            if not parameter.any():  # such as the last layer of a ViT, which would hide everything before it
                nn.init.normal_(parameter, std=0.02)
        return module, (3, 224, 224)

    return make


def tagger(kind: type[nn.RNNBase]) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (Tagger(kind), torch.zeros(1, 12, dtype=torch.int64))


MODELS = {
    "lstm_tagger": tagger(nn.LSTM),
    "gru_tagger": tagger(nn.GRU),
    **{
        name: vision(name)
        for name in (
            "squeezenet1_1", "shufflenet_v2_x1_0", "mobilenet_v3_small", "mobilenet_v2", "regnet_y_400mf",
            "efficientnet_b0", "densenet121", "resnet18", "resnet50", "convnext_tiny", "swin_t", "vit_b_16", "vgg16_bn",
        )
    },
}  # fmt: skip


def measured(name: str) -> dict[str, Any]:
    """Pack a model, read it back, check it, and return the figures."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    module, inputs = MODELS[name]()
    module.eval()
    times, kinds = [time.process_time()], Counter[str]()
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        program = exported(module, example_inputs(module, inputs, 0))
        imported = import_program(program, name, max_memory=None)
        times.append(time.process_time())
        packed = Path(folder) / "model.dcf"
        dcformat.save(imported.model, packed)
        times.append(time.process_time())
        compared = imported.check(dcformat_runtime.load(packed, threads=1, max_memory=None, max_work=None))
        times.append(time.process_time())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        parameters = imported.model.elements
        archived = None
        if parameters <= _SMALL:
            torch.export.save(program, Path(folder) / "model.pt2")
            again = import_pt2(Path(folder) / "model.pt2")
            archived = again.check(dcformat_runtime.Session.from_model(again.model, threads=1)).difference
        size = packed.stat().st_size
    assert imported.model.graph is not None
    kinds.update(node.kind for node in imported.model.graph.nodes)
    return {
        "name": name, "parameters": parameters, "bytes": size, "kinds": dict(kinds), "difference": compared.difference,
        "archived": archived, "seconds": [end - start for start, end in pairwise(times)],
        "peak": peak, "engine": compared.engine,
    }  # fmt: skip


def row(found: dict[str, Any]) -> str:
    """Return a line of the table."""
    kinds = Counter(found["kinds"]).most_common()
    named = ", ".join(f"{count} {kind}" for kind, count in kinds[:4])
    more = f", and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
    archived = "" if found["archived"] is None else f"{found['archived']:.1e}"
    times = " | ".join(f"{seconds:.1f}" for seconds in found["seconds"])
    return (
        f"| {found['name']} | {found['parameters']:,} | {found['bytes']:,} | {named}{more} "
        f"| {found['difference']:.1e} | {archived} | {times} | {found['peak']:,.0f} |"
    )


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the page."""
    engine = found[0]["engine"]
    return "\n".join([
        "# PyTorch modules",
        "",
        "`benchmarks/interop/torch_models.py`, which says where the models come from, wrote this page on 2 shared",
        f"cores (AMD EPYC with AVX-512). Each model was exported, packed, read back, and compared with {engine}",
        "on random inputs, with batches of 1 and 3. Differences are relative to the largest output; the second is that",
        "of the same program from an archive. Times are seconds of CPU time: of the export and import, of writing the",
        "file (`fast`), and of loading and checking it. The peak memory of the process is in MiB.",
        "",
        "| model | parameters | bytes | operators | difference | from .pt2 | import | write | check | peak |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
        *(row(model) for model in found),
    ])  # fmt: skip


def main() -> None:
    """Measure the models that are missing, and write the table."""
    state, page, *names = sys.argv[1:]
    if state == "--one":
        print(json.dumps(measured(page)))
        return
    lines = Path(state).read_text("utf-8").splitlines() if Path(state).exists() else []
    found = {line["name"]: line for line in map(json.loads, lines)}
    for name in names or MODELS:
        if name not in found:
            done = subprocess.run([sys.executable, __file__, "--one", name], stdout=subprocess.PIPE, check=True)
            found[name] = json.loads(done.stdout)
            with Path(state).open("a", encoding="utf-8") as file:
                file.write(json.dumps(found[name]) + "\n")
            Path(page).write_text(table([found[name] for name in MODELS if name in found]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
