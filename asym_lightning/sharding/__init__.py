"""Models too large for one device: FSDP1 and FSDP2 around adapters, and weights read shard by shard; pure torch."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.sharding.empty import empty_parameters, is_empty
    from asym_lightning.sharding.fully_shard import ShardingOptions, checkpoint_activations, shard_module
    from asym_lightning.sharding.lightning_module import shard_lightning_module
    from asym_lightning.sharding.materialize import materialize
    from asym_lightning.sharding.units import AdapterWrapPolicy, blocks, large_embeddings
    from asym_lightning.sharding.weights import PretrainedWeights
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = [
    "AdapterWrapPolicy",
    "PretrainedWeights",
    "ShardingOptions",
    "blocks",
    "checkpoint_activations",
    "empty_parameters",
    "is_empty",
    "large_embeddings",
    "materialize",
    "shard_lightning_module",
    "shard_module",
]
