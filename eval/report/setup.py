"""The models (base and adapters), datasets (examples and task), settings of a comparison; the next command.

A page may leave the machine: a path is relative to the working folder, or its last name alone.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuneyard.adapters.model.adapter import digest_in
from tuneyard.core.files import versions
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import _, joined, tr, translated_template
from tuneyard.core.language.messages import warn
from tuneyard.core.language.number_format import NONE, Table
from tuneyard.eval.figures.labels import short
from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.judge.conclusions import Section
from tuneyard.eval.runs.scored_run import RunsByDataset, ScoredRun, models_of

NAME = r"[^\s/'\",;=+]+"  # of a file or folder
MOST_NAMED = 6  # labels in one cell of a table
FIGURES = {
    "accuracy", "stderr", "ci95", "majority", "majority_label", "unparsed", "unparsed_rows", "macro_f1",
    "classes", "confusion", "metrics", "label_mass", "too_long", "refused", "format", "model", "dataset",
    "check_generate", "check_choice", "about", "tests",
}  # fmt: skip  # facts that the page's tables show, or that are not worth a line


def without_places(text: str) -> str:
    """Shorten the absolute paths in a text: below the working folder to relative paths, others to last names.

    The names of the working folder, its parents and the home folder may contain blanks.

    >>> without_places("out=/srv/jane/runs/a was scored by http://localhost:8000/v1")
    'out=a was scored by http://localhost:8000/v1'
    """
    folders = {str(folder) for folder in (*Path.cwd().parents, Path.home()) if folder != folder.parent}
    known = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True))
    absolute = rf"(?<![\w./~<-])(?:{known}|~)?/(?:{NAME}/)*(?P<last>{NAME})/?"
    return re.sub(absolute, r"\g<last>", _from_here(text))


def _from_here(text: str) -> str:
    """Write the paths below the working folder in a text from that folder on."""
    folder = Path.cwd()
    if folder == folder.parent:
        return text
    return re.sub(rf"(?<![\w./~-]){re.escape(str(folder))}/", "", text)


def argument(text: str) -> str:
    """Shorten an argument that is a path or NAME=PATH; the path may contain blanks.

    >>> argument("rte=/srv/jane/my runs/a")
    'rte=a'
    """
    name, equals, path = text.rpartition("=")
    here = _from_here(path)
    if Path(here).is_absolute():
        return f"{name}{equals}{Path(here).name}"
    return without_places(f"{name}{equals}{here}")


def command_line(text: str) -> str:
    """Shorten the paths in the arguments of a command."""
    try:
        return shlex.join(map(argument, shlex.split(text)))
    except ValueError:  # an open quote: no command of ours
        return without_places(text)


def compared_tables(compared: ComparedRuns) -> dict[str, Table]:
    """The models with their base and adapters, and the datasets, by caption."""
    return {
        tr("The models, with their base model and adapters."): compared_models(compared.runs),
        tr("The datasets, with what their examples test."): compared_datasets(
            compared.runs, compared.comparison.datasets
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
    places, weights = run.facts.get("adapters", {}), run.facts.get("weights", {})
    return {places.get(name, name): weight for name, weight in weights.items() if weight}


def compared_datasets(runs: RunsByDataset, sections: Sequence[Section]) -> Table:
    """A row for each dataset: the number of its examples, and their task.

    That is a description with the labels. Without few labels, it is what the scoring command tests.
    """
    rows = []
    for section in sections:
        run = next(iter(runs[section.name].values()))
        tests = []
        about = run.facts.get("about")
        if isinstance(about, str):
            tests.append(about)
        labels = [short(label) for label in run.labels]
        tested = run.facts.get("tests")
        if 0 < len(labels) <= MOST_NAMED:
            tests.append(tr("answers {labels}", labels=joined(labels)))
        elif isinstance(tested, str) and tested:
            tests.append(translated_template(tested))
        rows.append([section.name, f"{section.n:,}", tr("; ").join(tests) or NONE])
    return Table([tr("dataset"), "n", tr("tests")], rows)


def provenance(runs: Sequence[ScoredRun], command: str) -> Table:
    """Facts, their values, and the runs (`MODEL on DATASET`) with that value; `command` made the page."""
    runs_by_fact: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        name = tr("{model} on {dataset}", model=run.model, dataset=run.dataset)
        for key, value in {"source": run.source, **run.facts}.items():
            if key not in FIGURES:
                runs_by_fact.setdefault((key, _fact(key, value)), []).append(name)
    rows = []
    for key, value in {"command": command, "tuneyard": version(), **versions("numpy", "matplotlib")}.items():
        rows.append([key, _fact(key, value), tr("this page")])
    for (key, fact), names in sorted(runs_by_fact.items(), key=lambda item: item[0][0]):
        applies_to = tr(", ").join(names)
        if len(names) == len(runs):
            applies_to = tr("all")
        rows.append([key, fact, applies_to])
    return Table([tr("setting"), tr("value"), tr("applies to")], rows)


def _fact(key: str, value: object) -> str:
    if key == "command":
        return command_line(str(value))
    return without_places(_plain(value))


def _plain(value: object) -> str:
    """A fact for readers: an object as `name value` pairs, a text without quotes."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(part)}" for key, part in value.items()) or NONE
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def next_command(compared: ComparedRuns) -> list[str]:
    """Words of the next command: merge the adapters of the best model, export its only adapter, or talk to
    the base if that is kept.

    There is none for results of other tools, if datasets decide on different models, or if none is
    recommended. Of an adapter that was trained again since it was scored, there is a warning instead.
    """
    section = compared.comparison.deciding[0]
    best, *others = {section.conclusion.recommended for section in compared.comparison.deciding}
    if others or not best:
        return []
    first, *_unused = section.figures[best].trainings or [best]
    run = next(run for run in compared.run_list if run.model == first)
    if "base" not in run.facts:
        return []
    weights = adapter_weights(run)
    if not weights:
        return ["tuneyard", "eval", "chat", "--model", str(run.facts["base"])]
    digests = run.facts.get("hashes", {}).get("adapters", {}).values()
    for place in map(Path, weights if digests else ()):
        if digest_in(place) not in {"", *digests}:
            warn(_("{place} is not what was scored any more: score it again before you ship it", place=place))
            return []
    name = re.sub(r"[^\w.-]+", "-", run.model)
    if list(weights.values()) == [1]:
        return ["tuneyard", "adapter", "export", *weights, "--to", "gguf", "--out", f"{name}.gguf"]
    weighted = [f"{place}={weight:g}" for place, weight in weights.items()]
    return ["tuneyard", "adapter", "merge", *weighted, "--out", f"saves/{name}"]
