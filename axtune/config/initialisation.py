"""Ways to initialise a LoRA (PEFT's ``init_lora_weights``) that do more than fill the adapter.

Some subtract from the base what they put into the adapter: PEFT's raw save of such an adapter fits
a base that exists only in the memory of the run that trained it. Some want a pass over data first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Initialisation:
    """One way to initialise, as far as others have to know it.

    Attributes:
        name: As the recipe or ``adapter_config.json`` gives it.
        moves_base: Whether it changes the base's weights.
        needs_preparation: Whether it wants a pass over data, or over the base, before training.
    """

    name: str
    moves_base: bool = False
    needs_preparation: bool = False


# What stands here not only fills A and B: true, gaussian, orthogonal and the like (peft 0.18,
# tuners/lora/layer.py).
_TABLE = (
    Initialisation("pissa", moves_base=True),
    Initialisation("olora", moves_base=True),
    Initialisation("corda", moves_base=True, needs_preparation=True),
    Initialisation("loftq", moves_base=True, needs_preparation=True),
    Initialisation("lora_ga", moves_base=True, needs_preparation=True),
    Initialisation("eva", needs_preparation=True),
)


def initialisation(lora: Mapping[str, Any]) -> Initialisation:
    """How an adapter is or was initialised.

    Args:
        lora: A recipe's ``lora`` section, or an ``adapter_config.json``.
    """
    name = str(lora.get("init_lora_weights", True)).lower()
    for known in _TABLE:
        if name.startswith(known.name):  # some names go on: pissa_niter_4
            return replace(known, name=name)
    return Initialisation(name)
