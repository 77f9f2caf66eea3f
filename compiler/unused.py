"""Source columns that nothing in a spec uses: counted, and refused where they change what an answer means."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

from compiler.rows import Rows
from compiler.spec import Spec
from core.datasets import filled
from core.errors import Problem, nearest, show_value

MOST = 200  # of the columns without a meaning below: bounded, whatever keys the rows have
SHOWN = 20
_MEDIA = {
    "images": "image images image_path image_paths image_url image_urls image_file image_files img imgs "
    "picture pictures photo photos",
    "videos": "video videos video_path video_paths video_url video_urls",
    "audios": "audio audios audio_path audio_paths audio_url audio_urls speech",
}
_RANKING = {
    "preference data (a chosen answer and a rejected one)": "chosen rejected preferred dispreferred "
    "response_chosen response_rejected chosen_response rejected_response answer_chosen answer_rejected "
    "chosen_messages rejected_messages response_j response_k response_0 response_1 response_good "
    "response_bad better_response_id winner chosen_answer rejected_answer is_chosen is_rejected",
    "feedback (KTO marks a rejected answer so)": "kto_tag kto_label desirable is_desirable is_preferred",
}
_READERS = dict(zip(_RANKING, ("pairs", "kto"), strict=True))
_QUESTIONS = {"instruction", "prompt", "question", "query"}
_TALKS = {"conversations", "messages"}
_OTHERS = {
    "a label beside the answer (KTO marks a rejected one so)": "label",
    "choices of a question": "choices options option_a option_b option_c option_d A B C D",
    "a system text": "system system_prompt system_message",
    "earlier turns": "history",
    "tools or calls of them": "tools functions tool_calls tool_call function_call function_calls",
    "reasoning before the answer": "reasoning_content reasoning think thinking thought thoughts cot",
}
_ALL = _MEDIA | _RANKING | _OTHERS
MEANINGS = {name: meaning for meaning, names in _ALL.items() for name in names.split()}
_BESIDE_AN_ANSWER = {name for name in MEANINGS if MEANINGS[name] in (MEANINGS["label"], MEANINGS["choices"])}
_ANSWERS = ("answer", "turns", "best", "label")
_IN_ALPACA = ("a system text", "earlier turns")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIGNS = re.compile(r"[\W_]+")


def meaning(name: str) -> str:
    """Return what a source column (or a key of a message) of this name says of an answer, "" if nothing."""
    return MEANINGS.get(_usual(name), "")


@lru_cache(1000)
def _usual(name: str) -> str:
    """Return a name (of a path, its end) as it is usually written: `systemPrompt` is `system_prompt`."""
    name = name.rpartition(".")[2]
    words = (name if name.isupper() else _HUMP.sub("_", name)).lower()
    return name if name in MEANINGS else _SIGNS.sub("_", words).strip("_")


def _looks_like(names: Collection[str], spec: str) -> str:
    """Return what ranked or media data such columns are and which other spec reads it, "" if none."""
    found = [what for what in dict.fromkeys(map(meaning, names)) if what in _MEDIA or what in _RANKING]
    reader = next((_READERS.get(what, "media") for what in found), "")
    if reader == "pairs" and not _QUESTIONS.intersection(names):
        reader = "pairs-chat" if _TALKS.intersection(names) else "pairs-chat with --column turns=chosen"
    told = f"the columns look like {' and '.join(found)}: spec {reader} reads them"
    return "" if reader in ("", spec) else told


def missing_fix(name: str, names: list[str], typed: bool, spec: str) -> str:
    """Return what to do about a column that is not there: a header of one field has another delimiter."""
    if told := _looks_like(names, spec):
        return told
    sign = next((sign for sign in ";\t|," if not typed and len(names) == 1 and sign in names[0]), None)
    if sign:
        return f"name the delimiter in a spec under `source:`: `delimiter: {show_value(sign)}`"
    near = nearest(name, names)
    return f"{near} --column {name}=NAME says which it is" if near else ""


def other_kind(value: object, spec: str) -> str:
    """Return what reads a value that is no text where one should be: a number, or turns (TRL's prompt)."""
    if isinstance(value, int | float):
        return "in a spec, `is: any` writes it as JSON has it, and `labels` maps it"
    turns = isinstance(value, list) and value and all(isinstance(x, dict) and len(x) > 1 for x in value)
    if not turns:
        return ""
    return "spec pairs-chat reads turns" if spec == "pairs" else "in a spec, `is: turns` reads turns"


class Unused:
    """Counts, over all files of a compile, the rows that fill each source column that nothing uses."""

    def __init__(self, rows: dict[str, int] | None = None) -> None:
        self.rows = rows or {}
        self._first: dict[str, tuple[str, str]] = {}

    def look(self, spec: Spec, rows: Rows, used: set[str]) -> None:
        """Count in the source columns that are not `used`, and beside the paths that are."""
        heads = {path.partition(".")[0] for path in used}
        whole = [name for name in rows.names() if name not in used and name not in heads]
        beside: defaultdict[str, list[int]] = defaultdict(list)
        for head in sorted(heads - used):
            paths = [path.split(".")[1:] for path in used if path.startswith(f"{head}.")]
            for number, value in enumerate(rows.column(head)):
                for name in _others(value, paths):
                    beside[f"{head}.{name}"].append(number)
        for name in dict.fromkeys([*whole, *beside]):
            if not {name.lower(), name.partition(".")[0].lower()}.isdisjoint(spec.ignore):
                continue
            what = "" if _harmless(spec, name) else meaning(name)
            if what or name in self.rows or len(self.rows) < MOST:
                numbers = beside[name] if name in beside else rows.filled(name)
                self.rows[name] = self.rows.get(name, 0) + len(numbers)
                if what and numbers:
                    self._first.setdefault(name, (what, f"{rows.prefix}{rows.lines[numbers[0]]}"))
                elif numbers and (other := _alias(spec, name, used)):
                    column, taken = other
                    filled_there = set(rows.filled(taken)) if taken in rows.names() else ()
                    if alone := [number for number in numbers if number not in filled_there]:
                        told = f"another name of {column}, where {_shown(taken)} is empty here; filled"
                        self._first.setdefault(name, (told, f"{rows.prefix}{rows.lines[alone[0]]}"))

    def counts(self) -> dict[str, int]:
        """Return the rows that hold something by column; columns that are empty in every row are left out."""
        return {name: count for name, count in self.rows.items() if count}

    def lines(self, read: int) -> list[str]:
        """Return `not used: url (300 of 300)`, at most 20 columns, or no line where there are none."""
        counts = list(self.counts().items())
        shown = [f"{_shown(name)} ({count} of {read})" for name, count in counts[:SHOWN]]
        rest = [f"{len(counts) - SHOWN} more (--json names them)"] if len(counts) > SHOWN else []
        return [f"not used: {', '.join(shown + rest)}"] if shown else []

    def problems(self, spec: Spec, read: int) -> list[Problem]:
        """Return an error for each column that changes what an answer means."""
        found = []
        for name, (what, place) in self._first.items():
            message = f"{what} in {self.rows[name]} of {read} rows, and the spec uses no such column"
            ignore = f"`ignore: [{_shown(name)}]`"
            reader = "spec alpaca reads it; or " if spec.name == "io" and what in _IN_ALPACA else ""
            fix = f"{reader}in a spec (`like: {spec.name}`) map it to a column, or leave it out by {ignore}"
            found.append(Problem("E108", place, message, _shown(name), fix))
        return found


def _alias(spec: Spec, name: str, used: set[str]) -> tuple[str, str] | None:
    """Return the column that goes by this source name, too, and the one that was taken for it, else None."""
    found = (column for column in spec.columns if name in column.names and column.kind not in ("id", "label"))
    return next(((c.name, taken) for c in found for taken in c.names if taken in used), None)


def _harmless(spec: Spec, name: str) -> bool:
    """Whether a column says nothing here: no answer stands beside it, or the spec has labels of its own."""
    answered, key = spec.answered or spec.named(*_ANSWERS), _usual(name)
    return key in _BESIDE_AN_ANSWER and (not answered or (key == "label" and bool(spec.labels)))


def _others(value: object, paths: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the paths to what is filled in a value and on none of these, the first one of each list."""
    if [] in paths or not isinstance(value, dict | list):
        return
    items = value.items() if isinstance(value, dict) else ((str(at), item) for at, item in enumerate(value))
    for key, item in items:
        within = [path[1:] for path in paths if path[0] == key]
        if within:
            yield from (f"{key}.{name}" for name in _others(item, within))
        elif filled([item]):
            yield key
            if isinstance(value, list):
                return


def _shown(name: str) -> str:
    return name if name.isidentifier() else show_value(name)
