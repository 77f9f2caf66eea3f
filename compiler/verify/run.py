"""From the name of a set to what is wrong with what LLaMA-Factory makes of it: entry, rows, turns, labels."""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from compiler.kinds import PLACEHOLDERS
from compiler.registry import read_manifests
from compiler.verify.audit import FIRST, KINDS, Audit, AuditBatch, audits, workers_for
from compiler.verify.entry import Meaning, column_problems, entry_problems, meaning_of
from compiler.verify.expect import Expected, ExpectedRow
from compiler.verify.learned import AnswersAuditor, PretrainingAuditor
from compiler.verify.load import Loaded, LoaderError, load, tools_of
from core.datasets import REGISTRY, find_dataset, read_registry
from core.documents import read_mapping
from core.errors import Problem, ProblemsError, RequestError, nearest, show_value

ANSWERS = {"sft": 1, "pt": 0, "rm": 2, "dpo": 2, "kto": 2}  # of a loaded row, by stage
MEDIA = [f"_{kind}" for kind in PLACEHOLDERS]  # columns of loaded rows
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
Settings = Mapping[str, object]


@dataclass(slots=True)
class Verdict:
    """What is known of one dataset after verifying it; `problems` holds the first of each code."""

    dataset: str
    records: int = 0
    loaded: int = 0
    same: int = 0
    stage: str = "sft"
    problems: list[Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    audit: Audit | None = None
    cutoff: int = 0
    packing: bool = False
    not_checked: list[str] = field(default_factory=list)

    def add(self, problem: Problem, count: int = 1) -> None:
        """Count a finding; keep it while there are few of its code."""
        self.counts[problem.code] = self.counts.get(problem.code, 0) + count
        if sum(kept.code == problem.code for kept in self.problems) < FIRST:
            self.problems.append(problem)

    @property
    def failed(self) -> bool:
        """Whether rows are lost or something else is wrong."""
        return any(code.startswith("E") for code in self.counts)


def datasets_of(name: str, out: Path) -> list[str]:
    """Return the datasets that one compile wrote, or the one registered dataset of that name."""
    sets = read_manifests(out)
    if name in sets:
        found = list(sets[name].get("entries", {}))
        if not found:
            why = "no output of this dataset is registered: LLaMA-Factory reads none of it"
            raise RequestError(f"{name}: {why}")
        return found
    registered = read_registry(out)
    if name in registered:
        return [name]
    known = sorted({*sets, *registered})
    there = f"(found: {', '.join(known) or 'none'}) {nearest(name, known)}"
    raise RequestError(f"nothing called {name!r} in {out} {there}".rstrip())


def read_settings(recipe: Path | None, options: Settings) -> dict[str, object]:
    """Return a recipe's settings with the options that were given laid over them."""
    settings = read_mapping(recipe, "recipe") if recipe else {}
    return settings | {key: value for key, value in options.items() if value is not None}


def verify(name: str, out: Path, settings: Settings) -> Verdict:
    """Verify one registered dataset; `RequestError` where LLaMA-Factory or the file is not there."""
    dataset = find_dataset(name, out)
    verdict = Verdict(name)
    meaning = meaning_of(dataset.entry)
    place = f"{out / REGISTRY}: {name}"
    settings = {"stage": _stage(name, out, dataset.entry, meaning), **settings}
    for problem in entry_problems(place, dataset.entry, meaning):
        if not (settings["stage"] == "pt" and problem.code == "E402"):
            verdict.add(problem)
    expected = Expected(dataset.path, meaning)
    workers = workers_for(dataset.path.stat().st_size)
    with tempfile.TemporaryDirectory(prefix="tuneyard-verify-") as cache:
        try:
            loaded = load(name, out, settings, Path(cache), workers)
        except LoaderError as error:
            _without_loader(expected, verdict, error)
        else:
            verdict.stage, verdict.loaded = loaded.stage, len(loaded.rows)
            _walk(loaded, expected, verdict, settings, workers)
    for problem in [*expected.problems, *column_problems(place, meaning, expected.keys)]:
        verdict.add(problem)
    return verdict


def _stage(name: str, out: Path, entry: Mapping[str, object], meaning: Meaning) -> str:
    """Return the stage unless a recipe has one: rm for pairs, kto for marks, pt for texts without answers.

    Those are ours, and entries of which the one column is called text, as LLaMA-Factory's own are.
    """
    ours = any(made.get("entries", {}).get(name) == entry for made in read_manifests(out).values())
    text = meaning.text_only and (ours or list(meaning.columns.values()) == ["text"])
    return "pt" if text else meaning.stage


def _without_loader(expected: Expected, verdict: Verdict, error: LoaderError) -> None:
    """Its loader gave up: say so with its own words, and read the file ourselves for the places."""
    try:
        for place, talk in expected.records():
            verdict.records += 1
            if isinstance(talk, str):
                verdict.add(Problem("E406", place, talk))
    except ProblemsError as found:
        for problem in found.problems:
            verdict.add(problem)
    verdict.add(Problem("E405", str(expected.path), f"LLaMA-Factory cannot load it: {error}"))


def _walk(loaded: Loaded, expected: Expected, verdict: Verdict, settings: Settings, workers: int) -> None:
    """Compare the loaded rows with the file's records, while workers audit what they teach."""
    starts = range(0, len(loaded.rows), loaded.data_args.preprocessing_batch_size)
    auditor = _auditor(loaded, verdict, settings)
    if auditor is None:
        _compare_all(loaded, starts, expected, verdict)
        return
    verdict.audit = audit = Audit()
    with audits(auditor, loaded.rows, starts, workers) as found:
        places = _compare_all(loaded, starts, expected, verdict)
        with _bar(f"auditing {verdict.dataset}", loaded) as bar:
            for one in found:
                audit.add(one)
                bar.update(one.rows)
    for code in KINDS:
        for row in audit.places.get(code, ()):
            verdict.add(Problem(code, places[row], KINDS[code]), 0)
        if audit.counts[code]:
            verdict.counts[code] = audit.counts[code]


def _auditor(loaded: Loaded, verdict: Verdict, settings: Settings) -> AuditBatch | None:
    """Return what audits batches, or None where no tokenizer is at hand or the stage is another."""
    model = settings.get("model_name_or_path")
    folder = Path(str(model))
    if loaded.stage not in ANSWERS:
        verdict.not_checked.append(f"what stage {loaded.stage} learns (known: {', '.join(ANSWERS)})")
        return None
    if model is None or not any((folder / name).is_file() for name in TOKENIZERS):
        why = "no recipe and no model were given" if model is None else f"{model} is no model folder here"
        what = f"what is learned, token lengths ({why})"
        verdict.not_checked.append(f"{what}; give a model folder with --model DIR")
        return None
    tokenizer, template, processor = tools_of(loaded, folder)
    verdict.cutoff, verdict.packing = loaded.data_args.cutoff_len, bool(loaded.data_args.packing)
    if loaded.stage == "pt":
        return PretrainingAuditor(loaded, tokenizer, template).audit
    if all(getattr(loaded.rows.features[name], "dtype", "") == "null" for name in MEDIA):
        return AnswersAuditor(loaded, tokenizer, template).audit
    if processor is None:
        verdict.not_checked.append(f"what is learned of rows with media: {model} has no processor for them")
        return None
    return AnswersAuditor(loaded, tokenizer, template, processor).audit


def _bar(what: str, loaded: Loaded) -> Any:
    from tqdm import tqdm

    return tqdm(total=len(loaded.rows), desc=what, unit="row", unit_scale=True, delay=2, file=sys.stderr)


def _compare_all(loaded: Loaded, starts: range, expected: Expected, verdict: Verdict) -> list[str]:
    """Compare every row with its record; returns the places of the records."""
    places: list[str] = []
    ours = expected.records()
    columns = loaded.rows.select_columns(["_prompt", "_response", "_system", "_tools", *MEDIA])
    with _bar(f"comparing {verdict.dataset}", loaded) as bar:
        for start in starts:
            rows = columns[start : start + starts.step]
            records = list(islice(ours, len(rows["_prompt"])))
            places += [place for place, _ in records]
            for number, (place, talk) in enumerate(records):
                _compare(place, talk, rows, number, verdict, loaded.stage)
            verdict.records += len(records)
            bar.update(len(rows["_prompt"]))
    for place, _ in ours:
        verdict.records += 1
        verdict.add(Problem("E406", place, "the loader leaves this record out"))
    if verdict.loaded > verdict.records:
        message = f"{verdict.loaded} rows from {verdict.records} records: rows were made up"
        verdict.add(Problem("E407", str(expected.path), message))
    return places


def _compare(
    place: str, talk: ExpectedRow | str, rows: Mapping[str, Any], number: int, verdict: Verdict, stage: str
) -> None:
    """One record against the loader's row: is it there, with the same turns, system, tools?"""
    prompt, answer = rows["_prompt"][number], rows["_response"][number]
    answers = ANSWERS.get(stage)
    if isinstance(talk, str) or (answers and (len(prompt) % 2 != 1 or len(answer) != answers)):
        why = talk if isinstance(talk, str) else "LLaMA-Factory finds no answer in it"
        verdict.add(Problem("E406", place, why))
        return
    turns = [(turn["role"], turn["content"]) for turn in prompt + answer]
    found = [path for name in MEDIA for path in rows[name][number] or ()]
    pairs = zip_longest(found, talk.media, fillvalue="")
    named = tuple(ours if ours and path.endswith(ours) else path for path, ours in pairs)
    theirs = ExpectedRow(turns, rows["_system"][number] or "", rows["_tools"][number] or "", named)
    if theirs == talk:
        verdict.same += 1
        if lost := [path for path in found if not Path(path).is_file()]:
            message = f"LLaMA-Factory does not find {lost[0]}: a recipe names the folder as media_dir"
            verdict.add(Problem("E408", place, message))
        return
    beside = [(talk.system, theirs.system), (talk.tools, theirs.tools), *zip_longest(talk.media, named)]
    wrong = next((ours, other) for ours, other in [*zip_longest(talk.turns, turns), *beside] if ours != other)
    message = f"the file has {show_value(wrong[0])}, LLaMA-Factory reads {show_value(wrong[1])}"
    verdict.add(Problem("E407", place, message))
