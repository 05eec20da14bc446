"""The documents of the verbs that run, time and train networks; see `file_verbs`."""

from __future__ import annotations

from dcformat_cli.schemas.fields import (
    Schema,
    array,
    count,
    figure,
    flag,
    mapping,
    maybe,
    number,
    record,
    share,
    text,
)
from dcformat_cli.schemas.shared import BACKEND, FIGURES, FILE, MACHINE, MODE, OUTPUT, OUTPUTS, ROW, SEED, STAGES, TRIAL

DOCUMENTS: dict[str, dict[str, dict[str, Schema]]] = {
    "run": {
        "on a data set": {"file": FILE, "backend": BACKEND, "images": count("the test images"),
                          "correct": count("those that are right"), "accuracy": share("`correct` divided by `images`")},
        "--input": {"file": FILE, "backend": BACKEND, "images": count("the batch; 1 for a network that takes none"),
                    "classes": maybe(array("the classes; null unless the only output classifies", count("a class"))),
                    "(labels)": array("their labels, if the file has any", text("a label")), "outputs": OUTPUTS},
        "--input -o": {"file": FILE, "backend": BACKEND, "images": count("the batch; 1 for a network that takes none"),
                       "output": OUTPUT,
                       "shape": maybe(array("the shape of the only output, or null", count("a length"))),
                       "outputs": OUTPUTS},
    },
    "compress": {
        "": {"file": OUTPUT, "architecture": text("the network"), "recipe": text("the recipe"), "seed": SEED,
             "mode": MODE, "accuracy": share("on the test images"), "images": count("the test images"),
             "stages": STAGES, **FIGURES},
        "--module": {
            "file": OUTPUT, "module": text("the function that made the network"),
            "goal": mapping("`max_drop`, `size` or `density`", number("its value")),
            "reached": flag("whether the file reaches the goal"), "note": text("what the user should know, or nothing"),
            "seed": SEED, "mode": MODE, "dense": number("the metric of the dense network"),
            "metric": number("the metric of the file"), "test": maybe(number("the same on the test data")),
            "trials": array("the networks that were tried", record("a network", {
                "number": count("from 1"), "keep": count("weights that pruning kept"),
                "size": count("bytes of the file"),
                "metric": number("the metric of the file")})),
            "stages": STAGES, **FIGURES},
        "MODEL (without training)": {
            "file": FILE, "output": OUTPUT, "mode": MODE, **TRIAL,
            "trials": array("the prices that were tried", record("a trial", TRIAL))},
    },
    "bench": {
        "": {"file": FILE, "machine": MACHINE, "rounds": count("turns of each runtime"),
             "threads": array("an entry for each number of threads", record("an entry", {
                 "threads": count("the number"), "missing": mapping("runtimes that did not run", text("the reason")),
                 "results": array("an entry for each batch", record("an entry", {
                     "batch": count("the batch"), "runtimes": mapping("the runtimes", record("a runtime", {
                         "median_us": number("median of a call, in microseconds"), "p99_us": number("99th percentile"),
                         "calls": count("calls"), "error": figure("largest difference from the reference, relative "
                                                                    "to its largest output; `inf` if not finite"),
                     }))}))}))},
    },
    "warmup": {
        "": {"folder": text("where machine code is saved"), "bytes": count("its bytes"), "kernels": count("kernels"),
             "compiled": count("kernels compiled now"), "unsaved": array("kernels not saved", text("a kernel")),
             "seconds": number("the time that it took")},
        "FILE": {"folder": text("where the networks are saved"),
                 "prepared": array("the files", record("a file", {
                     "file": FILE, "bytes": maybe(count(
                         "bytes of what was saved for it; null if its network runs in several parts"))}))},
        "--list": {"folder": text("where machine code is saved"), "bytes": count("its bytes"),
                   "kernels": mapping("the files of the kernels", maybe(text("the file; null if there is none"))),
                   "networks": array("the saved networks, those that were used last first", record("a network", {
                       "file": text("where it is saved"), "bytes": count("its bytes"),
                       "used": number("when it was last used, to within a day, in seconds since 1970"),
                       "made_of": text("the .dcf file that it was made of")}))},
        "--clear": {"folder": text("where machine code was saved"), "removed_bytes": count("bytes removed")},
        "--target": {"folder": text("where the code was saved"), "bytes": count("its bytes"),
                     "kernels": count("kernels"), "target": text("the kind of machine")},
    },
    "sweep": {
        "": {key: array(about, record("a point", {
            "criterion": text("the pruning criterion"), "density": share("weights that stay"),
            "clusters": count("shared values"), "seed": SEED, "size": count("bytes of the file"),
            "accuracy": share("on the validation images")}))
            for key, about in (("points", "all points"), ("front", "those that no other point beats"))},
    },
    "study criteria": {"": {"rows": array("the rows", record("a row", {
        "baseline": text("the dense network"), "seed": SEED, "criterion": text("the criterion"), **ROW,
        "weights": count("weights that stay"), "budgeted": share("accuracy with the same share in each layer"),
    }))}},
    "study article": {"": {"rows": array("the rows", record("a row", {
        "published": number("the ratio in the article"), "seed": SEED, "method": text("the method"),
        "s": maybe(number("its sensitivity; null for one ranking over all layers")), **ROW,
        "at_two": maybe(number("the ratio that `s` = 2 gives")),
    }))}},
    "study networks": {"": {"rows": array("the rows", record("a row", {
        "network": text("the network"), "seed": SEED, "criterion": text("the criterion"),
        "selection": text("how weights are selected"), "density": share("weights that were to be kept"),
        "weights": count("weights that stay"), "dense": ROW["dense"], "pruned": ROW["pruned"],
        "epochs": count("epochs of retraining"), "retrained": ROW["retrained"],
    }))}},
    "study schedules": {"": {"rows": array("the rows", record("a row", {
        "seed": SEED, "schedule": text("the schedule"), "ratio": ROW["ratio"],
        "weights": count("weights that stay"), "accuracy": share("accuracy after retraining"),
    }))}},
    "study layers": {"": {"seeds": array("the seeds", record("a seed", {
        "seed": SEED, "dense": ROW["dense"], "layers": array("the layers", record("a layer", {
            "name": text("its name"), "weights": count("its weights"),
            "needs": maybe(share("the least density that costs at most one point of accuracy")),
            "accuracies": mapping("density to accuracy", share("the accuracy"))}))}))}},
}  # fmt: skip
