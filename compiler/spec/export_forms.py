"""Forms of exports (`form` of a source): the program that wrote a file, and how its rows become examples.

Each is an `ExportForm` in a file of compiler/chat/forms, or an entry point `tuneyard.forms`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import attrgetter

from tuneyard.core.files import Fields
from tuneyard.core.plugins import Plugin, bundled_with, registry


@dataclass(frozen=True)
class ExportForm:
    """A form of rows.

    - `has_form`: true for a row as the program writes it. A single key is never enough.
    - `change`: the row of an example in its place. A row of another form stays.
    - `by_one_row`: true if one row shows the form, because `change` leaves every other row alone.
    """

    name: str
    has_form: Callable[[Fields], bool]
    change: Callable[[Fields], Fields]
    by_one_row: bool = False
    plugin: Plugin | None = None


FOLDER = "tuneyard.compiler.chat.forms"


@cache
def bundled_forms() -> dict[str, ExportForm]:
    """Our own forms by the name that a spec gives."""
    return {form.name: form for form in sorted(bundled_with(FOLDER, ExportForm), key=attrgetter("name"))}


@cache
def export_forms() -> dict[str, ExportForm]:
    """Our own forms and those of plug-ins. `PluginError` names a plug-in that cannot be used."""
    forms = registry("tuneyard.forms", FOLDER, ExportForm, "ExportForm")
    return dict(sorted(forms.items()))


def form_named(name: str) -> ExportForm:
    """The form of a valid spec. Plug-ins are only looked for if it is none of ours: that takes 30 ms."""
    return bundled_forms().get(name) or export_forms()[name]
