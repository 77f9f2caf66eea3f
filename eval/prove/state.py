"""Whether OUT has the parity check of a request, without torch and without loading a model.

prove.json records the `inputs` by their hash and its page among the `outputs`. A check that found differences
is made again, and so is one of a server, which may have another model behind the same address.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tuneyard.core.errors import ContentError
from tuneyard.core.execution.state import (
    CURRENT,
    NEW,
    FileInput,
    Input,
    State,
    changed_outputs,
    compare_inputs,
)
from tuneyard.core.files import read_object, require, sha256, text_sha256, versions
from tuneyard.core.installation.checkout import release
from tuneyard.core.language.message import _
from tuneyard.core.language.reader import current
from tuneyard.core.training.training_run import model_sha256
from tuneyard.core.weights.adapter_files import CONFIG
from tuneyard.eval.data.dataset import find_datasets
from tuneyard.eval.prove.check import PACKAGES
from tuneyard.eval.prove.proof import ParityInputs, Tolerance
from tuneyard.eval.runs.results import recorded_inputs, recorded_outputs
from tuneyard.eval.scoring.candidates import open_adapters
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.scoring.state import model_inputs

RECORD, PAGE = "prove.json", "prove.md"


@dataclass(frozen=True, slots=True)
class ParityRequest:
    """What a parity check is asked for: the adapters and rows, what to compare them with, how far they may
    differ."""

    scoring: ScoringRequest
    inputs: ParityInputs
    tolerance: Tolerance


def parity_inputs(request: ParityRequest) -> dict[str, Input]:
    """What the result of a check depends on, by the names that a user knows."""
    scoring, files = request.scoring, request.inputs
    datasets = find_datasets(scoring.datasets, scoring.data, scoring.dataset_dir)
    is_adapter = bool(scoring.adapters) or (Path(scoring.model) / CONFIG).is_file()
    reference, adapters_by_name = open_adapters(replace(scoring, no_base=is_adapter))
    inputs = model_inputs(scoring, reference, adapters_by_name)
    for dataset in datasets:
        entry = json.dumps(dataset.entry, sort_keys=True, default=str)
        inputs[dataset.name] = FileInput(sha256=text_sha256(sha256(dataset.path) + entry))
    if files.fused and files.fused.is_dir():  # the check says what else it is
        inputs["--fused"] = FileInput(sha256=model_sha256(files.fused))
    if files.gguf:
        inputs["--gguf"] = FileInput(sha256=sha256(require(files.gguf, "GGUF")))
    if files.modelfile:
        inputs["--modelfile"] = FileInput(sha256=sha256(require(files.modelfile, "Modelfile")))
    return {
        **inputs,
        "--template": files.template,
        "--url": list(files.urls),
        "--served-model": files.served_model,
        "--limit": scoring.limit,
        "--max-new-tokens": scoring.max_new_tokens,
        "--dtype": scoring.dtype,
        "--flips": request.tolerance.flips,
        "--tolerance": request.tolerance.nats,
        "--lang": current(),
        **versions(*PACKAGES),
        "tuneyard": release(),
    }


def parity_state(request: ParityRequest, inputs: Mapping[str, Input]) -> State:
    """How far the check in OUT is, for these inputs. Nothing is written."""
    out = request.scoring.out
    try:
        record = read_object(out / RECORD)
    except (ContentError, OSError):  # none, or a file of somebody else, which the command refuses
        return NEW
    changes = list(compare_inputs(recorded_inputs(record), inputs).changes)
    changes += changed_outputs(out, recorded_outputs(record))
    changes += [_("the model behind {url} may have changed", url=url) for url in request.inputs.urls]
    if record.get("proved") is not True:
        changes.append(_("the last check found differences"))
    if changes:
        return State("stale", tuple(changes))
    return CURRENT
