"""What the command line changes in a spec: `--column`, `--split`, `--table` and `--sample`."""

import re
from typing import NamedTuple

from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.errors import RequestError
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _
from tuneyard.core.text.quoting import shell


class SpecChanges(NamedTuple):
    """The options as the user wrote them: columns as TARGET=SOURCE, shares as SPLIT=SHARE."""

    columns: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    table: str = ""
    sample: str | None = None


def changed_spec(name: str, changes: SpecChanges) -> Spec:
    """The spec with what the command line changes. `Spec.over` has the changes alone."""
    spec = load_spec(name)
    over: JsonObject = {}
    if changes.sample is not None:
        if spec.mix:
            raise RequestError(
                _(
                    "--sample {sample}: the spec {name} is a mixture, which has its number of "
                    "rows in `total`: write a spec with `like: {name}` and `mix: {{total: N}}`",
                    sample=changes.sample,
                    name=spec.name,
                )
            )
        over["sample"] = _sample(changes.sample)
    if changes.table:
        over["source"] = {"table": changes.table}
    for text in changes.shares:
        if not spec.split:
            raise RequestError(
                _(
                    "--split {text}: the spec {name} has no `split` of its own to give another "
                    "share; hold rows out in the recipe (`val_size: 0.1`), or write a spec with "
                    "`split`: tuneyard data init FILE --split 0.1 --out SPEC.yaml",
                    text=text,
                    name=spec.name,
                )
            )
        split, _unused, share = text.partition("=")
        if split not in spec.split.shares or not re.fullmatch(r"0?\.\d*[1-9]\d*", share):
            command = f"tuneyard data compile {shell(name)} --split {shell(min(spec.split.shares))}=0.3"
            raise RequestError(
                _(
                    "--split {split}: expected SPLIT=SHARE, as test=0.3: {command}",
                    split=text,
                    command=command,
                )
            )
        over.setdefault("split", {})[split] = float(share)
    columns_of_spec = [column.name for column in spec.columns]
    for text in changes.columns:
        target, _unused, source = text.partition("=")
        if not source or target not in columns_of_spec:
            listed = ", ".join(columns_of_spec)
            raise RequestError(
                _(
                    "--column {column}: expected TARGET=SOURCE with TARGET one of {names}",
                    column=text,
                    names=listed,
                )
            )
        over.setdefault("columns", {})[target] = {"names": [source]}
    return load_spec(name, over) if over else spec


def _sample(text: str) -> float:
    """A share (a float below 1) or a number of rows (an int); `RequestError` for any other text."""
    expected = _("expected a share of the rows below 1, as 0.1, or their number, as 2000")
    if not re.fullmatch(r"[0-9]{0,15}\.?[0-9]{0,15}", text) or not re.search("[1-9]", text):
        raise RequestError(_("--sample {text}: {expected}", text=text, expected=expected))
    number = float(text)
    if number < 1:
        return number
    if number == 1 and "." in text:
        raise RequestError(
            _(
                "--sample {text}: the share of all rows, or 1 row? Leave --sample out to "
                "take all rows, or write --sample 1 to take one",
                text=text,
            )
        )
    if not number.is_integer():
        raise RequestError(_("--sample {text}: {expected}", text=text, expected=expected))
    return int(number)
