"""Asymmetric low-rank adapters in pure torch."""

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.factors import LowRankAdapter
from asym_lightning.adapters.injection import (
    adapter_layers,
    adapters_by_name,
    freeze_backbone,
    inject_adapters,
    remove_adapters,
    reset_adapters,
    trainable_parameters,
    untrained_adapters,
)
from asym_lightning.adapters.layers import AdaptedLayer
from asym_lightning.adapters.merging import merge_adapters, unmerge_adapters
from asym_lightning.adapters.report import InjectionReport
from asym_lightning.adapters.scheme import Factor, Scheme

__all__ = [
    "AdaptedLayer",
    "AdapterConfig",
    "Factor",
    "InjectionReport",
    "LowRankAdapter",
    "Scheme",
    "adapter_layers",
    "adapters_by_name",
    "freeze_backbone",
    "inject_adapters",
    "merge_adapters",
    "remove_adapters",
    "reset_adapters",
    "trainable_parameters",
    "unmerge_adapters",
    "untrained_adapters",
]
