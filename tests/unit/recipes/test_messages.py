"""Each sentence of a problem keeps its template and values, so that it can be read in another language."""

import re
from pathlib import Path

import pytest
import yaml

from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import Message, translated
from tuneyard.core.language.reader import CHINESE, in_language
from tuneyard.recipes.checking.checked import quick_check
from tuneyard.recipes.machine.hardware import machine
from tuneyard.recipes.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "tests/examples/recipes"
BASE = yaml.safe_load((EXAMPLES / "base.yaml").read_text())
AS_IT_IS = b"# as it is\n"
SENTENCE = re.compile("[a-z]{2,} [a-z]{2,} [a-z]{2,}")


def test_problems_of_all_examples_are_messages():
    """On two machines, since rules on precision and packages have other sentences on each."""
    texts: list[str] = []
    for path in sorted(EXAMPLES.glob("*/*.yaml")):
        if AS_IT_IS in path.read_bytes():  # no recipe can be read from it
            with pytest.raises(ContentError) as error:
                read_recipe(path)
            texts.append(error.value.message)
            continue
        settings = BASE | (yaml.safe_load(path.read_text()) or {})
        for name in ("cpu", "T4"):
            for problem in quick_check(Recipe(path, settings, {}), machine(name)).problems:
                texts += [problem.message, problem.hint]
    sentences = [text for text in texts if SENTENCE.search(text) and " -m pip install " not in text]
    assert len(sentences) > 100
    assert [text for text in sentences if not isinstance(text, Message)] == []


@pytest.mark.parametrize(
    "value", ["unknown key", "3 rows", "{path} is missing", "果 is not given", "step of steps: 2 steps"]
)
def test_a_value_that_looks_like_a_sentence_of_ours_is_printed_as_it_is(value):
    """A dataset of the user, a module and a stage with such a name, in the line of each problem."""
    settings = BASE | {"dataset": value, "stage": value, "template": value, "media_dir": value, value: 1}
    recipe = Recipe(Path("r.yaml"), settings, {})
    lines = [problem.line() for problem in quick_check(recipe, machine("gpu")).problems]
    assert len([line for line in lines if value in line]) >= 3
    with in_language(CHINESE):
        again = [problem.line() for problem in quick_check(recipe, machine("gpu")).problems]
        printed = [translated(line) for line in lines]
    assert again == lines  # it is English until it is printed
    assert [value in line for line in printed] == [value in line for line in lines]
