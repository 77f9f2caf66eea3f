"""Verify a dataset: compare its entry and the loader's rows with the file, and audit the labels."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.publish.drift import since_compiled
from tuneyard.compiler.verify.audit import (
    AUDIT_MESSAGES,
    NOTHING_LEARNED,
    SEVERAL_PAY,
    UNPROCESSABLE_MEDIA,
    Audit,
    AuditBatch,
    audited,
)
from tuneyard.compiler.verify.comparison import (
    ANSWERS_PER_ROW,
    DROPPED_RECORD,
    RecordComparison,
    row_bar,
)
from tuneyard.compiler.verify.expect import MISSING_PART, Expected, Records, column_problems, entry_problems
from tuneyard.compiler.verify.learned import AnswersAuditor, PretrainingAuditor
from tuneyard.compiler.verify.recipe_file import RecipeFile, Settings, read_settings, recipe_problem
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.core.datasets import (
    DEFAULT_FOLDER,
    REGISTRY,
    Dataset,
    find_dataset,
    not_registered,
    read_registry,
)
from tuneyard.core.datasets.compiled import manifest_beside, read_manifests
from tuneyard.core.datasets.split import UNLOADABLE_FILE, rows_of_split, split_problem
from tuneyard.core.documents import is_number
from tuneyard.core.errors import ContentError, Problem, ProblemsError, RequestError, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.execution.options import default_workers
from tuneyard.core.files import no_folder
from tuneyard.core.files.scratch import scratch_folder
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.loader import (
    NEEDS_CODE,
    RecipeData,
    RetypedColumnError,
    expected_errors,
    import_offline,
    needs_code,
    quiet,
    read_arguments,
)
from tuneyard.core.llamafactory.problem_codes import ALL_ROWS_CUT
from tuneyard.core.llamafactory.prompt import template_named
from tuneyard.core.llamafactory.prompt.history_findings import history_findings
from tuneyard.core.llamafactory.prompt.template_match import with_matching_template
from tuneyard.core.llamafactory.stages import UNFIT_STAGE, rows_of, stage_fits, stage_problem
from tuneyard.core.records import PLACEHOLDERS, RecordFormat, format_of_entry
from tuneyard.core.records.answers import MESSAGES, code_for

READ_AS_TIMES = ProblemCode(
    "E430",
    _("texts that the loader reads as times"),
    _("Write the file as a .json list."),
    _("A column of dates, or one named `date` or `created_at`."),
)


MEDIA = [f"_{kind}" for kind in PLACEHOLDERS]  # columns of loaded rows
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
FLAGS = {"model_name_or_path": "--model", "template": "--template", "cutoff_len": "--cutoff-len"}
NO_ANSWER_IN_CSV = _(
    "LLaMA-Factory finds no answer in it: of a .csv it reads numbers as numbers, and an empty "
    "field or NA as nothing; write .jsonl"
)
EXAMPLE = _("name the folder of a downloaded model, e.g. models/demo-base")
# The keys of a recipe that decide how rows are read, tokenised, cut and masked.
SETTINGS = (
    "stage", "template", "media_dir", "cutoff_len", "train_on_prompt", "mask_history", "tool_format",
    "default_system",
    "enable_thinking", "preserve_thinking", "use_fast_tokenizer", "split_special_tokens", "add_tokens",
    "add_special_tokens", "resize_vocab", "packing", "preprocessing_batch_size",
    "image_max_pixels", "image_min_pixels",
    "image_do_pan_and_scan", "crop_to_patches", "video_max_pixels", "video_min_pixels", "video_fps",
    "video_maxlen", "use_audio_in_video", "audio_sampling_rate",
)  # fmt: skip


class LoadedRows(NamedTuple):
    """Rows of a dataset as LLaMA-Factory loaded them, in the order of the file.

    `data` has the template and the tokenizer if `audit` is not None.
    """

    data: RecipeData
    rows: Any
    audit: AuditBatch | None


@dataclass
class LoadedDataset:
    """A registered dataset and what LLaMA-Factory's loader made of its file.

    `rows` is None if it cannot load the file; `loader_problem` then says where it stopped.
    """

    dataset: Dataset
    folder: Path
    recipe: RecipeFile | None
    verdict: Verdict
    expected: Expected
    workers: int
    rows: LoadedRows | None = None
    loader_problem: Problem | None = None

    def compare(self, records: Records) -> None:
        """Compare LLaMA-Factory's rows with the `records` of the file, and audit them if there is a model."""
        if self.rows:
            self._compare_rows(self.rows, records)
        elif self.loader_problem:
            self._find_lost(records)
            self.verdict.add(self.loader_problem)

    def finish(self, siblings: Sequence[str] = ()) -> Verdict:
        """The verdict. `siblings` are datasets of the same compile, of which the recipe may train another."""
        verdict, expected = self.verdict, self.expected
        changes = since_compiled(self.dataset, self.folder, read_manifests(self.folder))
        verdict.is_compiled = changes is not None
        location = f"{self.folder / REGISTRY}: {self.dataset.name}"
        has_calls = expected.unread_keys.has_calls
        of_entry = [*entry_problems(location, self.dataset.entry, expected.format, has_calls=has_calls)]
        if verdict.stage == "pt":
            of_entry = [problem for problem in of_entry if problem.code != MISSING_PART]
        verdict.lead([*(changes or ()), *of_entry, *self._split_problems(location)])
        verdict.unread_turn_keys = expected.unread_keys.neutral
        verdict.notes += Unused(expected.unread_keys.neutral).lines(expected.count)
        verdict.trained = self._trained_rows()
        if self.recipe:
            recipe_finding = recipe_problem(self.recipe, self.dataset.name, self.folder, siblings)
            if recipe_finding:
                verdict.add(recipe_finding)
        for problem, row in expected.problems:
            verdict.add(problem, row)
        for problem in column_problems(location, expected.format, expected.keys, expected.fix):
            verdict.add(problem)
        return verdict

    def _trained_rows(self) -> int | None:
        """How many rows a training draws: a part by `split`, so many by `num_samples`. None if it stops."""
        rows = rows_of_split(self.dataset.entry, self.expected.count)
        sampled = self.dataset.entry.get("num_samples")
        if rows and is_number(sampled):
            return int(sampled)
        return rows

    def _split_problems(self, location: str) -> Iterator[Problem]:
        """E405 for a `split` at which LLaMA-Factory stops: of another name, or of no record."""
        entry, records = self.dataset.entry, self.expected.count
        problem = split_problem(location, entry)
        if problem:
            yield problem
        elif records and not rows_of_split(entry, records):
            message = _(
                "found {split}, which takes none of the {records} records",
                split=show_value(entry["split"]),
                records=records,
            )
            yield Problem(UNLOADABLE_FILE, location, message, "split", _("take it out"))

    def _compare_rows(self, loaded: LoadedRows, records: Records) -> None:
        verdict = self.verdict
        if self.dataset.path.suffix == ".csv":
            verdict.no_answer = NO_ANSWER_IN_CSV
        starts = range(0, len(loaded.rows), loaded.data.data_args.preprocessing_batch_size)
        comparison = RecordComparison(loaded.rows, records, verdict)
        audit = Audit()
        action = "comparing"
        if loaded.audit:
            action = "auditing"
        batches = audited(verdict.dataset, loaded.audit, loaded.rows, starts, self.workers)
        with closing(batches), row_bar(f"{action} {verdict.dataset}", loaded.rows) as bar:
            for start, of_batch in zip(starts, batches, strict=True):
                if of_batch:
                    audit.add(of_batch)
                bar.update(comparison.add(start, starts.step))
        comparison.end()
        if loaded.audit:
            verdict.audit = audit
            for code, message in AUDIT_MESSAGES.items():
                rows = audit.findings.get(code, ())
                graded = code_for(code, len(rows), audit.rows) if code in MESSAGES else code
                for row in rows:
                    verdict.add(Problem(graded, comparison.locations[row], message), row)
            for problem in _lost_texts(verdict, audit, self.dataset.path):
                verdict.add(problem)

    def _find_lost(self, records: Records) -> None:
        """Read a file that LLaMA-Factory cannot load, for the locations of its lost records."""
        verdict = self.verdict
        try:
            for row, (location, _unused, example) in enumerate(records):
                verdict.records += 1
                if isinstance(example, str):
                    verdict.add(Problem(DROPPED_RECORD, location, example), row=row)
        except ProblemsError as error:
            for problem in error.problems:
                verdict.add(problem)


