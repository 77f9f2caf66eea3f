"""Patterns of adapter_config.json against the regular expressions of PEFT, which try one after another."""

import random
import re

import pytest

from tuneyard.adapters.model.patterns import EndPatterns, LayerPatterns, NamesInFull

PARTS = ("a", "b", "ab", "layers", "0", "1", "12", "x_y", "xay", "")


def paths(seed: int, count: int = 300) -> list[str]:
    chance = random.Random(seed)
    return [".".join(chance.choices(PARTS, k=chance.randint(1, 5))) for _ in range(count)]


def some_patterns(seed: int) -> list[str]:
    chance = random.Random(seed)
    expressions = ["a|b", "x.*y", r"layers\.\d+", "[ab]", "(a)", "x.y", "^a", "b$"]
    patterns = [*paths(seed, 12), *chance.sample(expressions, 3)]
    chance.shuffle(patterns)
    return patterns


@pytest.mark.parametrize("seed", range(40))
def test_the_first_pattern_that_matches_the_end(seed: int) -> None:
    patterns = some_patterns(seed)
    end_patterns = EndPatterns(patterns)
    for module in paths(seed + 1000):
        matching = [pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module)]
        assert end_patterns.first(module) == next(iter(matching), None), (patterns, module)


@pytest.mark.parametrize("seed", range(40))
def test_the_layer_of_the_first_pattern(seed: int) -> None:
    patterns = some_patterns(seed)
    layer_patterns = LayerPatterns(patterns)
    for module in paths(seed + 1000):
        matches = [re.match(rf".*\.{pattern}\.(\d+)\.", module) for pattern in patterns]
        layers = [match[match.lastindex or 1] for match in matches if match]
        if not any("(" in pattern for pattern in patterns):
            assert layer_patterns.layer_of(module) == next(iter(layers), None), (patterns, module)


@pytest.mark.parametrize("seed", range(40))
def test_names_in_full(seed: int) -> None:
    names = paths(seed, 5)
    names_in_full = NamesInFull(names)
    for module in paths(seed + 1000):
        assert names_in_full.are_part_of(module) == any(f".{name}." in f".{module}." for name in names)
        assert set(names_in_full.ends_of(module)) == {name for name in names if module.endswith(name)}


def test_dots_of_a_name_match_any_character() -> None:
    assert EndPatterns(["x.y"]).first("model.xay") == "x.y"
    assert EndPatterns(["x.y"]).first("model.xaay") is None
