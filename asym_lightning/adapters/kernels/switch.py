"""The environment variable that switches compiled kernels off."""

from __future__ import annotations

import os

VARIABLE = "ASYM_LIGHTNING_KERNELS"


def kernels_are_wanted() -> bool:
    """Whether kernels may be compiled, for a CPU or a GPU: unless `ASYM_LIGHTNING_KERNELS` is `0`.

    Raises:
        ValueError: It is neither `0` nor `1`.
    """
    value = os.environ.get(VARIABLE) or "1"
    if value not in ("0", "1"):
        raise ValueError(f"`{VARIABLE}` must be 0 (no compiled kernels) or 1, got {value!r}.")
    return value == "1"