def datasets_of(name: str, out: Path) -> list[str]:
    """The datasets that one compile wrote, or the one registered dataset of that name."""
    manifests = read_manifests(out)
    if name in manifests:
        names = list(manifests[name].entries)
        if not names:
            raise RequestError(
                _(
                    "{name}: no output of this dataset is registered: LLaMA-Factory reads none of it",
                    name=name,
                )
            )
        return names
    registered = read_registry(out)
    if name in registered:
        return [name]
    raise not_registered(name, out, {*manifests, *registered})


def require_tokenizer(settings: Settings, options: Settings) -> None:
    """Raise `RequestError` if an option that needs a tokenizer was given and the model folder has none."""
    flags = [FLAGS[key] for key, value in options.items() if value is not None]
    model = settings.get("model_name_or_path")
    if not flags or has_tokenizer(model):
        return
    if options.get("model_name_or_path") is not None:
        reason = no_folder(str(model), EXAMPLE)
        if Path(str(model)).is_dir():
            reason = _(
                "{path}: no tokenizer in it (expected one of {names})",
                path=model,
                names=", ".join(TOKENIZERS),
            )
        raise RequestError(_("--model {reason}", reason=reason))
    raise RequestError(
        _(
            "{name} needs the model's tokenizer, and {reason}: add --model DIR",
            name=flags[0],
            reason=why_no_tokenizer(model),
        )
    )


