"""From the name of a set to what is wrong with what LLaMA-Factory makes of it: entry, rows, turns, labels."""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from tuneyard.compiler.lint.retyped import problems_of_file, text_columns
from tuneyard.compiler.publish.drift import (
    Manifest,
    changed_entry,
    changed_file,
    compile_again,
    compiled_entries,
    read_manifests,
)
from tuneyard.compiler.verify.audit import AUDIT_MESSAGES, FIRST, Audit, AuditBatch, audits, workers_for
from tuneyard.compiler.verify.expect import (
    Expected,
    ExpectedRow,
    Meaning,
    column_problems,
    entry_problems,
    meaning_of,
)
from tuneyard.compiler.verify.learned import AnswersAuditor, PretrainingAuditor
from tuneyard.compiler.verify.selection import Selection, selection_problems, split_rows
from tuneyard.compiler.verify.trained import RecipeFile, Training, training_of
from tuneyard.core.answers import MESSAGES, code_for
from tuneyard.core.datasets import (
    REGISTRY,
    Dataset,
    loaded_files,
    locate_dataset,
    read_registry,
    wrong_folder,
)
from tuneyard.core.documents import read_mapping
from tuneyard.core.errors import ContentError, Problem, ProblemsError, RequestError, nearest, show_value
from tuneyard.core.files import no_folder
from tuneyard.core.llamafactory import RecipeData, expected_errors, import_offline, quiet, read_arguments
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.core.template_fit import with_fitted_template
from tuneyard.core.timestamps import is_date_by_name
from tuneyard.core.training_stage import TRAINING_STAGES, stage_fits, stage_of_rows, stage_problem

ANSWERS = {name: stage.answers for name, stage in TRAINING_STAGES.items() if stage.answers is not None}
"""Answers of a loaded row, by stage."""
MEDIA = [f"_{kind}" for kind in PLACEHOLDERS]  # columns of loaded rows
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
FLAGS = {"model_name_or_path": "--model", "template": "--template", "cutoff_len": "--cutoff-len"}
EXAMPLE = "name the folder of a downloaded model, e.g. models/demo-base"
# What of a recipe decides how rows are read, tokenised, cut and masked.
SETTINGS = (
    "stage", "template", "media_dir", "cutoff_len", "train_on_prompt", "mask_history", "tool_format",
    "default_system",
    "enable_thinking", "preserve_thinking", "use_fast_tokenizer", "split_special_tokens", "add_tokens",
    "add_special_tokens", "resize_vocab", "packing", "preprocessing_batch_size",
    "image_max_pixels", "image_min_pixels",
    "image_do_pan_and_scan", "crop_to_patches", "video_max_pixels", "video_min_pixels", "video_fps",
    "video_maxlen", "use_audio_in_video", "audio_sampling_rate",
)  # fmt: skip
Settings = Mapping[str, object]
Records = Iterator[tuple[str, ExpectedRow | str]]
JSON = (".json", ".jsonl")


class LoaderError(Exception):
    """LLaMA-Factory's loader gave up on a dataset: its own words, the innermost that say something."""


@dataclass(slots=True)
class Verdict:
    """What is known of one dataset after verifying it; `problems` holds the first of each code.

    `why_no_answer` is what may keep the loader from reading the texts of answers.

    `is_read` is false if LLaMA-Factory cannot load the rows, so that there are no counts.

    `trained` is how many rows the recipe trains, None without a recipe. `dropped` has the numbers (from 0, in
    LLaMA-Factory's order) of loaded rows that its processor passes over.
    """

    dataset: str
    is_read: bool = True
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
    notes: list[str] = field(default_factory=list)
    trained: int | None = None
    dropped: list[int] = field(default_factory=list)
    why_no_answer: str = ""

    def note_training(self, training: Training, recipe: Path) -> None:
        """Add what a recipe trains of the dataset."""
        if training.problem:
            self.add(training.problem)
        if training.not_counted:
            self.notes.append(f"not counted: the rows that are trained ({training.not_counted})")
        self.trained = training.rows
        if training.rows is not None:
            why = f" ({'; '.join(training.steps)})" if training.steps else ""
            self.notes.append(f"{recipe} trains {training.rows} of these {self.loaded} rows{why}")

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
    nowhere = wrong_folder(out)
    if nowhere:
        raise RequestError(f"dataset {name!r} not found: {nowhere}")
    known = sorted({*sets, *registered})
    there = f"(found: {', '.join(known) or 'none'}) {nearest(name, known)}"
    raise RequestError(f"nothing called {name!r} in {out} {there}".rstrip())


