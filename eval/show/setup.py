"""The models (base and adapters) and datasets (examples and task) of a comparison, and the next command."""

import re
import shlex
from collections.abc import Sequence

from tuneyard.core.language.number_format import NONE, Table
from tuneyard.core.language.translation import tr
from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.judge.conclusions import Section
from tuneyard.eval.metrics.labels import short
from tuneyard.eval.read.results import part_of
from tuneyard.eval.read.scored_run import RunsByDataset, ScoredRun, models_of
from tuneyard.eval.show.places import without_places
from tuneyard.eval.show.verdict import recommended

MOST_LABELS = 6
TESTED = {
    "text": "loss of the expected answers",
    "qa": "answers to questions",
    "code": "code that passes tests",
    "tools": "tool calls",
    "preference": "preferred answers",
    "cmmlu": "multiple choice in Chinese",
    "dialogue": "conversations",
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
        base_models = option_values(run, "--model")
        base_model = tr("results {place}", place=without_places(run.source))
        if base_models:
            base_model = without_places(base_models[-1])
        adapters = []
        for place, weight in adapter_weights(run).items():
            adapter = without_places(place)
            if weight != 1:
                adapter += f" × {weight:g}"
            adapters.append(adapter)
        rows.append([model, base_model, " + ".join(adapters) or NONE])
    return Table([tr("model"), tr("base model"), tr("adapters")], rows)


def adapter_weights(run: ScoredRun) -> dict[str, float]:
    """The places of a model's adapters with their weights, without those of weight 0; {} without adapters."""
    places = {}
    for value in option_values(run, "--adapter"):
        name, equals, place = value.partition("=")
        if equals:
            places[name] = place
    weights = part_of(run.facts, "weights")
    return {places.get(name, name): weight for name, weight in weights.items() if weight}


def compared_datasets(runs: RunsByDataset, sections: Sequence[Section]) -> Table:
    """A row for each dataset: the number of its examples, and their task."""
    rows = []
    for section in sections:
        tests = _tests(next(iter(runs[section.name].values())))
        rows.append([section.name, f"{section.n:,}", tests])
    return Table([tr("dataset"), "n", tr("tests")], rows)


def _tests(run: ScoredRun) -> str:
    """Description of a dataset with its labels. Without few labels, the task that its command scores."""
    parts = []
    about = run.facts.get("about")
    if isinstance(about, str):
        parts.append(about)
    labels = sorted({short(label) for label in run.gold if label})
    words = scored_by(run)
    command = words[2] if len(words) > 2 else ""
    if 1 < len(labels) <= MOST_LABELS:
        parts.append(tr("answers {labels}", labels=tr(", ").join(labels)))
    elif command in TESTED:
        parts.append(tr(TESTED[command]))
    return tr("; ").join(parts) or NONE


def scored_by(run: ScoredRun) -> list[str]:
    """The words of the command that scored a run, [] if it is unknown."""
    try:
        return shlex.split(str(run.facts.get("command", "")))
    except ValueError:  # an open quote: no command of ours
        return []


def option_values(run: ScoredRun, option: str) -> list[str]:
    """The values of an option in the command that scored a run."""
    values = []
    words = scored_by(run)
    for place, word in enumerate(words):
        if word == option and place + 1 < len(words):
            values.append(words[place + 1])
        if word.startswith(f"{option}="):
            values.append(word.removeprefix(f"{option}="))
    return values


def next_command(compared: ComparedRuns) -> list[str]:
    """Words of the next command: merge the adapters of the best model, export its only adapter, or talk to
    the base if that is kept. There is none for results of other tools, if several datasets decide, or if no
    model is recommended.
    """
    section, *others = compared.comparison.deciding
    if others:
        return []
    best = recommended(section)
    trainings = section.figures[best].trainings if best in section.figures else ()
    runs = {run.model: run for run in compared.run_list}
    run = runs.get((trainings or [best])[0])
    if run is None or not scored_by(run):
        return []
    weights = adapter_weights(run)
    if not weights:
        models = option_values(run, "--model")[-1:]
        return ["tuneyard", "eval", "chat", *(word for model in models for word in ("--model", model))]
    name = re.sub(r"[^\w.-]+", "-", run.model)
    if list(weights.values()) == [1]:
        return ["tuneyard", "adapter", "export", *weights, "--to", "gguf", "--out", f"{name}.gguf"]
    weighted = [f"{place}={weight:g}" for place, weight in weights.items()]
    return ["tuneyard", "adapter", "merge", *weighted, "--out", f"saves/{name}"]
