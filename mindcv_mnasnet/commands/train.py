"""Train a MnasNet: mnasnet train -c RECIPE [--key value ...]; --help lists all keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mindcv_mnasnet.errors import interrupts_wait
from mindcv_mnasnet.recipe.recipe import load_recipe


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    recipe = load_recipe(argv=sys.argv[1:] if argv is None else argv)

    with interrupts_wait():
        from mindcv_mnasnet.train.engine import fit  # after the recipe is checked: MindSpore takes seconds to load

    fit(recipe)
    return 0
