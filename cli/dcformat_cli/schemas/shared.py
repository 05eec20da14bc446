"""Parts of the documents of several verbs."""

from __future__ import annotations

from dcformat_cli.schemas.fields import Schema, array, count, figure, mapping, maybe, number, record, share, text

NAMES = array("names", text("a name"))
SHAPE = array("its shape", count("a length"))
FILE = text("the file that was read, as the command line names it")
OUTPUT = text("the file that was written; `stdout` for `-o -`")
MODE = text("the mode of the file", "fast", "small", "tiny")
LEFT_OUT = mapping("entries of the checkpoint that are left out, with the reasons", text("the reason"))
TRIED = mapping(
    "the modes that were tried",
    record("a trial", {"bytes": count("bytes of the file"),
                        "seconds": number("estimated time to decode, at a billion steps a second")}),
)  # fmt: skip
DESCRIBED = array(
    "the tensors", record("a tensor", {"name": text("its name"), "shape": SHAPE, "dtype": text("its dtype")})
)
DELTA = record(
    "what a delta does",
    {
        "base": text("content digest of the base"),
        "result": text("content digest of the new file"),
        "kept": maybe(count("tensors of the base that are kept; null if all others stay in place")),
        "changed": maybe(count("tensors that change")),
        "new": count("tensors that are new"),
    },
)
FIGURES: dict[str, Schema] = {
    "size": count("bytes of the file"),
    "parameters": count("elements of all tensors"),
    "float32_bytes": count("bytes of these elements as float32"),
    "ratio": number("`float32_bytes` divided by `size`"),
    "tensors": array(
        "the tensors",
        record(
            "a tensor",
            {
                "name": text("its name"),
                "shape": SHAPE,
                "dtype": text("its dtype"),
                "form": text("how it is stored", "sparse", "dense", "constant"),
                "weights": count("its elements"),
                "stored": count("the elements that are in the file"),
                "density": share("`stored` divided by `weights`"),
                "codebook": count("number of shared values; 0 for none"),
                "coder": text("the coder"),
                "bits_per_weight": number("bits of a stored element, as coded"),
                "bits_per_index": number("bits of a stored element's position, as coded"),
                "table_bytes": number("bytes of the codebook and of the coder's tables"),
                "bytes": count("bytes of all of it"),
            },
        ),
    ),
    "ledger": array(
        "the parts of the file, which add up to `size`",
        record("a part", {"what": text("what it is"), "bytes": count("its bytes")}),
    ),
}
PORT_SHAPE = {
    "type": ["array", "null"],
    "description": 'its shape, with `"batch"` where the batch goes; null if the graph is not valid',
    "items": {"type": ["integer", "string"]},
}
PORT: dict[str, Schema] = {
    "name": text("its name"),
    "shape": PORT_SHAPE,
    "dtype": text("its dtype"),
    "batch_axis": maybe(count("the axis of the batch; null for an array that all samples share")),
}
NETWORK = record(
    "the network; null if there are only tensors",
    {
        "input_shape": maybe(array("the shape of the only input; null if there are several", count("a length"))),
        "inputs": array("the inputs", record("an input", PORT)),
        "outputs": array("the outputs", record("an output", {**PORT, "value": count("the number of its value")})),
        "preprocessing": maybe(
            record("what turns pixels into inputs", {"mean": array("means", number("a mean")),
                                                      "std": array("deviations", number("a deviation"))})
        ),
        "nodes": array(
            "the operators in their order",
            record("an operator", {
                "kind": text("its kind"),
                "inputs": array(
                    "numbers of values (those of the network's inputs come first, then one for each operator), names "
                    'of tensors, and constants: `{"constant": 0.5}`, or `"inf"` or `"-inf"` for the number',
                    {"type": ["integer", "string", "object"]},
                ),
                "tensors": NAMES,
            }),
        ),
    },
)  # fmt: skip
OUTPUTS = array(
    "the outputs of the run",
    record("an output", {
        "name": text("its name"), "shape": array("the shape of the whole array", count("a length")),
        "dtype": text("its dtype"), "min": figure("the least element"), "max": figure("the largest element"),
        "mean": figure("the mean; null for an empty array, and a text if it is not finite"),
    }),
)  # fmt: skip
BACKEND = text("what ran the network: numba, or numpy if its kernels are not compiled")
MACHINE = record(
    "this machine",
    {
        "processor": text("the processor"),
        "cores": count("the cores that the process may use"),
        "vectors": text("the vector instructions that kernels use"),
        "system": text("the operating system and the architecture"),
        "python": text("the version of Python"),
    },
)
RECORDED = array(
    "the metric that the metadata records for each stage of compression",
    record("a stage", {"stage": text("its name"), "metric": number("an accuracy, for most networks")}),
)
STAGES = array(
    "the stages",
    record("a stage", {
        "stage": text("its name"), "metric": number("on the validation data; the accuracy, for images"),
        "weights": count("weights that are not zero"), "seconds": number("the time that it took"),
        "size": maybe(count("bytes of the file, if the stage makes one")),
    }),
)  # fmt: skip
ROW = {"ratio": number("weights before and after, divided"), "dense": share("accuracy before pruning"),
        "pruned": share("accuracy after pruning"), "retrained": share("accuracy after retraining")}  # fmt: skip
SEED = count("the seed")
TRIAL = {"price": number("the change that a bit was worth"), "bytes": count("bytes of the file"),
         "change": number("the divergence of the outputs in nats, or half their relative squared error"),
         "drop": maybe(share("outputs with another class; null if outputs tell no classes")),
         "density": share("weights that are not zero")}  # fmt: skip
