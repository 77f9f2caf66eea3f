"""What `state` says of a result whose inputs have changed."""

import pytest

from tuneyard.core.execution.state import CURRENT, FileInput, Input, compare_inputs


def dataset(sha256: str, rows: int) -> FileInput:
    return {"sha256": sha256, "rows": rows}


def test_equal_inputs_are_current() -> None:
    assert compare_inputs({"t": dataset("a", 3), "--rank": 8}, {"--rank": 8, "t": dataset("a", 3)}) == CURRENT


@pytest.mark.parametrize(
    ("recorded", "present", "change"),
    [
        ({"t": dataset("a", 248)}, {"t": dataset("b", 283)}, "t changed, 248 → 283 rows"),
        ({"t": dataset("a", 248)}, {"t": dataset("b", 248)}, "t changed"),
        ({"t": {"sha256": "a"}}, {"t": {"sha256": "b"}}, "t changed"),
        ({"--rank": 8}, {"--rank": 16}, "--rank: 8 → 16"),
        ({"--rank": 8}, {}, "--rank is gone"),
        ({}, {"old": {"sha256": "a"}}, "old is new"),
    ],
)
def test_each_change_is_named(recorded: dict[str, Input], present: dict[str, Input], change: str) -> None:
    state = compare_inputs(recorded, present)
    assert (state.kind, state.changes) == ("stale", (change,))
