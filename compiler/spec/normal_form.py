"""One form for what the schema of specs takes in several: `100.0` rows, a name in place of a list."""

from typing import Any

from tuneyard.core.files import JsonObject

NAMES = "#/$defs/names"


def normal_form(schema: JsonObject, value: Any, root: JsonObject) -> Any:
    """A valid value with whole numbers as `int` where the schema has integers, and names as lists.

    YAML reads `100.0` as a float, which JSON Schema takes for an integer. `root` has the `$defs`.
    """
    reference = schema.get("$ref")
    if reference == NAMES and isinstance(value, str):
        return [value]
    if isinstance(reference, str):
        definition = root["$defs"][reference.rpartition("/")[2]]
        return normal_form(definition, value, root)
    is_whole = isinstance(value, float) and value.is_integer()
    if is_whole and (schema.get("type") == "integer" or value in schema.get("enum", ())):
        return int(value)
    branches = schema.get("oneOf", ())
    may_be_share = any(branch.get("type") == "number" for branch in branches)
    if may_be_share and is_whole and value == 1:
        return value  # `1.0` is a share of all rows, or one row: only the user knows
    for branch in branches:
        value = normal_form(branch, value, root)
    if isinstance(value, list) and "items" in schema:
        return [normal_form(schema["items"], item, root) for item in value]
    if isinstance(value, dict):
        by_key = schema.get("properties", {})
        others = schema.get("additionalProperties")
        changed = {}
        for key, item in value.items():
            schema_of_item = by_key.get(key, others)
            if isinstance(schema_of_item, dict):
                item = normal_form(schema_of_item, item, root)
            changed[key] = item
        return changed
    return value
