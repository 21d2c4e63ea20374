"""The state of every global random generator, so that a resumed run draws what the uninterrupted one draws."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class GeneratorStates(NamedTuple):
    """The states as the generators give them, which takes microseconds; for a while, not for a file.

    >>> states = GeneratorStates.now()
    >>> first = random.random(), np.random.rand(), torch.rand(1)
    >>> states.restore()
    >>> first == (random.random(), np.random.rand(), torch.rand(1))
    True
    """

    python: tuple[Any, ...]
    numpy: Any
    torch: Tensor
    cuda: Sequence[Tensor]

    @classmethod
    def now(cls) -> GeneratorStates:
        """Those of this process."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)

    def restore(self) -> None:
        """Put them back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


def random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators (CPU and every CUDA device) in this process.

    Made of tensors, numbers, strings and lists only, so that ``torch.load(weights_only=True)`` reads it.

    >>> state = random_state()
    >>> first = random.random(), np.random.rand(), torch.rand(1)
    >>> set_random_state(state)
    >>> first == (random.random(), np.random.rand(), torch.rand(1))
    True
    """
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    return {
        "python": [version, list(words), gauss],
        "numpy": numpy_state,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what :func:`random_state` gave; CUDA devices that are not here now are passed over."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    words_and_position = state["numpy"]["state"]
    numpy_words = words_and_position["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state({**state["numpy"], "state": {**words_and_position, "key": numpy_words}})
    torch.set_rng_state(state["torch"].cpu())
    for device, cuda_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(cuda_state.cpu(), device)
