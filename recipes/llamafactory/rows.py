"""Run LLaMA-Factory's own loader, converter and processor on a dataset, and report the bad rows.

Runs in the process of core/llamafactory/child.py. It repeats none of their rules, and gives row numbers.
"""

import bisect
import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneyard.core.datasets import read_records
from tuneyard.core.errors import ContentError, TuneyardError, show_value
from tuneyard.core.files import strings
from tuneyard.core.files.scratch import scratch_folder
from tuneyard.core.language.message import Message, _, counted, message_of
from tuneyard.core.llamafactory import loader as llamafactory
from tuneyard.core.llamafactory import progress
from tuneyard.core.llamafactory.file_rows import aligned_rows, row_converter, rows_as_in_file
from tuneyard.core.llamafactory.loader import WHOLE, RecipeData, RetypedColumnError
from tuneyard.core.llamafactory.processors import packed_blocks
from tuneyard.core.llamafactory.prompt.history_findings import history_findings
from tuneyard.core.llamafactory.prompt.template_match import TemplateFinding
from tuneyard.core.llamafactory.stages import TAGGED, TRAINING_STAGES
from tuneyard.core.llamafactory.templates import is_reasoning
from tuneyard.core.llamafactory.trained_rows import UntrainableEpochError, mixed_and_split
from tuneyard.core.records import PAIR, SHAREGPT_TAGS, RecordFormat, RecordReader, entry_fix
from tuneyard.core.records.answers import answer_codes
from tuneyard.recipes.llamafactory.answer import AnswerFinding, EpochCounts, Rows, TokenCounts
from tuneyard.recipes.recipe.data import COUNTED
from tuneyard.recipes.recipe.schedule import packed_batches

