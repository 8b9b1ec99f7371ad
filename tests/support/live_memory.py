"""How many bytes of tensors are alive at once: exact where a process's memory is not."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LivePeak(TorchDispatchMode):
    """The most bytes that tensors made inside take at once; what kernels take within is unseen.

    Args:
        model: Whose parameters do not count.

    Attributes:
        now: Bytes that are alive.
        peak: The most there were; may be set anew.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._live = {p.untyped_storage()._cdata: 0 for p in model.parameters()}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._live:
            self._live[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, storage._cdata)

    def _freed(self, place: int) -> None:
        self.now -= self._live.pop(place, 0)
