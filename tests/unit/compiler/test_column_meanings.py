"""One vocabulary of source columns, for init, for the report on unused columns and for the bundled specs."""

import pytest

from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets.column_meanings import USUAL_NAMES, meaning, role_of_name

OWN_FORMS = {"defect", "defect-split", "defect-text", "demo_mnli", "demo_rte", "stackexchange"}
"""Specs of one file each, whose columns are paths in that file."""


@pytest.mark.parametrize("name", sorted(set(known_specs()) - OWN_FORMS))
def test_the_bundled_specs_use_the_vocabulary(name):
    for column in load_spec(name).columns:
        alone = [source for source in column.names if not role_of_name(source)]
        assert not alone, f"{name}: column {column.name}: {alone} is missing in the vocabulary"


def test_names_are_in_the_spelling_that_they_are_compared_in():
    for role, names in USUAL_NAMES.items():
        assert len(names) == len(set(names)), role
        assert [name for name in names if len(name) > 1 and name != name.lower()] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("meta.systemPrompt", "a system text"),
        ("C", "choices of a question"),
        ("c", ""),
        ("endings", "choices of a question"),
        ("label", "a label beside the answer (KTO marks a rejected one so)"),
        ("url", ""),
    ],
)
def test_the_meaning_of_a_name_in_any_spelling(name, expected):
    assert meaning(name) == expected
