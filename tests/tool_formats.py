"""LLaMA-Factory's tool formats, from its own file. The package around it takes 10 s to import."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from tuneyard.core.records.calls import Call


def load_tool_utils() -> ModuleType:
    """The module llamafactory.data.tool_utils."""
    package = importlib.util.find_spec("llamafactory")
    path = Path(package.origin).parent / "data/tool_utils.py"
    spec = importlib.util.spec_from_file_location("llamafactory_tool_utils", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


TOOL_UTILS = load_tool_utils()
TOOL_FORMATS = TOOL_UTILS.TOOLS


def format_calls(tool_format: str, calls: list[Call]) -> str:
    """Calls as LLaMA-Factory trains a model to write them."""
    functions = []
    for call in calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        functions.append(TOOL_UTILS.FunctionCall(call.name, arguments))
    return TOOL_FORMATS[tool_format].function_formatter(functions)


def extract_calls(tool_format: str, text: str) -> list[Call] | None:
    """Calls that LLaMA-Factory's own extractor reads, None if it reads none."""
    functions = TOOL_FORMATS[tool_format].tool_extractor(text)
    if isinstance(functions, str):
        return None
    try:
        return [Call(name, json.loads(arguments)) for name, arguments in functions]
    except json.JSONDecodeError:  # gemma4's extractor returns what it cannot read
        return None
