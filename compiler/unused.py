"""Source columns that nothing in a spec uses: counted, and refused where they change what an answer means."""

from collections.abc import Collection, Iterable

from compiler.rows import Rows
from compiler.spec import Spec
from core.errors import Problem, nearest, show_value

MOST = 200  # of the columns without a meaning below: bounded, whatever keys the rows have
SHOWN = 20
_MEDIA = {
    "images": "image images image_path image_paths image_url image_urls img imgs",
    "videos": "video videos video_path video_paths video_url video_urls",
    "audios": "audio audios audio_path audio_paths audio_url audio_urls speech",
}
_RANKING = {
    "preference data (a chosen answer and a rejected one)": "chosen rejected preferred dispreferred "
    "response_chosen response_rejected chosen_response rejected_response answer_chosen answer_rejected "
    "chosen_messages rejected_messages response_j response_k response_0 response_1 response_good "
    "response_bad better_response_id winner",
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
MEANINGS = {
    name: meaning for meaning, names in (_MEDIA | _RANKING | _OTHERS).items() for name in names.split()
}
_BESIDE_AN_ANSWER = {name for name in MEANINGS if MEANINGS[name] in (MEANINGS["label"], MEANINGS["choices"])}
_ANSWERS = ("answer", "turns", "best", "label")


def meaning(name: str) -> str:
    """Return what a source column (or a key of a message) of this name says of an answer, "" if nothing."""
    return MEANINGS.get(name) or MEANINGS.get(name.lower(), "")


def _looks_like(names: Collection[str], spec: str) -> str:
    """Return in words what data has such columns where it is ranked or has media, and the spec that reads it.

    "" where it is neither, or `spec` is that one.
    """
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


class Unused:
    """Counts, over all files of a compile, the rows that fill each source column that nothing uses."""

    def __init__(self, rows: dict[str, int] | None = None) -> None:
        self.rows = rows or {}
        self._first: dict[str, tuple[str, str]] = {}

    def look(self, spec: Spec, rows: Rows, names: Iterable[str]) -> None:
        """Count in these source columns, none of which the spec uses or ignores."""
        for name in names:
            what = "" if _harmless(spec, name) else meaning(name)
            if what or name in self.rows or len(self.rows) < MOST:
                numbers = rows.filled(name)
                self.rows[name] = self.rows.get(name, 0) + len(numbers)
                if what and numbers:
                    self._first.setdefault(name, (what, f"{rows.prefix}{rows.lines[numbers[0]]}"))

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
            fix = f"in a spec (`like: {spec.name}`) map it to a column, or leave it out by {ignore}"
            found.append(Problem("E108", place, message, _shown(name), fix))
        return found


def _harmless(spec: Spec, name: str) -> bool:
    """Whether a column says nothing here: no answer stands beside it, or the spec has labels of its own."""
    answered = any(column.kind in _ANSWERS for column in spec.columns)
    answered = answered or any({"output", "assistant"} & output.templates.keys() for output in spec.outputs)
    key = name if name in MEANINGS else name.lower()
    return key in _BESIDE_AN_ANSWER and (not answered or (key == "label" and bool(spec.labels)))


def _shown(name: str) -> str:
    return name if name.isidentifier() else show_value(name)
