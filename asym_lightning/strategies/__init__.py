"""Lightning strategies."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.strategies.fsdp2 import FSDP2Strategy
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = ["FSDP2Strategy"]