def read_settings(recipe: Path | None, options: Settings) -> dict[str, object]:
    """Return a recipe's settings with the options that were given laid over them."""
    settings = read_mapping(recipe, "recipe") if recipe else {}
    return settings | {key: value for key, value in options.items() if value is not None}


def require_tokenizer(settings: Settings, options: Settings) -> None:
    """Raise `RequestError` if an option that needs a tokenizer was given and the model folder has none."""
    flags = [FLAGS[key] for key, value in options.items() if value is not None]
    model = settings.get("model_name_or_path")
    if not flags or _has_tokenizer(model):
        return
    if options.get("model_name_or_path") is not None:
        no_tokenizer = f"no tokenizer in it (expected one of {', '.join(TOKENIZERS)})"
        reason = f"{model}: {no_tokenizer}" if Path(str(model)).is_dir() else no_folder(str(model), EXAMPLE)
        raise RequestError(f"--model {reason}")
    where = "no model is named" if model is None else f"the recipe's model {model} is no model folder here"
    raise RequestError(f"{flags[0]} needs the model's tokenizer, and {where}: add --model DIR")


def _has_tokenizer(model: object) -> bool:
    return model is not None and any((Path(str(model)) / name).is_file() for name in TOKENIZERS)


def verify(
    name: str,
    out: Path,
    settings: Settings,
    recipe: RecipeFile | None = None,
    siblings: Sequence[str] = (),
) -> Verdict:
    """Verify one registered dataset; `RequestError` where LLaMA-Factory or the file is not there.

    `settings` are those of the `recipe`, if there is one, with the command's options over them. `siblings`
    are the datasets of the same compile.
    """
    dataset, manifests = locate_dataset(name, out), read_manifests(out)
    verdict = Verdict(name)
    meaning = meaning_of(dataset.entry)
    place = f"{out / REGISTRY}: {name}"
    for problem in since_compiled(dataset, out, manifests):
        verdict.add(problem)
    stage = str(settings.get("stage", _stage(dataset, manifests, meaning)))
    if not stage_fits(stage, dataset.entry):
        stage_place = recipe.place("stage") if recipe else "stage"
        verdict.add(stage_problem(stage, name, dataset.entry, stage_place))
        verdict.not_checked.append(f"what stage {stage} would learn: the data is for another stage")
        stage = stage_of_rows(dataset.entry)
    for problem in entry_problems(place, dataset.entry, meaning):
        if not (stage == "pt" and problem.code == "E402"):
            verdict.add(problem)
    unusable = list(selection_problems(place, dataset))
    for problem in unusable:
        verdict.add(problem)
    if unusable:
        verdict.not_checked.append("the rows: LLaMA-Factory cannot load them")
        verdict.is_read = False
        return verdict
    verdict.stage = stage
    for path in loaded_files(dataset.path):
        if path.suffix in JSON:
            for problem in problems_of_file(path, str(path), meaning.columns):
                verdict.add(problem)
    expected = Expected(dataset.path, meaning)
    _load_and_walk(dataset, out, expected, verdict, {**settings, "stage": stage})
    if recipe and verdict.loaded:
        training = training_of(recipe, dataset, out, verdict.loaded, verdict.dropped, siblings)
        if "E434" in verdict.counts and training.rows:
            training = Training(rows=0, steps=["the data is for another stage, E434"])
        verdict.note_training(training, recipe.path)
    for problem in [*expected.problems, *column_problems(place, meaning, expected.keys)]:
        verdict.add(problem)
    return verdict


