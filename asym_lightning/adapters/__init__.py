"""Asymmetric low-rank adapters in pure torch."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.adapters.config import AdapterConfig
    from asym_lightning.adapters.files.checkpoint import (
        adapter_description,
        adapter_state_dict,
        check_adapter_description,
        check_trained_state_dict,
        fill_checkpoint,
        load_trained_state_dict,
        restore_checkpoint,
        trained_state_dict,
    )
    from asym_lightning.adapters.files.directory import SavedAdapter, read_adapter, write_adapter
    from asym_lightning.adapters.files.load import load_adapters, swap_adapters
    from asym_lightning.adapters.files.misread import layers_misread_by_peft
    from asym_lightning.adapters.files.save import save_adapters
    from asym_lightning.adapters.init.rule import Draw, InitRule, register_init
    from asym_lightning.adapters.init.statistics import CalibrationStatistics
    from asym_lightning.adapters.layers.adapted import AdaptedLayer
    from asym_lightning.adapters.layers.kinds.registry import register_kind
    from asym_lightning.adapters.layers.lookup import adapter_layers, adapters_by_name
    from asym_lightning.adapters.layers.low_rank import LowRankAdapter
    from asym_lightning.adapters.scheme import Factor, Scheme
    from asym_lightning.adapters.stack.adapter_stack import AdapterStack
    from asym_lightning.adapters.surgery.disable import adapters_disabled, adapters_enabled
    from asym_lightning.adapters.surgery.freeze import (
        freeze_backbone,
        frozen_batch_norms,
        trainable_parameters,
        untrained_adapters,
    )
    from asym_lightning.adapters.surgery.inject import (
        inject_adapters,
        remove_adapters,
        reset_adapters,
        undrawn_adapters,
    )
    from asym_lightning.adapters.surgery.merge import merge_adapters, unmerge_adapters
    from asym_lightning.adapters.surgery.quantize import (
        QuantizedPart,
        check_quantization,
        num_weights,
        quantize_backbone,
    )
    from asym_lightning.adapters.surgery.report import InjectionReport
    from asym_lightning.adapters.targets.families.family import Family, register_family
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = [
    "AdaptedLayer",
    "AdapterConfig",
    "AdapterStack",
    "CalibrationStatistics",
    "Draw",
    "Factor",
    "Family",
    "InitRule",
    "InjectionReport",
    "LowRankAdapter",
    "QuantizedPart",
    "SavedAdapter",
    "Scheme",
    "adapter_description",
    "adapter_layers",
    "adapter_state_dict",
    "adapters_by_name",
    "adapters_disabled",
    "adapters_enabled",
    "check_adapter_description",
    "check_quantization",
    "check_trained_state_dict",
    "fill_checkpoint",
    "freeze_backbone",
    "frozen_batch_norms",
    "inject_adapters",
    "layers_misread_by_peft",
    "load_adapters",
    "load_trained_state_dict",
    "merge_adapters",
    "num_weights",
    "quantize_backbone",
    "read_adapter",
    "register_family",
    "register_init",
    "register_kind",
    "remove_adapters",
    "reset_adapters",
    "restore_checkpoint",
    "save_adapters",
    "swap_adapters",
    "trainable_parameters",
    "trained_state_dict",
    "undrawn_adapters",
    "unmerge_adapters",
    "untrained_adapters",
    "write_adapter",
]