def why_no_tokenizer(model: object) -> str:
    """Why there is no tokenizer, for a recipe's model or None."""
    return _("no model is named") if model is None else _("{path} is no model folder here", path=model)


def has_tokenizer(model: object) -> bool:
    """True if a model folder here has a tokenizer. Its weights are not needed."""
    return model is not None and any((Path(str(model)) / name).is_file() for name in TOKENIZERS)


class VerifyRequest(NamedTuple):
    """What a user asks `data verify` for.

    - `name`: a compiled dataset, of which all splits are verified, or one registered dataset.
    - `model`, `template`, `cutoff_len`: None if the user gave none. They replace those of the recipe.
    """

    name: str
    folder: Path = DEFAULT_FOLDER
    recipe: Path | None = None
    model: str | None = None
    template: str | None = None
    cutoff_len: int | None = None
    workers: int | None = None


def verify_datasets(request: VerifyRequest) -> Iterator[Verdict]:
    """Verify the datasets of a request, and yield the verdict of each.

    `RequestError` for a model or an option that cannot be used, and at the end if no dataset has an error and
    one could not be checked with the model that the user gave.
    """
    options = {
        "model_name_or_path": request.model,
        "template": request.template,
        "cutoff_len": request.cutoff_len,
    }
    settings, recipe = read_settings(request.recipe, options)
    require_tokenizer(settings, options)
    names = datasets_of(request.name, request.folder)
    has_failed = False
    reasons: list[str] = []
    for name in names:
        verdict = verify(name, request.folder, settings, recipe, names, request.workers)
        yield verdict
        has_failed |= verdict.failed
        reasons += verdict.not_checked
    if request.model is not None and reasons and not has_failed:
        raise RequestError(
            _("--model {model}: not checked with it: {reason}", model=request.model, reason=reasons[0])
        )


def verify(
    name: str,
    out: Path,
    settings: Settings,
    recipe: RecipeFile | None = None,
    siblings: Sequence[str] = (),
    workers: int | None = None,
) -> Verdict:
    """Verify one registered dataset. `RequestError` if LLaMA-Factory or the file is missing.

    `settings` come from the `recipe`, if there is one, and the command's options override them. Without a
    recipe media are below the folder of the compile, which `recipe new` takes. `siblings` are the datasets of
    the same compile. So many `workers` load and audit the rows.
    """
    with loaded(name, out, settings, recipe, workers) as dataset:
        dataset.compare(dataset.expected.records())
    return dataset.finish(siblings)