FIRST = 20  # rows that are named for a finding on answers
SHARES = (0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # of val_size, as a fix
Lengths = list[list[int]]  # for each row the tokens of each of its sequences


def expected_errors() -> tuple[type[Exception], ...]:
    """Errors that LLaMA-Factory and its libraries raise for unusable input or a failed import."""
    from huggingface_hub.errors import StrictDataclassError

    return (ImportError, StrictDataclassError, *llamafactory.expected_errors())


def words(error: BaseException) -> str:
    """Message of an error of LLaMA-Factory or its libraries, in one line."""
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    while error.__cause__ is not None:  # "an error occurred while generating the dataset"
        error = error.__cause__
    if isinstance(error, StopIteration):
        return _("it has no rows")
    if isinstance(error, LocalEntryNotFoundError | HFValidationError):  # their words are about downloading
        return _("its files are not on this machine")
    if llamafactory.needs_code(error):
        return _("{reason} (--trust-remote-code)", reason=llamafactory.NEEDS_CODE)
    message = message_of(error)
    if isinstance(message, Message):
        return message
    text = " ".join((message or type(error).__name__).split())[:300]
    return _("there is no {text}", text=text) if isinstance(error, KeyError) else text


def look(reader: RecipeData, name: str) -> Rows:
    """Report on a dataset; nothing about one that is not local.

    LLaMA-Factory writes its copy of the rows into a temporary folder, and not into the recipe's `cache_dir`.
    """
    model_args = copy.copy(reader.model_args)
    with scratch_folder() as folder:
        model_args.cache_dir = str(folder)
        return _look(replace(reader, model_args=model_args), name)


def _look(reader: RecipeData, name: str) -> Rows:
    attributes = None
    try:
        attributes = reader.attributes(name)
        if attributes.load_from != "file":
            return Rows()
        rows = aligned_rows(reader, attributes)
    except RetypedColumnError as error:
        return Rows(bad=1, problems=[(0, message_of(error))])
    except expected_errors() as error:
        count, bad = _locate(reader, attributes) if attributes else (0, [])
        if not bad and isinstance(error, OSError | RuntimeError):  # no room, no threads: no fault of the data
            return Rows(error=words(error))
        bad = bad or [(0, _("LLaMA-Factory cannot read it: {reason}", reason=words(error)))]
        return Rows(count, len(bad), bad)
    bad, lengths = [], []
    for number, lengths_or_reason in enumerate(_encoded(reader, rows, attributes, name), 1):
        if isinstance(lengths_or_reason, str):
            bad.append((number, lengths_or_reason))
        else:
            lengths.append(lengths_or_reason)
    drawn = attributes.num_samples or len(rows)  # any row of the file may be drawn
    findings = _answer_findings(reader, rows, name)
    about = _with_kinds(Rows(drawn, len(bad), bad, answers=findings), reader, rows)
    if not reader.module:
        return about
    again = -(-drawn // max(1, len(lengths)))
    tokens = _summary(lengths, reader.data_args.cutoff_len, drawn / max(1, len(rows)))
    template: list[TemplateFinding] = []
    if not _generates(reader, name):
        template = history_findings(reader, rows, name)
    return replace(about, tokens=tokens, lengths=(lengths * again)[:drawn], template=template)


def _answer_findings(reader: RecipeData, rows: Any, name: str) -> dict[str, AnswerFinding]:
    """Findings of core/records/answers.py by code.

    Rows that only pose questions have no answers to judge: those of stages pt and ppo, and those that a
    prediction answers.
    """
    if reader.stage in ("pt", "ppo") or _generates(reader, name):
        return {}
    judged = 0
    places: dict[str, list[int]] = {}
    mask_history = bool(reader.data_args.mask_history)
    turns = zip(rows["_prompt"], rows["_response"], strict=True)
    for number, (prompt, answers) in enumerate(turns, 1):
        if not answers or any(answer["content"] is None for answer in answers):
            continue  # LLaMA-Factory drops the row, or stops at it
        judged += 1
        for code in answer_codes(reader.stage, prompt, answers, mask_history=mask_history):
            places.setdefault(code, []).append(number)
    findings = {}
    for code, numbers in sorted(places.items()):
        findings[code] = AnswerFinding(len(numbers), judged, numbers[:FIRST])
    return findings


def _with_kinds(about: Rows, reader: RecipeData, rows: Any) -> Rows:
    """Add the numbers of marked answers of a KTO set, or of thoughts for a template that writes them."""
    if reader.stage == "kto":
        wanted = sum(len(answers) > 1 and bool(answers[0]["content"]) for answers in rows["_response"])
        unwanted = sum(len(answers) > 1 and bool(answers[1]["content"]) for answers in rows["_response"])
        return replace(about, marks=[wanted, unwanted])
    if reader.stage != "sft" or not is_reasoning(reader.template):
        return about
    marks = [mark.strip() for mark in reader.template.thought_words]
    answered = [answers[-1]["content"] or "" for answers in rows["_response"] if answers]
    thinking = sum(any(mark in text for mark in marks) for text in answered)
    return replace(about, thoughts=[thinking, len(answered) - thinking])


def _generates(reader: RecipeData, name: str) -> bool:
    """True if answers to a dataset's rows are generated, and not trained on."""
    trained = reader.data_args.dataset or []
    return bool(reader.training_args.predict_with_generate and name not in trained)


def _locate(reader: RecipeData, attributes: Any) -> tuple[int, list[tuple[int, str]]]:
    """Number of rows of a dataset that cannot be read, and (row number, reason) of those at fault.

    Without a count 0; no rows if no single one is at fault.
    """
    try:
        rows = rows_as_in_file(reader, attributes)
        convert = row_converter(reader, attributes)
    except expected_errors():
        return 0, list(_clashes(Path(reader.data_args.dataset_dir) / attributes.dataset_name))
    bad = []
    for number, row in enumerate(rows, 1):
        try:
            convert(row)
        except expected_errors() as error:
            reason: str = _(
                "LLaMA-Factory stops at it: {reason}; found {row}", reason=words(error), row=show_value(row)
            )
            fix = _missing_column_fix(error, row)
            if fix:
                reason = _("{reason}; {fix}", reason=reason, fix=fix)
            bad.append((number, reason))
    return len(rows), bad


def _missing_column_fix(error: BaseException, row: Mapping[str, Any]) -> str:
    """How LLaMA-Factory finds the columns of an entry that does not name them, "" if it is not about that."""
    if not isinstance(error, KeyError):
        return ""
    fix = entry_fix(row)
    if fix:
        return fix
    for key, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return _("its rows are in {key!r}: write that list alone into the file, or compile it", key=key)
    return ""


def _clashes(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the first row of each column whose value is of another kind than those before it."""
    import pyarrow

    def mixed(values: list[object]) -> bool:
        try:
            pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError):
            return True
        return False

    if path.suffix not in COUNTED:
        return
    try:
        records = read_records(path)
    except (TuneyardError, OSError) as error:
        yield 0, message_of(error)
        return
    for key in dict.fromkeys(itertools.chain(*records)):
        values = [record.get(key) for record in records]
        if mixed(values):
            row = bisect.bisect_left(range(len(values)), True, key=lambda last: mixed(values[: last + 1]))
            message = _(
                "LLaMA-Factory cannot read it: column {column} holds {value}, another kind of value than "
                "in the rows above",
                column=show_value(key),
                value=show_value(values[row]),
            )
            yield row + 1, message


def _encoded(reader: RecipeData, rows: Any, attributes: Any, name: str) -> Iterator[list[int] | str]:
    """Yield for each row the tokens of its sequences before they are cut, or why it cannot be trained on."""
    from tqdm import tqdm

    generates = _generates(reader, name)
    processor = reader.encoder(generates=generates, **WHOLE)
    cutting = reader.encoder(generates=generates, packing=False, neat_packing=False)
    cutoff = reader.data_args.cutoff_len
    if not reader.module:  # it still reports the rows that it drops
        processor._encode_data_example = lambda **_row: ([],) * TRAINING_STAGES[reader.stage].encoded_lists
    originals = functools.cache(functools.partial(rows_as_in_file, reader, attributes))
    counted_rows = tqdm(rows, desc="counting tokens", unit="row", delay=2, file=progress.stream)
    for number, row in enumerate(counted_rows):
        if reader.stage == "pt" and not reader.module:
            yield []
            continue
        single_row = {key: [value] for key, value in row.items()}
        try:
            encoded = processor.preprocess_dataset(single_row)
        except expected_errors() as error:
            yield _("LLaMA-Factory stops at it: {reason}", reason=words(error))
            continue
        sequences = _sequences(encoded)
        is_cut = any(len(ids) > cutoff for ids in sequences) and not reader.data_args.packing
        if is_cut and (row["_images"] or row["_videos"] or row["_audios"]):
            cut = cutting.preprocess_dataset(single_row)
            left, whole = _media_tokens(reader, cut), _media_tokens(reader, encoded)
            if left < whole:
                yield _(
                    "training stops at it: cutoff_len {cutoff} leaves {left} of its {whole} image, video "
                    "and audio tokens",
                    cutoff=cutoff,
                    left=left,
                    whole=whole,
                )
                continue
        if sequences:
            yield [len(ids) for ids in sequences]
        else:
            yield _(
                "LLaMA-Factory drops it: {reason}",
                reason=_drop_reason(reader, attributes, row, number, originals),
            )


def _drop_reason(
    reader: RecipeData, attributes: Any, row: Mapping[str, Any], number: int, originals: Callable[[], Any]
) -> str:
    """Why LLaMA-Factory drops a row. `originals` reads the rows before it converts them."""
    prompt, answers, stage = row["_prompt"], row["_response"], TRAINING_STAGES[reader.stage]
    if attributes.formatting != "alpaca" and not prompt and not answers:
        return turn_fault(originals()[number], attributes)
    if stage.rows == TAGGED and attributes.kto_tag and len(answers) == 1:
        mark = show_value(originals()[number][attributes.kto_tag])
        return _(
            "its mark in column {column} is {value}, expected true or false",
            column=show_value(attributes.kto_tag),
            value=mark,
        )
    return _(
        "found {turns} before {answers}, expected an odd number of turns and {expected_answers}",
        turns=counted(len(prompt), "turn", "turns"),
        answers=counted(len(answers), "answer", "answers"),
        expected_answers=stage.expected_answers,
    )


def _sequences(encoded: Mapping[str, list[list[int]]]) -> list[list[int]]:
    """The ids of each sequence of a single encoded row."""
    return [ids[0] for key, ids in encoded.items() if key.endswith("input_ids")]


def _media_tokens(reader: RecipeData, encoded: dict[str, list[list[int]]]) -> int:
    """Number of tokens of an encoded row that stand for images, videos and sound."""
    plugin = reader.template.mm_plugin
    marks = [plugin.image_token, plugin.video_token, plugin.audio_token]
    ids = {reader.module["tokenizer"].convert_tokens_to_ids(mark) for mark in marks if mark}
    return sum(token in ids for sequence in _sequences(encoded) for token in sequence)


def turn_fault(row: dict[str, Any], attributes: Any) -> str:
    """The reason for which LLaMA-Factory drops a conversation. `attributes` are those of its DatasetAttr."""
    columns = {part: getattr(attributes, part) for part in ("messages", "system", "tools", *PAIR)}
    tags = {tag: getattr(attributes, tag) for tag in SHAREGPT_TAGS}
    record_format = RecordFormat(attributes.formatting, strings(columns), strings(tags), attributes.ranking)
    try:
        return RecordReader(record_format).read(row).fault
    except ContentError as error:
        return message_of(error)


def _summary(lengths: Lengths, cutoff: int, share: float) -> TokenCounts:
    """Token counts of a dataset: all, after the cut, and of the longest row; and the number of cut rows."""
    tokens = seen = longest = cut = 0
    for row in lengths:
        tokens += sum(row)
        seen += sum(min(length, cutoff) for length in row)
        longest = max(longest, *row)
        cut += max(row) > cutoff
    rows = round(len(lengths) * share)
    return TokenCounts(rows, round(seen * share), longest, round(tokens * share), round(cut * share))


def epoch(
    reader: RecipeData, trained: Mapping[str, Lengths], evaluated: Mapping[str, Lengths], workers: object
) -> EpochCounts:
    """The rows or packed blocks of an epoch over the `trained` datasets.

    `UntrainableEpochError` if LLaMA-Factory rejects the held-out share or the probabilities, or if packed
    rows do not fill a block: those that are trained, that `val_size` holds out, or of the `evaluated`
    datasets.
    """
    whole, seed = copy.copy(reader.data_args), reader.training_args.seed
    if whole.streaming:
        whole.streaming, workers = False, 1
    rows = [_as_dataset(lengths) for lengths in trained.values()]
    parts = mixed_and_split(rows, whole, seed)
    train, cutoff = parts.trained["lengths"], int(whole.cutoff_len)
    if not whole.packing:
        cut = [[min(length, cutoff) for length in row] for row in train]
        return EpochCounts(len(cut), sum(map(sum, cut)), max(map(max, cut), default=0))
    packing = Packing(
        cutoff, reader.stage, workers if isinstance(workers, int) else 1, whole.preprocessing_batch_size
    )
    blocks = packing.blocks(train)
    if not blocks:
        message = _("{shortage} (packing, cutoff_len)", shortage=packing.shortage(train))
        raise UntrainableEpochError(message, "stage", "packing", "cutoff_len")
    for held_out in parts.held_out.values():
        texts = held_out["lengths"]
        if not packing.blocks(texts):
            size = _sufficient_val_size(rows, whole, seed, packing)
            fix = _("a smaller cutoff_len, longer texts, or val_size: 0")
            if size:
                fix = _("val_size: {size:g} holds out enough, as does a smaller cutoff_len", size=size)
            message = _(
                "val_size {val_size:g} holds out {rows}: {shortage} (val_size, cutoff_len); {fix}",
                val_size=whole.val_size,
                rows=counted(len(texts), "row", "rows"),
                shortage=packing.shortage(texts),
                fix=fix,
            )
            raise UntrainableEpochError(message, "val_size")
    evaluations = list(evaluated.values())
    if not whole.eval_on_each_dataset:
        evaluations = [list(itertools.chain(*evaluations))]
    for texts in evaluations:
        if texts and not packing.blocks(texts):
            message = _(
                "{shortage} to evaluate (eval_dataset, cutoff_len); more texts in it, or a smaller "
                "cutoff_len",
                shortage=packing.shortage(texts),
            )
            raise UntrainableEpochError(message, "eval_dataset")
    return EpochCounts(blocks, blocks * cutoff, cutoff)


def _as_dataset(lengths: Lengths) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"lengths": lengths})


@dataclass(frozen=True, slots=True)
class Packing:
    """How LLaMA-Factory packs rows: each of the `workers` packs `batch` rows of its share at a time."""

    cutoff: int
    stage: str
    workers: int
    batch: int

    def blocks(self, rows: Sequence[Sequence[int]]) -> int:
        """Blocks into which rows with these lengths are packed."""
        blocks, start = 0, 0
        for size in packed_batches(len(rows), self.workers, self.batch):
            lengths = list(itertools.chain(*rows[start : start + size]))
            blocks += _blocks(lengths, self.cutoff, self.stage)
            start += size
        return blocks

    def shortage(self, rows: Sequence[Sequence[int]]) -> str:
        """The tokens of rows that fill no block, and the shares into which they are divided."""
        tokens = sum(map(sum, rows))
        batches = packed_batches(len(rows), self.workers, self.batch)
        if tokens >= self.cutoff and len(batches) > 1:
            return _(
                "{tokens:,} tokens in all, packed in {batches} batches (preprocessing_num_workers, "
                "preprocessing_batch_size), fill no block of {cutoff}",
                tokens=tokens,
                batches=len(batches),
                cutoff=self.cutoff,
            )
        return _("{tokens:,} tokens in all fill no block of {cutoff}", tokens=tokens, cutoff=self.cutoff)


def _sufficient_val_size(rows: Sequence[Any], data_args: Any, seed: int, packing: Packing) -> float:
    """A larger val_size with which both sides fill a block, 0 if none of those tried does.

    A share stays a share, and a number of rows a number.
    """
    total = sum(map(len, rows))
    candidates = [share for share in SHARES if share > data_args.val_size]
    if data_args.val_size >= 1:
        candidates = [data_args.val_size * 2**power for power in range(1, 20)]
    for size in candidates:
        if size >= total / 2 and size >= 1:
            break
        changed = copy.copy(data_args)
        changed.val_size = size
        parts = mixed_and_split(rows, changed, seed)
        sides = [parts.trained, *parts.held_out.values()]
        if all(packing.blocks(side["lengths"]) for side in sides):
            return float(size)
    return 0.0


def _blocks(lengths: list[int], cutoff: int, stage: str) -> int:
    """Blocks into which rows are packed: running text is split anywhere, cut conversations stay together."""
    if stage == "pt":
        return sum(lengths) // cutoff
    return packed_blocks(lengths, cutoff)
