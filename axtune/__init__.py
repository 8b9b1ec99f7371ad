"""Fine-tuning for SK Telecom's A.X models, on exactly the tokens that will be served.

Data flows through the packages in the order in which they may import each other, each only those
before it: ``config`` (recipes), ``checkpoint`` (what is on the disk), ``data`` (token ids and
labels), ``plan`` (memory and time), ``model`` (weights in memory), ``training`` and ``weights``
(adapters trained; merged), ``export`` and ``verify`` (served; proved). ``run`` is a whole job, and
``cli`` has the commands.

The functions a notebook wants are here; each loads what it needs when it is first asked for, so
that ``import axtune`` is light:

- ``load_recipe(path, overrides=())`` and ``train(recipe)``, of a recipe or its file
- ``load_tokenizer(model)`` and ``prompt_ids(tokenizer, messages, tools)``
- ``model_folder(model)``, for other libraries
- ``check(files, model)`` and ``render_row(row, tokenizer)``
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from axtune.checkpoint.locate import model_folder as model_folder
    from axtune.checkpoint.tokenizer import load_tokenizer as load_tokenizer
    from axtune.config.loader import load as load_recipe
    from axtune.data.pipeline import check as check
    from axtune.data.pipeline import render_row as render_row
    from axtune.data.render import prompt_ids as prompt_ids
    from axtune.errors import AxtuneError as AxtuneError
    from axtune.run import train as train

# Read by the libraries when they are imported, so set before any of them is: nothing leaves the
# machine unless asked, a data loader's worker may start after texts were encoded in threads, and
# torch takes a CPU's memory in huge pages: a tenth of a step went into small ones.
for _name, _value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "USE_HUB_KERNELS": "0",
    "TOKENIZERS_PARALLELISM": "true",
    "THP_MEM_ALLOC_ENABLE": "1",
}.items():
    os.environ.setdefault(_name, _value)
# Says at import, on every CPU machine, that it has no kernels from the Hub; it needs none.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"
__all__ = [
    "AxtuneError",
    "check",
    "load_recipe",
    "load_tokenizer",
    "model_folder",
    "prompt_ids",
    "render_row",
    "train",
]

_HOMES = {
    "AxtuneError": ("axtune.errors", "AxtuneError"),
    "check": ("axtune.data.pipeline", "check"),
    "load_recipe": ("axtune.config.loader", "load"),
    "load_tokenizer": ("axtune.checkpoint.tokenizer", "load_tokenizer"),
    "model_folder": ("axtune.checkpoint.locate", "model_folder"),
    "prompt_ids": ("axtune.data.render", "prompt_ids"),
    "render_row": ("axtune.data.pipeline", "render_row"),
    "train": ("axtune.run", "train"),
}


def __getattr__(name: str) -> Any:
    try:
        room, attribute = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'axtune' has no attribute {name!r}") from None
    if room != "axtune.errors":
        from axtune.errors import require_linux

        require_linux()
    from axtune.loading import loading

    with loading():
        return getattr(importlib.import_module(room), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
