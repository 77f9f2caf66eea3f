"""Whether OUT has the results of a scoring request, without torch and without loading a model.

run.json has two records for this: `inputs`, what the results depend on, and `outputs`, the hash of each file
of the run once it is scored. What counts as an input:

- the weights, config and tokenizer of the base, and the files and weight of each adapter: by their content,
  so that a folder may move;
- the rows of each dataset with their entry in dataset_info.json, clusters, images and examples (--shots);
- each option that changes an answer or a figure, with its default;
- the release of Tuneyard, the versions of torch, transformers and tokenizers, and the code of plug-ins.

--workers, --ray and --timeout change no byte. The device is none either: results from a CPU stay current on a
machine with a GPU, unless --dtype is given. The date that a chat template writes belongs to the run: the same
command keeps it, as --resume does. --rescore depends on the kept outputs in place of models. A server may
have another model each day behind the same address: its results are never current.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tuneyard.adapters.model.provenance import CARD
from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.core.errors import RequestError
from tuneyard.core.execution.state import (
    CURRENT,
    NEW,
    FileInput,
    Input,
    State,
    changed_outputs,
    compare_inputs,
)
from tuneyard.core.files import files_sha256, text_sha256, versions
from tuneyard.core.installation.checkout import release
from tuneyard.core.language.message import _, joined
from tuneyard.core.text.quoting import shell
from tuneyard.core.training.training_run import (
    OF_A_MODEL,
    SETTINGS,
    STARTED,
    TRAINING,
    model_sha256,
    record_folders,
)
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures import plugin_inputs
from tuneyard.eval.models.load import find_model
from tuneyard.eval.runs.results import (
    OUT_OPTION,
    RESULTS,
    RUN,
    own_folders,
    read_run,
    recorded_inputs,
    recorded_outputs,
)
from tuneyard.eval.scoring.candidates import Adapters, check_loading, open_adapters
from tuneyard.eval.scoring.evaluation import Evaluation
from tuneyard.eval.scoring.plan import PACKAGES
from tuneyard.eval.scoring.request import ScoringRequest

OPTIONS = (
    "cluster", "template", "bos", "apply", "dtype", "quantize", "batch_tokens", "max_new_tokens", "think",
    "preset", "temperature", "top_p", "seed", "limit", "no_base", "tensor_parallel",
    "pipeline_parallel",
)  # fmt: skip
"""The options of all scoring commands that change an answer or a figure."""
OF_A_TRAINING = (TRAINING, STARTED, *SETTINGS, CARD)
"""Records above a checkpoint, which decide its prompts and what it was trained on."""
MOST_CHANGES = 5  # in a message
NO_FLAGS: Mapping[str, str] = MappingProxyType({})


def scoring_inputs(
    request: ScoringRequest,
    evaluation: Evaluation,
    datasets: Sequence[EvalDataset],
    flags: Mapping[str, str],
) -> dict[str, Input]:
    """What the results of a request depend on, by the names that a user knows.

    `flags` are those of the command's own options by name. Raises what opening the models raises.
    """
    inputs: dict[str, Input] = {}
    if request.rescore:
        inputs["--rescore"] = FileInput(sha256=_outputs_sha256(request.rescore))
    elif request.backend_kind.is_server:
        inputs |= {"--url": request.url, "--served-model": request.served_model, "--model": request.model}
    else:
        check_loading(request)
        reference, adapters_by_name = open_adapters(request)
        inputs |= model_inputs(request, reference, adapters_by_name)
    return {
        **inputs,
        **option_inputs(request, flags),
        **evaluation.inputs(),
        **data_inputs(datasets, request.limit),
    }


def option_inputs(request: ScoringRequest, flags: Mapping[str, str] = NO_FLAGS) -> dict[str, Input]:
    """The options that change an answer or a figure. Kept outputs do not depend on those of a model."""
    inputs: dict[str, Input] = {}
    for name in ("cluster",) if request.rescore else OPTIONS:
        inputs[_flag(name)] = getattr(request, name)
    for name, value in request.own.items():
        inputs[flags.get(name, _flag(name))] = _as_input(value)
    return inputs


def model_inputs(
    request: ScoringRequest, reference: str, adapters_by_name: Mapping[str, Adapters]
) -> dict[str, Input]:
    """The base, the adapters of each candidate, and the versions of what loads them."""
    inputs: dict[str, Input] = {
        "--backend": request.backend,
        "--model": FileInput(sha256=model_sha256(find_model(reference))),
    }
    for name, adapters in adapters_by_name.items():
        if adapters:
            inputs[_("adapter {name}", name=name)] = FileInput(sha256=_adapters_sha256(adapters))
    return inputs | versions(*PACKAGES, *request.backend_kind.packages)


def data_inputs(datasets: Sequence[EvalDataset], limit: int | None) -> dict[str, Input]:
    """The rows of the datasets, and the code that measures them: Tuneyard's release and plug-ins."""
    inputs: dict[str, Input] = {}
    for dataset in datasets:
        rows = len(dataset.records)
        facts = [
            dataset.digest,
            dataset.entry,
            dataset.about,
            dataset.cluster,
            dataset.clusters,
            list(dataset.record_numbers[:rows]),
            dataset.origin.training_rows(len(dataset.records[:limit])),
        ]
        digest = text_sha256(json.dumps(facts, sort_keys=True, default=str))
        inputs[dataset.name] = FileInput(sha256=digest, rows=rows)
        if dataset.shots:
            inputs[_("shots of {dataset}", dataset=dataset.name)] = FileInput(sha256=dataset.shots.digest)
    inputs["tuneyard"] = release()
    return inputs | plugin_inputs()


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _as_input(value: Any) -> Input:
    """The value of an option as JSON has it."""
    if isinstance(value, (list, tuple)):
        return [str(each) for each in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _adapters_sha256(adapters: Sequence[WeightedAdapter]) -> str:
    """Hash of weighted adapters: of their files, and of the records of their trainings."""
    parts = []
    for weighted in adapters:
        folder, *above = record_folders(weighted.adapter.folder.resolve())
        files = [path for path in folder.iterdir() if path.suffix in OF_A_MODEL | {".yaml"}]
        files += [path for path in (folder / CARD, *_records(above)) if path not in files]
        read = files_sha256(path for path in sorted(files) if path.is_file())
        parts.append(f"{read}:{weighted.weight!r}")
    return text_sha256("+".join(parts))


def _records(folders: Iterable[Path]) -> list[Path]:
    return [folder / name for folder in folders for name in OF_A_TRAINING]


def _outputs_sha256(source: Path) -> str:
    """Hash of the outputs of a run that are scored again."""
    run = read_run(source)
    files = [source / RUN]
    for folder in own_folders(source, run):
        files += sorted(path for path in folder.glob("*.json*") if path.is_file())
    return files_sha256(files)


def run_state(
    request: ScoringRequest, inputs: Mapping[str, Input], needed: Sequence[str] = (), out: Path | None = None
) -> State:
    """State of the run in a folder, by default OUT, for these inputs.

    `needed` are files that a finished run has, next to its models. A run whose results or summaries are
    missing is unfinished: --resume writes them. A file that was edited, and predictions that are gone, make
    it stale.
    """
    out = out or request.out
    if not (out / RUN).is_file():
        return NEW
    run = read_run(out)
    changes = list(compare_inputs(recorded_inputs(run), inputs).changes)
    outputs = recorded_outputs(run)
    whole = [*needed, *(name for name in outputs if "/" not in name)]
    for folder in own_folders(out, run):
        whole.append(str(folder.relative_to(out) / RESULTS))
        if whole[-1] not in outputs:
            return State("unfinished", tuple(changes))
    if not outputs or not all((out / name).is_file() for name in whole):
        return State("unfinished", tuple(changes))
    changes += changed_outputs(out, outputs)
    if request.backend_kind.is_server and not request.rescore:
        changes.append(_("the model behind {url} may have changed", url=request.url))
    if changes:
        return State("stale", tuple(changes))
    return CURRENT


def steps_state(out: Path, states: Mapping[str, State]) -> State:
    """State of a folder of several runs (a suite's steps, repeated draws) by their states.

    A step that is new makes it unfinished: --resume adds it.
    """
    if not (out / RUN).is_file():
        return NEW
    run = read_run(out)
    steps = run.get("steps", [])
    changes = [_("{name} is gone", name=step) for step in steps if step not in states]
    for step, state in states.items():
        changes += [_("{step}: {change}", step=step, change=change) for change in state.changes]
    outputs = recorded_outputs(run)
    kinds = {state.kind for state in states.values()}
    if not outputs or kinds & {"new", "unfinished"} or not all((out / name).is_file() for name in outputs):
        return State("unfinished", tuple(changes))
    changes += changed_outputs(out, outputs)
    if changes:
        return State("stale", tuple(changes))
    return CURRENT


def refuse_existing(request: ScoringRequest, state: State, inputs: Mapping[str, Input] | None = None) -> None:
    """Raise `RequestError` for an OUT whose run is unfinished or stale, unless --resume or --force is given.

    The message names the changes and the fix. With `inputs` it says if --resume would add to the run.
    """
    if request.resume or request.force or state.kind not in ("unfinished", "stale"):
        return
    out = request.out
    other = _free_folder(out, request.preset or "")
    line = f"{request.command_line.text(pattern=OUT_OPTION)} --out {shell(other)}"
    way = _("--force starts it anew, and `{command}` keeps it", command=line)
    changes: list[str] = list(state.changes[:MOST_CHANGES])
    if len(state.changes) > MOST_CHANGES:
        changes.append(_("… and {number} more", number=len(state.changes) - MOST_CHANGES))
    changed = joined(changes, _("; "))
    if state.kind == "unfinished" and changes:
        raise RequestError(
            _(
                "{out}: an unfinished run of other settings ({changed}): {way}",
                out=out,
                changed=changed,
                way=way,
            )
        )
    if state.kind == "unfinished":
        raise RequestError(_("{out}: an unfinished run: --resume resumes it, {way}", out=out, way=way))
    way = _("`tuneyard eval compare {run}` compares its models, {way}", run=shell(out), way=way)
    if inputs is not None and _only_adds(recorded_inputs(read_run(out)), inputs):
        way = _("{way}; --resume adds models and datasets", way=way)
    raise RequestError(
        _("{out}: a finished run, and not current ({changes}): {way}", out=out, changes=changed, way=way)
    )


def _only_adds(recorded: Mapping[str, Input], present: Mapping[str, Input]) -> bool:
    """True if the present inputs are those of the record, and further models or datasets."""
    same = all(name in present and present[name] == value for name, value in recorded.items())
    return same and len(present) > len(recorded) > 0


def _free_folder(out: Path, word: str) -> Path:
    """A folder that does not exist yet: results/nli-document for the word "document", or results/nli-2."""
    if word and not out.name.endswith(f"-{word}"):
        folder = out.with_name(f"{out.name}-{word}")
        if not folder.exists():
            return folder
    number = 2
    while out.with_name(f"{out.name}-{number}").exists():
        number += 1
    return out.with_name(f"{out.name}-{number}")
