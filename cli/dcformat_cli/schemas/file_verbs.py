"""The documents of the verbs that make and examine files."""

from __future__ import annotations

from dcformat_cli.schemas.fields import Schema, array, count, figure, flag, mapping, maybe, number, record, share, text
from dcformat_cli.schemas.shared import (
    DELTA,
    DESCRIBED,
    FIGURES,
    FILE,
    LEFT_OUT,
    MACHINE,
    MODE,
    NAMES,
    NETWORK,
    OUTPUT,
    RECORDED,
    SHAPE,
    TRIED,
)

PACK = {"file": OUTPUT, "mode": MODE, "tried": TRIED, "left_out": LEFT_OUT}


#: The keys of every document besides `schema`: verb -> when it is printed -> keys. A name in parentheses is optional.
DOCUMENTS: dict[str, dict[str, dict[str, Schema]]] = {
    "pack": {
        "": {**PACK, **FIGURES},
        "--base": {**PACK, **FIGURES, "delta": DELTA},
        "--shards": {
            "file": text("the index"), "files": array("the files", text("a file")), "mode": MODE, "tried": TRIED,
            "size": FIGURES["size"], "parameters": FIGURES["parameters"], "left_out": LEFT_OUT,
        },
    },
    "apply": {
        "": {"file": FILE, "base": text("the base"), "output": OUTPUT, "mode": MODE,
             "bytes": count("bytes of the new file"), "tensors": count("its tensors"),
             "digest": text("its content digest")},
    },
    "repack": {
        "": {"file": FILE, "output": OUTPUT, "mode": MODE, "before": count("bytes of `file`"), "tried": TRIED},
    },
    "unpack": {
        "": {"file": FILE, "output": OUTPUT, "format": text("its form", "safetensors", "npz"),
             "tensors": DESCRIBED},
        "--skip-damaged": {"file": FILE, "output": OUTPUT, "format": text("its form", "safetensors", "npz"),
                           "tensors": DESCRIBED, "damaged": array("the tensors left out", text("a name"))},
        "--format shards": {"file": FILE, "output": OUTPUT, "format": text("its form", "shards"),
                            "tensors": DESCRIBED, "files": array("the files", text("a file"))},
    },
    "export onnx": {
        "": {"file": FILE, "output": OUTPUT, "format": text("`onnx`", "onnx"), "bytes": count("bytes of the model"),
             "check": maybe(record("the comparison; null if the network takes no random inputs", {
                 "engine": text("what ran the model"), "difference": number("the largest difference")}))},
    },
    "export c": {
        "": {"file": FILE, "output": OUTPUT, "format": text("`c`", "c"), "form": text("the form of the weights"),
             "mode": maybe(text("the coder; null for sparse weights")), "numbers": text("what it computes with"),
             "data_bytes": count("bytes of the weights"), "arena_bytes": count("bytes of the values"),
             "error": maybe(record("the error of fixed point; null for floats", {
                 "inputs": count("the inputs that were compared"), "largest": number("the largest error"),
                 "mean": number("the mean error"), "same_argmax": share("inputs whose largest output is the same"),
             })),
             "targets": mapping("the sizes for each processor, in bytes", record("the sizes", {
                 "text": count("code"), "rodata": count("constants"), "ram": count("variables"),
                 "stack": count("stack"), "flash": count("flash together"),
                 "length": count("the length of a run, with --emulate"), "unit": text("its unit"),
             }, ("length", "unit")))},
    },
    "export state-dict": {"": {"file": FILE, "output": OUTPUT, "format": text("`state-dict`", "state-dict"),
                               "tensors": DESCRIBED}},
    "export scipy": {"": {"file": FILE, "output": OUTPUT, "format": text("`scipy`", "scipy"),
                          "tensors": DESCRIBED}},
    "inspect": {
        "": {
            "file": FILE, "version": array("major and minor version of the format", count("a number")),
            "digest": text("the content digest"), **FIGURES, "network": maybe(NETWORK),
            "labels": array("the class labels", text("a label")),
            "metadata": mapping("the metadata", text("a text")),
            "self_test": maybe(record("the self-test", {"seed": count("its seed"), "samples": count("inputs")})),
            "delta": maybe(DELTA),
            "extensions": array("sections that this version does not know",
                                record("a section", {"kind": count("its id"), "bytes": count("its bytes")})),
            "stages": RECORDED,
            "(details)": array("with --tensor: more about these tensors", record("a tensor", {
                "name": text("its name"), "copy_of": maybe(text("the tensor that it copies, or null")),
                "block": count("number of the data block with its payload"),
                "offset": count("of the payload in the file"),
                "payload_bytes": count("bytes of the payload"), "code_bits": number("bits of codes or values"),
                "index_bits": number("bits of positions"), "codebook_bits": number("bits of the codebook"),
                "table_bits": number("bits of tables"),
                "codebook": maybe(array("the shared values; null without a codebook", record("a value", {
                    "value": figure("the value"), "count": count("how often it occurs")}))),
                "minimum": figure("the least stored value; null without one"),
                "maximum": figure("the largest stored value; null without one"),
                "rows": maybe(record("entries of the rows; null for a tensor that is not sparse", {
                    "rows": count("rows"), "empty": count("rows without entries"),
                    "least": count("fewest entries of a row"),
                    "most": count("most entries of a row")}))})),
            "(parts)": array("with --hex: the parts of the file, or of the tensors, in order", record("a part", {
                "offset": count("of its first byte"), "bytes": count("its bytes"), "what": text("what it is"),
                "section": text("the section of the specification"), "hex": text("its first 16 bytes")})),
            "(memory)": array("with --memory: the memory that loading and running take",
                              record("a part", {"what": text("what it is"), "bytes": count("its bytes")})),
        },
        "of several files": {
            "file": text("the index, or the directory"),
            "files": array("the files", record("a file", {
                "file": FILE, "bytes": count("its bytes"), "tensors": count("its tensors"),
                "digest": text("its content digest")})),
            **FIGURES, "metadata": mapping("the metadata", text("a text")),
        },
    },
    "report": {
        "": {
            "file": FILE, "output": OUTPUT, "bytes": count("bytes of the page"), "size": FIGURES["size"],
            "parameters": FIGURES["parameters"], "stored": count("elements that are in the file"),
            "tensors": count("its tensors"), "examined": count("those that the page shows in detail"),
            "parts": mapping("bytes by purpose", number("bytes")),
            "first_layer": maybe(text("the tensor that the page shows as a picture, or null")),
            "stages": RECORDED,
            "sizes": array("sizes of the tensors in other formats", record("a size", {
                "name": text("the format"), "bytes": count("bytes"), "exact": flag("false for an estimate")})),
            "published": array("published results", record("a result", {
                "method": text("the method"), "year": count("the year"), "citation": text("where"),
                "bytes": count("bytes of the network"), "error": number("error in percent")})),
            "chips": array("microcontrollers", record("a chip", {
                "chip": text("its name"), "flash": count("bytes of flash that the program takes"),
                "ram": count("bytes of memory that it takes"), "fits": flag("whether it fits")})),
        },
    },
    "verify": {
        "": {"files": array("the files", record("a file", {
            "file": FILE, "good": flag("whether it reads back exactly as it was saved"),
            "bytes": maybe(count("its bytes")), "tensors": maybe(count("its tensors")),
            "digest": maybe(text("its content digest")),
            "self_test_inputs": maybe(count("inputs of its self-test; null without one")),
            "error": maybe(text("what is wrong; null if it is good")),
            "whole": array("with --repair-info: names of the tensors that are whole", text("a name")),
            "damaged": array("with --repair-info: the others", record("a tensor", {
                "name": text("its name"), "error": text("what is wrong")})),
        }, ("whole", "damaged")))},
    },
    "doctor": {
        "MODEL": {
            "file": FILE, "bytes": count("its bytes"), "tensors": count("its tensors"),
            "parameters": FIGURES["parameters"], "left_out": LEFT_OUT,
            "beside": count("bytes of the file beside the tensors; 0 for a .dcf file"),
            "findings": array("what makes it large", record("a finding", {
                "what": text("what it is"), "tensors": NAMES, "elements": count("the elements concerned"),
                "bytes": count("the bytes that they take"),
                "packed": count("bytes of the same tensors, with all elements, in a .dcf file")})),
            "packed": mapping("bytes of the packed tensors by mode", count("bytes")),
            "command": text("the command to run"),
        },
        "without MODEL": {
            "dcformat": text("the version"), "executable": text("the Python interpreter"), "machine": MACHINE,
            "vectors": text("the vector instructions that kernels use"),
            "compiles": flag("whether kernels can be compiled"),
            "kernels": record("the kernels", {"all": count("all of them"), "saved": count("those with machine code")}),
            "folder": maybe(text("where machine code is saved")), "writable": flag("whether it can be written"),
            "data": maybe(text("the directory of the data set")),
            "packages": mapping("versions of optional packages, or why one is broken; null if missing",
                                maybe(text("the version"))),
        },
    },
    "diff": {
        "": {
            "files": array("both files", text("a file")), "bytes": array("their bytes", count("bytes")),
            "identical": flag("whether the contents are identical"),
            "added": array("tensors only in the second file", text("a name")),
            "removed": array("tensors only in the first file", text("a name")),
            "changed": array("tensors that differ; what does not apply is null", record("a tensor", {
                "name": text("its name"), "shape": maybe(array("both shapes, if they are of different kinds", SHAPE)),
                "dtype": maybe(array("both dtypes, if they are of different kinds", text("a dtype"))),
                "elements": maybe(count("elements that differ")),
                "mask": maybe(count("those that are zero in one file only")),
                "largest": maybe(number("the largest difference")),
                "codebook": array("numbers of shared values in both", count("shared values"))})),
            "unchanged": count("tensors that are the same"),
            "network": text("the comparison's result", "same", "changed", "added", "removed", "none"),
            "labels": flag("whether the labels differ"), "metadata": flag("whether the metadata differ"),
            "outputs": maybe(array("the outputs for random inputs; null if they are not compared", record("an output", {
                "name": text("its name"), "difference": number("the largest difference"),
                "largest": number("the largest output of the first file")}))),
        },
    },
}  # fmt: skip