def _load_and_walk(
    dataset: Dataset, out: Path, expected: Expected, verdict: Verdict, settings: Settings
) -> None:
    """Load the rows with LLaMA-Factory and compare them with the records; audit them if there is a model."""
    workers = workers_for(sum(path.stat().st_size for path in loaded_files(dataset.path)))
    selection = _selection(dataset, expected.meaning)
    with tempfile.TemporaryDirectory(prefix="tuneyard-verify-") as cache:
        try:
            data, rows = load(dataset.name, out, settings, cache, workers)
        except LoaderError as error:
            _without_loader(expected, verdict, error)
            return
        if selection:
            rows = rows.select(selection.in_file_order())
        verdict.loaded = len(rows)
        records = expected.records(selection)
        auditor = None
        if "E430" in verdict.counts:
            verdict.not_checked.append("what is learned: LLaMA-Factory reads times instead of texts")
        elif "E434" not in verdict.counts:
            has_tools = "tools" in expected.meaning.columns
            auditor = _auditor(data, rows, verdict, settings.get("model_name_or_path"), has_tools)
        verdict.why_no_answer = _why_no_answer(verdict, expected)
        _walk(data, rows, records, verdict, auditor)
        for problem in (_cut_problem(verdict, expected.path), _no_block_problem(verdict, expected.path)):
            if problem:
                verdict.add(problem)
        verdict.records = expected.count
        if selection:
            order = selection.in_file_order()
            verdict.dropped = [order[number] for number in verdict.dropped]
    if selection:
        verdict.notes.append(f"split: {show_value(dataset.entry['split'])} selects {verdict.loaded} rows")
    if samples := dataset.entry.get("num_samples"):
        verdict.notes.append(
            f"num_samples: each training draws {samples} of these {verdict.loaded} rows at random"
        )


def _selection(dataset: Dataset, meaning: Meaning) -> Selection | None:
    """Return what the entry's `split` selects, None if that is every row; the file is read once to count."""
    split = dataset.entry.get("split", "train")
    if split in ("train", "all"):
        return None
    everything = Expected(dataset.path, meaning)
    try:
        for _ in everything.records():
            pass
    except ProblemsError:  # the loader fails on it as well, and the caller reads it for the places
        return None
    return Selection(split_rows(split, everything.count))


def since_compiled(dataset: Dataset, out: Path, manifests: Mapping[str, Manifest]) -> Iterator[Problem]:
    """Yield how a dataset's file and entry differ from what was compiled; nothing for other datasets."""
    for folder, manifest in manifests.items():
        if dataset.path.parent == out / folder:
            problem = changed_file(dataset.path, manifest)
            if problem:
                yield problem
        compiled = compiled_entries(folder, manifest).get(dataset.name)
        if compiled:
            hint = compile_again(folder, manifest)
            yield from changed_entry(str(out / REGISTRY), dataset.name, dataset.entry, compiled, hint)


def _stage(dataset: Dataset, manifests: Mapping[str, Manifest], meaning: Meaning) -> str:
    """Return the stage unless a recipe has one; pt is for our texts, and for one column called text."""
    ours = any(dataset.name in compiled_entries(folder, made) for folder, made in manifests.items())
    text = meaning.text_only and (ours or list(meaning.columns.values()) == ["text"])
    return "pt" if text else stage_of_rows(dataset.entry)


