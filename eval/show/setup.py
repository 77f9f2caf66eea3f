"""The models (base and adapters) and datasets (examples and task) of a comparison, and the next command."""

import re
from collections.abc import Sequence
from pathlib import Path

from tuneyard.adapters.adapter import digest_in
from tuneyard.core.language.messages import for_reader, warn
from tuneyard.core.language.number_format import NONE, Table
from tuneyard.core.language.translation import tr
from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.judge.conclusions import Section
from tuneyard.eval.metrics.labels import short
from tuneyard.eval.read.results import part_of
from tuneyard.eval.read.scored_run import RunsByDataset, ScoredRun, models_of
from tuneyard.eval.show.places import without_places

MOST_LABELS = 6
TESTED = {
    "eval.text": "loss of the expected answers",
    "eval.qa": "answers to questions",
    "eval.code": "code that passes tests",
    "eval.tools": "tool calls",
    "eval.preference": "preferred answers",
    "eval.cmmlu": "multiple choice in Chinese",
    "eval.dialogue": "conversations",
}
"""What the examples of a scoring command test, if their answers are no labels."""


def compared_tables(compared: ComparedRuns) -> dict[str, Table]:
    """The models with their base and adapters, and the datasets, by caption."""
    return {
        tr("The models, with their base model and adapters."): compared_models(compared.runs),
        tr("The datasets, with what their examples test."): compared_datasets(
            compared.runs, compared.comparison.sets
        ),
    }


def compared_models(runs: RunsByDataset) -> Table:
    """A row for each model: its base model by name, and its adapters with weights and places.

    Results of another tool record neither: the row then has the place of the results.
    """
    rows = []
    for model in models_of(runs):
        run = next(by_model[model] for by_model in runs.values() if model in by_model)
        base_model = tr("results {place}", place=without_places(run.source))
        if "base" in run.facts:
            base_model = without_places(str(run.facts["base"]))
        adapters = []
        for place, weight in adapter_weights(run).items():
            adapter = without_places(place)
            if weight != 1:
                adapter += f" × {weight:g}"
            adapters.append(adapter)
        rows.append([model, base_model, " + ".join(adapters) or NONE])
    return Table([tr("model"), tr("base model"), tr("adapters")], rows)


def adapter_weights(run: ScoredRun) -> dict[str, float]:
    """The places of a model's adapters with their weights, without those of weight 0; {} without adapters.

    Older results have no places: there an adapter is named.
    """
    places, weights = part_of(run.facts, "adapters"), part_of(run.facts, "weights")
    return {places.get(name, name): weight for name, weight in weights.items() if weight}


def compared_datasets(runs: RunsByDataset, sections: Sequence[Section]) -> Table:
    """A row for each dataset: the number of its examples, and their task.

    That is a description with the labels. Without few labels, it is the task that the command scores.
    """
    rows = []
    for section in sections:
        run = next(iter(runs[section.name].values()))
        tests = []
        about = run.facts.get("about")
        if isinstance(about, str):
            tests.append(for_reader(about))
        labels = sorted({short(label) for label in run.gold if label})
        command = part_of(run.facts, "settings").get("command")
        if 1 < len(labels) <= MOST_LABELS:
            tests.append(tr("answers {labels}", labels=tr(", ").join(labels)))
        elif command in TESTED:
            tests.append(tr(TESTED[command]))
        rows.append([section.name, f"{section.n:,}", tr("; ").join(tests) or NONE])
    return Table([tr("dataset"), "n", tr("tests")], rows)


def next_command(compared: ComparedRuns) -> list[str]:
    """Words of the next command: merge the adapters of the best model, export its only adapter, or talk to
    the base if that is kept.

    There is none for results of other tools, if datasets decide on different models, or if none is
    recommended. Of an adapter that was trained again since it was scored, there is a warning instead.
    """
    section = compared.comparison.deciding[0]
    best, *others = {section.recommended for section in compared.comparison.deciding}
    if others or not best:
        return []
    first, *_ = section.figures[best].trainings or [best]
    run = next(run for run in compared.run_list if run.model == first)
    if "base" not in run.facts:
        return []
    weights = adapter_weights(run)
    if not weights:
        return ["tuneyard", "eval", "chat", "--model", str(run.facts["base"])]
    digests = part_of(part_of(run.facts, "hashes"), "adapters").values()
    for place in map(Path, weights if digests else ()):
        if digest_in(place) not in {"", *digests}:
            changed = "{place} is not what was scored any more: score it again before you ship it"
            warn(tr(changed, place=place))
            return []
    name = re.sub(r"[^\w.-]+", "-", run.model)
    if list(weights.values()) == [1]:
        return ["tuneyard", "adapter", "export", *weights, "--to", "gguf", "--out", f"{name}.gguf"]
    weighted = [f"{place}={weight:g}" for place, weight in weights.items()]
    return ["tuneyard", "adapter", "merge", *weighted, "--out", f"saves/{name}"]