@contextmanager
def loaded(
    name: str,
    out: Path,
    settings: Settings,
    recipe: RecipeFile | None,
    workers: int | None = None,
) -> Iterator[LoadedDataset]:
    """Load a registered dataset with LLaMA-Factory. Its rows exist inside the block.

    The verdict has the problems of the template. `RequestError` if the file is missing, or
    if LLaMA-Factory cannot use the model folder or the template.
    """
    dataset = find_dataset(name, out, lenient=True)
    verdict = Verdict(name)
    record_format = format_of_entry(dataset.entry)
    stage = str(settings.get("stage", _stage(dataset, record_format)))
    if not stage_fits(stage, dataset.entry):
        stage_location = recipe.location("stage") if recipe else "stage"
        verdict.add(stage_problem(stage, name, dataset.entry, stage_location))
        verdict.not_checked.append(
            _("what stage {stage} would learn: the data is for another stage", stage=stage)
        )
        stage = rows_of(dataset.entry).stage
    verdict.stage = stage
    workers = workers or default_workers(dataset.path.stat().st_size, SEVERAL_PAY)
    expected = Expected(dataset.path, record_format, bool(settings.get("mask_history")))
    result = LoadedDataset(dataset, out, recipe, verdict, expected, workers)
    settings = {**settings, "stage": stage}
    compiled = manifest_beside(dataset.path)
    if compiled and not recipe and compiled[0].media_folders:
        settings.setdefault("media_dir", str(compiled[0].media_folders[0]))
    with scratch_folder() as cache:
        _load(result, settings, str(cache))
        yield result


def _load(result: LoadedDataset, settings: Settings, cache: str) -> None:
    """Add the rows and their auditor, or the problem at which LLaMA-Factory stops."""
    dataset, verdict, path = result.dataset, result.verdict, str(result.dataset.path)
    try:
        data, rows = load(dataset.name, result.folder, settings, cache, result.workers)
    except RetypedColumnError as error:
        result.loader_problem = Problem(READ_AS_TIMES, path, error.reason, error.column, error.fix)
        return
    except ContentError:  # of the settings
        raise
    except expected_errors() as error:
        cause = error.__cause__  # of a forked process it is a whole traceback in one text
        inner = cause if isinstance(cause, expected_errors()) else error
        first_line = (str(inner).strip() or repr(inner)).splitlines()[0]
        message = _(
            "LLaMA-Factory cannot load it: {name}: {first_line}",
            name=type(inner).__name__,
            first_line=first_line[:200],
        )
        result.loader_problem = Problem(UNLOADABLE_FILE, path, message)
        return
    verdict.loaded = len(rows)
    auditor = None
    if UNFIT_STAGE not in verdict.counts:
        has_tools = "tools" in result.expected.format.columns
        data, auditor = _auditor(data, rows, verdict, settings.get("model_name_or_path"), has_tools)
    result.rows = LoadedRows(data, rows, auditor)


def _stage(dataset: Dataset, record_format: RecordFormat) -> str:
    """The stage without a recipe: pt for compiled texts, and for a file with the one column `text`."""
    has_only_text = list(record_format.columns.values()) == ["text"]
    if record_format.text_only and (has_only_text or manifest_beside(dataset.path)):
        return "pt"
    return rows_of(dataset.entry).stage


