"""Files of directions that tasks' inputs have, for A's that leave them alone: safetensors, with one tensor a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.adapters.files.backbone import other_weight, unchanged_sample
from asym_lightning.adapters.files.described import read_described, save_described
from asym_lightning.adapters.init.subspaces import directions_to_keep
from asym_lightning.adapters.layers.lookup import adapter_layers
from asym_lightning.core.messages import listed

METADATA_KEY = "asym_lightning_tasks"


@dataclass(frozen=True)
class TaskInputs:
    """What the inputs of one task after another were, layer by layer.

    >>> S = {"fc": torch.diag(torch.tensor([1.0, 0.0, 0.0])), "proj": torch.diag(torch.tensor([0.0, 1.0, 1.0]))}
    >>> tasks = TaskInputs().with_task(0, S, share=0.99)
    >>> tasks.num_tasks, {name: len(rows) for name, rows in tasks.before(1).items()}
    (1, {'fc': 1, 'proj': 2})

    Args:
        directions: (m, d_in) orthonormal rows by layer: those of the first task, then what each later one adds.
        counts: Of the rows that each task added, by layer.
        backbone: The first numbers of weights that no task changes, by which a backbone is known again.
    """

    directions: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Mapping[str, list[int]] = field(default_factory=dict)
    backbone: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def num_tasks(self) -> int:
        """How many tasks there were."""
        return max(map(len, self.counts.values()), default=0)

    def before(self, slot: int) -> dict[str, Tensor]:
        """The directions of the tasks 0 to slot - 1, by layer."""
        return {name: rows[: sum(self.counts[name][:slot])] for name, rows in self.directions.items()}

    def with_task(
        self, slot: int, inputs: Mapping[str, Tensor], share: float, backbone: Mapping[str, list[float]] | None = None
    ) -> TaskInputs:
        """The tasks before the slot, and one more.

        Args:
            slot: Number of the task.
            inputs: S (d_in, d_in), the second moment of its inputs, by layer.
            share: Of ``E ||x||^2`` that the directions shall hold; see
                :func:`~asym_lightning.adapters.init.subspaces.directions_to_keep`.
            backbone: What :func:`~asym_lightning.adapters.files.backbone.unchanged_sample` gives.
        """
        before, directions, counts = self.before(slot), {}, {}
        for name, S in inputs.items():
            taken = before.get(name, S.new_zeros(0, len(S)))
            added = directions_to_keep(S, taken, share)
            directions[name] = torch.cat([taken, added.to(taken)])
            counts[name] = [*self.counts.get(name, [])[:slot], len(added)]
        here = dict(backbone or {})
        kept = {name: numbers for name, numbers in here.items() if not slot or name in self.backbone}
        return TaskInputs(directions, counts, kept)


def save_task_inputs(tasks: TaskInputs, path: str | Path) -> None:
    """Write the file, whole or not at all.

    Args:
        tasks: What to write.
        path: The file, by custom with the suffix ``.safetensors``.
    """
    save_described(path, METADATA_KEY, tasks.directions, {"counts": tasks.counts, "backbone": tasks.backbone})


def read_task_inputs(path: str | Path) -> TaskInputs:
    """Read what :func:`save_task_inputs` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged or holds something else.
    """
    return read_described(path, METADATA_KEY, _task_inputs, what="tasks' inputs", writer="CalibrateA")


def _task_inputs(directions: Mapping[str, Tensor], description: Mapping[str, Any]) -> TaskInputs:
    tasks = TaskInputs(directions, **description)
    if any(len(rows) != sum(tasks.counts[name]) for name, rows in directions.items()):
        raise ValueError("rows and counts differ")
    return tasks


def check_task_inputs(tasks: TaskInputs, slot: int, model: nn.Module, path: str | Path) -> None:
    """Check that a file is of the tasks before a slot, on an adapted model's backbone and layers.

    Where the model is sharded every process has to call it.

    Args:
        tasks: What was read.
        slot: Number of the task that is to be trained.
        model: An adapted model.
        path: Where it was read, for messages.

    Raises:
        ValueError: It does not fit; the message says what was expected and found.
    """
    if tasks.num_tasks < slot:
        raise ValueError(
            f"`slot` is {slot}, and `{path}` has the inputs of {tasks.num_tasks} tasks: train the tasks in order, from "
            "slot 0 on."
        )
    if tasks.num_tasks > slot + 1:
        raise ValueError(
            f"`{path}` has the inputs of {tasks.num_tasks} tasks, and `slot` {slot} would drop those of later ones: "
            "name another file, or remove this one to train them anew."
        )
    if slot == 0:
        return
    layers = adapter_layers(model)
    for name in sorted({*layers, *tasks.directions}):
        if name not in layers or name not in tasks.directions:
            lacking = "is not in it" if name in layers else "is not adapted here"
            there = listed(sorted(tasks.directions), 3)
            raise ValueError(
                f"`{path}` is of other targets: `{name}` {lacking}. It has {there}; train every task with the same "
                "`targets`."
            )
        (d_in,) = {adapter.d_in for adapter in layers[name].adapters.values()}
        if tasks.directions[name].shape[1] != d_in:
            raise ValueError(
                f"`{path}` is of another backbone: `{name}` has {d_in} inputs, and "
                f"{tasks.directions[name].shape[1]} there."
            )
    here = unchanged_sample(model)
    if (other := other_weight(here, tasks.backbone)) is not None:
        raise ValueError(
            f"`{path}` is of another backbone: `{other}` starts with {here[other][0]:.6g} here and with "
            f"{tasks.backbone[other][0]:.6g} there."
        )