def load(name: str, folder: Path, settings: Settings, cache: str, workers: int) -> tuple[RecipeData, Any]:
    """Return LLaMA-Factory's arguments, and the rows of a dataset as its loader has them, or `LoaderError`.

    `settings` are a recipe's keys, of which only `SETTINGS` and the model's folder count.
    """
    import_offline()
    asked = {key: settings[key] for key in SETTINGS if key in settings}
    asked |= {
        "model_name_or_path": str(settings.get("model_name_or_path", "none")),
        "dataset_dir": str(folder),
        "dataset": name,
        "cache_dir": cache,
        "do_train": True,
        "finetuning_type": "lora",
        "overwrite_cache": True,
    }
    with quiet():
        try:
            data = read_arguments(asked, preprocessing_num_workers=workers if workers > 1 else None)
        except expected_errors() as error:
            raise ContentError(f"LLaMA-Factory refuses the settings: {error}") from error
        try:
            return data, data.rows(name, num_samples=None)
        except expected_errors() as error:
            cause = error.__cause__  # of a forked process it is a whole traceback in one text
            inner = cause if isinstance(cause, expected_errors()) else error
            said = (str(inner).strip() or repr(inner)).splitlines()[0]
            raise LoaderError(f"{type(inner).__name__}: {said[:200]}") from error


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


def _walk(
    data: RecipeData, rows: Any, records: Records, verdict: Verdict, auditor: AuditBatch | None
) -> None:
    """Compare the loaded rows with the file's records, while workers audit what they teach."""
    starts = range(0, len(rows), data.data_args.preprocessing_batch_size)
    if auditor is None:
        _compare_all(rows, starts, records, verdict)
        return
    verdict.audit = audit = Audit()
    with audits(auditor, rows, starts, data.data_args.preprocessing_num_workers or 1) as found:
        places = _compare_all(rows, starts, records, verdict)
        with _bar(f"auditing {verdict.dataset}", rows) as bar:
            for one in found:
                audit.add(one)
                bar.update(one.rows)
    for code, message in AUDIT_MESSAGES.items():
        count = audit.counts[code]
        graded = code_for(code, count, audit.rows) if code in MESSAGES else code
        for row in audit.places.get(code, ()):
            verdict.add(Problem(graded, places[row], message), 0)
        if count:
            verdict.counts[graded] = count


def _cut_problem(verdict: Verdict, path: Path) -> Problem | None:
    """E353 if cutoff_len cuts every row; packed pretraining text flows on in the next block."""
    audit = verdict.audit
    if not audit or not audit.lengths or (verdict.stage == "pt" and verdict.packing):
        return None
    if min(audit.lengths) <= verdict.cutoff:
        return None
    longest = max(audit.lengths)
    message = f"cuts all {audit.rows} rows; the longest has {longest} tokens"
    return Problem("E353", str(path), message, "cutoff_len", f"cutoff_len: {longest} keeps them whole")


def _no_block_problem(verdict: Verdict, path: Path) -> Problem | None:
    """E411 if packing fills no block: LLaMA-Factory stops with "Cannot find sufficient samples"."""
    audit = verdict.audit
    if not audit or not audit.rows or verdict.stage != "pt" or not verdict.packing or audit.blocks:
        return None
    tokens = sum(length * rows for length, rows in audit.lengths.items())
    message = (
        f"no block of {verdict.cutoff} tokens is full: all {tokens} tokens are left over, none is trained"
    )
    return Problem("E411", str(path), message, "cutoff_len", "lower it, or write `packing: false`")


