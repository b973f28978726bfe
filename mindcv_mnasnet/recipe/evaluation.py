"""The recipe keys that say how a network is evaluated, as they are marked in the table of keys."""

from __future__ import annotations

from mindcv_mnasnet.recipe.rule import Use
from mindcv_mnasnet.recipe.values import keys_for

#: How an image becomes the network's input.
EVALUATION_KEYS = keys_for(Use.INPUT)
#: What a source's code fixes, and a checkpoint keeps, unless other settings are given.
CONVENTION_KEYS = keys_for(Use.CONVENTION)
#: Those that say what the network is.
NETWORK_KEYS = frozenset(keys_for(Use.NETWORK))
#: Keys that validation takes, on the command line or in a call.
VALIDATION_KEYS = frozenset(keys_for(Use.INPUT | Use.VALIDATION | Use.NETWORK | Use.CONVENTION | Use.COMMAND))
