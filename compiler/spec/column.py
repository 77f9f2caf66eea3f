"""A target column of a spec."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneyard.compiler.kinds import Kind


@dataclass(frozen=True, slots=True)
class Column:
    """A target column: the source names that it accepts, its kind, the value if the file has none of them.

    `options` are the keys that belong to its kind (`Kind.options`).
    """

    name: str
    names: tuple[str, ...]
    kind: Kind
    default: object = None
    wrap: str = "{}"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def required(self) -> bool:
        """True if every row must have it."""
        return self.default is None and not self.kind.is_optional