def load(name: str, folder: Path, settings: Settings, cache: str, workers: int) -> tuple[RecipeData, Any]:
    """LLaMA-Factory's arguments, and all rows of a dataset's file as its loader reads them.

    `settings` are a recipe's keys, of which only `SETTINGS` and the model's folder count. A training may take
    fewer rows, by the entry's `split` and `num_samples`: `recipe check` counts them.
    """
    import_offline()
    arguments = {key: settings[key] for key in SETTINGS if key in settings}
    arguments |= {
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
            data = read_arguments(arguments, preprocessing_num_workers=workers if workers > 1 else None)
        except expected_errors() as error:
            raise ContentError(_("LLaMA-Factory refuses the settings: {reason}", reason=error)) from error
        return data, data.rows(name, split="train", num_samples=None)


def _lost_texts(verdict: Verdict, audit: Audit, path: Path) -> Iterator[Problem]:
    """E353 if cutoff_len cuts every row, E411 if packing fills no block.

    Packed pretraining text flows on in the next block. LLaMA-Factory stops without a full one ("Cannot find
    sufficient samples").
    """
    if not audit.rows:
        return
    if verdict.stage == "pt" and verdict.packing:
        if not audit.blocks:
            message = _(
                "no block of {cutoff} tokens is full: all {uncut} tokens are left over, none is trained",
                cutoff=verdict.cutoff,
                uncut=audit.uncut,
            )
            yield Problem(
                NOTHING_LEARNED, str(path), message, "cutoff_len", _("lower it, or write `packing: false`")
            )
    elif min(audit.lengths) > verdict.cutoff:
        longest = max(audit.lengths)
        message = _(
            "cuts all {rows} rows; the longest has {longest} tokens", rows=audit.rows, longest=longest
        )
        yield Problem(
            ALL_ROWS_CUT,
            str(path),
            message,
            "cutoff_len",
            _("cutoff_len: {longest} keeps them whole", longest=longest),
        )


def _auditor(
    data: RecipeData, rows: Any, verdict: Verdict, model: object, has_tools: bool
) -> tuple[RecipeData, AuditBatch | None]:
    """The auditor of batches, None without a tokenizer or for a stage that is not audited.

    With an auditor the settings that are returned have the template and the tokenizer.
    """
    if verdict.stage not in ANSWERS_PER_ROW:
        stages = ", ".join(ANSWERS_PER_ROW)
        verdict.not_checked.append(
            _("what stage {stage} learns (known: {stages})", stage=verdict.stage, stages=stages)
        )
        return data, None
    if not has_tokenizer(model):
        reason = why_no_tokenizer(model)
        verdict.not_checked.append(
            _(
                "what is learned, token lengths ({reason}); give a model folder with --model DIR",
                reason=reason,
            )
        )
        return data, None
    name = data.data_args.template
    if name:
        template_named(name, think=False)  # an unknown name is refused with the nearest one
    try:
        with quiet():
            data, template = with_matching_template(data, has_tools)
    except expected_errors() as error:
        if needs_code(error):
            fix = _("without --model and --recipe the rows are checked")
            message = _("{path}: {reason}; {fix}", path=Path(str(model)), reason=NEEDS_CODE, fix=fix)
            raise RequestError(message) from error
        message = _(
            "{path}: LLaMA-Factory cannot use this tokenizer or template (--model, --template): {reason}",
            path=Path(str(model)),
            reason=error,
        )
        raise RequestError(message) from error
    if not any(finding.code.startswith("E") for finding in template):
        template += history_findings(data, rows, verdict.dataset)
    for finding in template:
        verdict.add(Problem(finding.code, str(model), finding.message, "template", finding.hint))
    verdict.cutoff, verdict.packing = data.data_args.cutoff_len, bool(data.data_args.packing)
    if verdict.stage == "pt":
        return data, PretrainingAuditor(data).audit
    fault = data.processor_fault()
    if fault:
        used = _("template {name}", name=name) if name else _("its template")
        message = _(
            "{template} needs a processor of its model, and LLaMA-Factory stops at every row: {fault}",
            template=used,
            fault=fault,
        )
        fix = _("name the folder of the whole model, with its processor's files, or a template for texts")
        verdict.add(Problem(UNPROCESSABLE_MEDIA, str(model), message, "template", fix))
        return data, None
    has_media = any(getattr(rows.features[name], "dtype", "") != "null" for name in MEDIA)
    if has_media and data.module["processor"] is None:
        verdict.not_checked.append(
            _("what is learned of rows with media: {model} has no processor for them", model=model)
        )
        return data, None
    return data, AnswersAuditor(data, has_media=has_media).audit
