"""A kind of column is one object in one file of compiler/kinds."""

import pytest

from tuneyard.compiler.kinds import RecordLayout, check_kinds, kinds
from tuneyard.compiler.spec.file import read_schema


def test_specs_can_name_every_kind():
    """Editors complete `is:` by the schema's list, so it names what the files of the folder declare."""
    named = read_schema("spec")["properties"]["columns"]["additionalProperties"]["oneOf"][1]["properties"]
    assert set(named["is"]["enum"]) == set(kinds())


@pytest.mark.parametrize("name", [kind.name for kind in kinds().values() if kind.part])
def test_no_plain_text_contains_what_goes_beside_texts(name):
    with pytest.raises(ValueError, match="column c: neither a mixture nor a text"):
        check_kinds(RecordLayout({"c": name}, texts=True, answered=False, formats={"text"}))
