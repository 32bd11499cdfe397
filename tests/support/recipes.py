"""Code of docs/recipes.md, run as a user would."""

import re
from collections.abc import Mapping

from tests.support.processes import ROOT


def recipe_with(word):
    """Return the code block of docs/recipes.md that contains a word."""
    text = (ROOT / 'docs/recipes.md').read_text(encoding='utf-8')
    blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    (recipe,) = (block for block in blocks if word in block)
    return recipe


def run_recipe(word, replaced: Mapping[str, str]):
    """Run a code block with other values in it, and return its names."""
    recipe = recipe_with(word)
    for text, value in replaced.items():
        assert text in recipe
        recipe = recipe.replace(text, value)
    names = {}
    exec(recipe, names)
    return names
