"""Callbacks for any Lightning project, one a file."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.adapters.rank.policies import Budget, Energy, GrowOnStall, Milestones, RankPolicy
    from asym_lightning.callbacks.calibrate import CalibrateA
    from asym_lightning.callbacks.checkpoint import AdapterCheckpoint
    from asym_lightning.callbacks.class_scores import ClassScores
    from asym_lightning.callbacks.freeze import FreezeA
    from asym_lightning.callbacks.injection import AdapterInjection
    from asym_lightning.callbacks.norm_monitor import BNormMonitor
    from asym_lightning.callbacks.order_seed import OrderSeed
    from asym_lightning.callbacks.private_training import PrivateTraining
    from asym_lightning.callbacks.rank_schedule import RankScheduler
    from asym_lightning.callbacks.redraw import RedrawA
    from asym_lightning.callbacks.row_adapters import RowAdapters
    from asym_lightning.callbacks.run_record import RunRecord
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = [
    "AdapterCheckpoint",
    "AdapterInjection",
    "BNormMonitor",
    "Budget",
    "CalibrateA",
    "ClassScores",
    "Energy",
    "FreezeA",
    "GrowOnStall",
    "Milestones",
    "OrderSeed",
    "PrivateTraining",
    "RankPolicy",
    "RankScheduler",
    "RedrawA",
    "RowAdapters",
    "RunRecord",
]
