"""Tool calls and tools in a row: what has no name is refused with what was found."""

import pytest

from tuneyard.core.records.calls import WrongValueError, declared


@pytest.mark.parametrize("tool", ['{"name": ""}', '{"parameters": {}}', '{"function": 3}', "3"])
def test_a_tool_without_a_name_is_refused_by_its_number(tool: str) -> None:
    with pytest.raises(WrongValueError, match=r'^tool 2: found .*, expected an object with a "name"$'):
        declared(f'[{{"name": "find"}}, {tool}]')
