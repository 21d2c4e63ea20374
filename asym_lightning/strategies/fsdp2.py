"""FSDP2 with checkpoints that hold what was trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import Optimizer
from typing_extensions import override

from asym_lightning.adapters import check_adapter_description, trained_state_dict
from asym_lightning.adapters.files.checkpoint import DESCRIPTION_KEY, STATE_KEY
from asym_lightning.core.dtensor import is_sharded, sharded_like, whole_state_dict
from asym_lightning.core.messages import listed
from asym_lightning.core.run_files import SHARDED_METADATA
from asym_lightning.sharding import ShardingOptions


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's `ModelParallelStrategy` for FSDP2: every process holds a shard of each parameter.

    A module shards itself in `configure_model`: AdapterModule does, and AdapterInjection does it for any other. Blocks
    are gathered one after the other, used, and freed again.

    Checkpoints are those of any other strategy: what was trained is gathered, one tensor at a time, and the first
    process writes one file. So a run can be resumed on another number of processes, or without sharding. The frozen
    backbone is never gathered.

    Args:
        reshard_after_forward: Free a block after its forward pass and gather it again for its backward pass; False
            keeps it in between, which saves a third of the traffic.
        activation_checkpointing: Keep of each block only its input and compute the rest again in the backward pass.
        cpu_offload: Keep shards, gradients and the optimizer's state in the host's memory; for GPUs.
        save_distributed_checkpoint: Let each process write its shards into a folder in place of one whole file, for
            full fine-tuning of what fits no single process. This strategy alone can resume such a checkpoint, on any
            number of processes.
        process_group_backend: As in `ModelParallelStrategy`; None takes the device's own, and with `cpu_offload` gloo
            beside it, for shards that are in the host's memory have to be gathered when they are saved.
        timeout: How long processes wait for each other.

    Raises:
        ValueError: On start, if an option does not suit the devices or the processes are about to train different
            models; on resuming, if the checkpoint does not fit.

    Example:
        >>> FSDP2Strategy(activation_checkpointing=True).sharding.activation_checkpointing
        True
    """

    def __init__(
        self,
        reshard_after_forward: bool = True,
        activation_checkpointing: bool = False,
        cpu_offload: bool = False,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        if cpu_offload and process_group_backend is None:
            process_group_backend = "cpu:gloo,cuda:nccl"
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.sharding = ShardingOptions(reshard_after_forward, activation_checkpointing, cpu_offload)
        self.saves_shards = save_distributed_checkpoint
        self._resumed_from: Path | None = None

    # Setting up

    @override
    def setup_environment(self) -> None:
        # "auto" would mean the number of nodes, each of which would hold the whole model.
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @override
    def setup(self, trainer: Trainer) -> None:
        assert self.lightning_module is not None
        if not any(is_sharded(parameter) for parameter in self.lightning_module.parameters()):
            raise ValueError(
                f"{type(self).__name__} shards AdapterModules, and other modules with an AdapterInjection callback and "
                f"a `configure_model`; {type(self.lightning_module).__name__} is neither."
            )
        super().setup(trainer)

    @override
    def model_to_device(self) -> None:
        # Parameters are where sharding has put them, which may be the host.
        assert self.model is not None
        for buffer in self.model.buffers():
            buffer.data = buffer.data.to(self.root_device)
        # What is no buffer but has state of its own, such as metrics, moves by its `_apply`.
        for module in self.model.modules():
            if not any(True for _ in module.parameters()):
                module.to(self.root_device)

    # Saving

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        trained = trained_state_dict(self.lightning_module)
        return trained if self.saves_shards else whole_state_dict(trained, trained, keep=self.is_global_zero)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        if self.saves_shards:
            return super().optimizer_state(optimizer)
        state = getattr(optimizer, "optimizer", optimizer).state_dict()
        moments = {n: whole_state_dict(m, m, keep=self.is_global_zero) for n, m in state["state"].items()}
        return {**state, "state": moments} if self.is_global_zero else {}

    # Loading

    @property
    @override
    def restore_checkpoint_after_setup(self) -> bool:
        return False  # shards are there when `configure_model` is done, as the whole model is in other strategies

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        path = Path(self.broadcast(checkpoint_path))
        self._resumed_from = path
        if not path.is_dir():
            return self.checkpoint_io.load_checkpoint(path, map_location="cpu", weights_only=weights_only)
        module = self.lightning_module
        assert module is not None
        metadata = path / SHARDED_METADATA
        if not metadata.is_file():
            raise ValueError(f"the folder {str(path)!r} is no sharded checkpoint: it lacks {SHARDED_METADATA}.")
        checkpoint: dict[str, Any] = torch.load(metadata, map_location="cpu", weights_only=weights_only)
        if DESCRIPTION_KEY in checkpoint:
            check_adapter_description(module, checkpoint[DESCRIPTION_KEY])
        state = {STATE_KEY: trained_state_dict(module)}
        saved = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
        _check_same_keys(path, saved, state[STATE_KEY])
        dcp.load(state, checkpoint_id=path)
        if any(name.startswith("optimizer_0") for name in saved):
            # Lightning asks if they are there; `load_optimizer_state_dict` reads them.
            checkpoint["optimizer_states"] = []
        return {**checkpoint, **state}

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        if self._resumed_from is not None and self._resumed_from.is_dir():
            assert self.model is not None
            for i, optimizer in enumerate(self.optimizers):
                state = {f"optimizer_{i}": get_optimizer_state_dict(self.model, optimizer)}
                dcp.load(state, checkpoint_id=self._resumed_from)
                set_optimizer_state_dict(self.model, optimizer, state[f"optimizer_{i}"])
            return
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            _check_plain(state, len(parameters))
            sharded = {
                number: {name: _like(value, parameters[number]) for name, value in moments.items()}
                for number, moments in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": sharded})


def _like(value: Any, parameter: Tensor) -> Any:
    """A moment, sharded as its parameter is; anything else, such as the number of steps, as it is."""
    if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0:
        return sharded_like(value, parameter)
    return value


def _check_plain(state: Mapping[str, Any], num_parameters: int) -> None:
    saved = [number for group in state["param_groups"] for number in group["params"]]
    if len(saved) != num_parameters or any(not isinstance(number, int) for number in state["state"]):
        raise ValueError(
            f"The checkpoint's optimizer holds {len(saved)} parameters and this one {num_parameters}: it is of a run "
            "that was sharded in another way or trained something else; resume it with the strategy and the `adapter` "
            "it was written with."
        )


def _check_same_keys(path: Path, saved: Iterable[str], state: Mapping[str, Any]) -> None:
    """Refuse the shards of a model that trained something else."""
    names = set(saved)
    missing = [f"`{name}`" for name in state if f"{STATE_KEY}.{name}" not in names]
    if missing:
        raise ValueError(
            f"The sharded checkpoint {str(path)!r} lacks {listed(missing, 1)}; was it written with another backbone, "
            "adapter configuration or head?"
        )
