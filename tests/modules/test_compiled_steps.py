"""Adapters break no graph of a task's step, and have none compiled anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from asym_lightning.adapters import AdapterConfig
from tests.tasks import TASKS, config

OF_EACH_KIND = ["images", "masked images", "sounds", "embeddings"]


def num_graphs(task: str, adapter: AdapterConfig | None) -> int:
    """Graphs that are made of steps on batches of three sizes, backward included."""
    torch.compiler.reset()
    torch.manual_seed(0)
    module, batch = TASKS[task](adapter)
    module.configure_model()
    counted: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        counted.append(graph)
        return graph.forward

    step = torch.compile(module.train().step, dynamic=True, backend=backend)
    for rows in (None, 2, 3):
        part = tree_map(lambda value, rows=rows: value[:rows] if isinstance(value, Tensor) else value, batch)
        loss = step(module.on_before_batch_transfer(part, 0)).loss
        if adapter is not None:
            loss.backward()
    return len(counted)


@pytest.mark.slow
@pytest.mark.parametrize("task", OF_EACH_KIND)
def test_a_step_takes_no_more_graphs_than_without_adapters(task) -> None:
    assert 0 < num_graphs(task, config()) <= num_graphs(task, None)