def _auditor(
    data: RecipeData, rows: Any, verdict: Verdict, model: object, has_tools: bool
) -> AuditBatch | None:
    """Return what audits batches, or None where no tokenizer is at hand or the stage is another."""
    if verdict.stage not in ANSWERS:
        verdict.not_checked.append(f"what stage {verdict.stage} learns (known: {', '.join(ANSWERS)})")
        return None
    if not _has_tokenizer(model):
        why = "no recipe and no model were given" if model is None else f"{model} is no model folder here"
        what = f"what is learned, token lengths ({why})"
        verdict.not_checked.append(f"{what}; give a model folder with --model DIR")
        return None
    try:
        with quiet():
            data, template = with_fitted_template(data, has_tools)
    except expected_errors() as error:
        message = f"{Path(str(model))}: LLaMA-Factory cannot use this tokenizer or template: {error}"
        raise RequestError(message) from error
    for finding in template:
        verdict.add(Problem(finding.code, str(model), finding.message, "template", finding.hint))
    verdict.cutoff, verdict.packing = data.data_args.cutoff_len, bool(data.data_args.packing)
    if verdict.stage == "pt":
        return PretrainingAuditor(data).audit
    if all(getattr(rows.features[name], "dtype", "") == "null" for name in MEDIA):
        data.module["processor"] = None
    elif data.module["processor"] is None:
        verdict.not_checked.append(f"what is learned of rows with media: {model} has no processor for them")
        return None
    return AnswersAuditor(data, len(rows)).audit


def _bar(what: str, rows: Any) -> Any:
    from tqdm import tqdm

    return tqdm(total=len(rows), desc=what, unit="row", unit_scale=True, delay=2, file=sys.stderr)


def _compare_all(loaded: Any, starts: range, ours: Records, verdict: Verdict) -> list[str]:
    """Compare every row with its record; returns the places of the records."""
    places: list[str] = []
    columns = loaded.select_columns(["_prompt", "_response", "_system", "_tools", *MEDIA])
    with _bar(f"comparing {verdict.dataset}", loaded) as bar:
        for start in starts:
            rows = columns[start : start + starts.step]
            records = list(islice(ours, len(rows["_prompt"])))
            places += [place for place, _ in records]
            for number, (place, talk) in enumerate(records):
                _compare(place, talk, rows, number, verdict)
                if _is_dropped(rows, number, verdict.stage):
                    verdict.dropped.append(start + number)
            verdict.records += len(records)
            bar.update(len(rows["_prompt"]))
    for place, _ in ours:
        verdict.records += 1
        verdict.add(Problem("E406", place, "the loader leaves this record out"))
    if verdict.loaded > verdict.records:
        message = f"{verdict.loaded} rows from {verdict.records} records: rows were made up"
        verdict.add(Problem("E407", verdict.dataset, message))
    return places


def _why_no_answer(verdict: Verdict, expected: Expected) -> str:
    """Return what makes the loader read something else than the text of an answer, "" if nothing is known."""
    retyped = [problem.field for problem in verdict.problems if problem.code == "E430"]
    if retyped:
        return f"it reads {show_value(retyped[0])} as a time (E430)"
    suffixes = {path.suffix for path in loaded_files(expected.path)}
    if ".csv" in suffixes:
        return "of a .csv it reads numbers as numbers, and an empty field or NA as nothing; write .jsonl"
    dates = [column for column in text_columns(expected.meaning.columns) if is_date_by_name(column)]
    if dates and ".json" in suffixes:
        return f"it may read {show_value(dates[0])} as a time, by the column's name: rename the column"
    return ""


def _is_dropped(rows: Mapping[str, Any], number: int, stage: str) -> bool:
    """Whether LLaMA-Factory's processor passes over a loaded row: it is not a question with its answers."""
    answers = ANSWERS.get(stage)
    if not answers:
        return False
    return len(rows["_prompt"][number]) % 2 != 1 or len(rows["_response"][number]) != answers


def _compare(
    place: str, talk: ExpectedRow | str, rows: Mapping[str, Any], number: int, verdict: Verdict
) -> None:
    """One record against the loader's row: is it there, with the same turns, system, tools?"""
    prompt, answer = rows["_prompt"][number], rows["_response"][number]
    if isinstance(talk, str) or _is_dropped(rows, number, verdict.stage):
        why = talk if isinstance(talk, str) else "LLaMA-Factory finds no answer in it"
        if verdict.why_no_answer and not isinstance(talk, str):
            why = f"{why}: {verdict.why_no_answer}"
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
