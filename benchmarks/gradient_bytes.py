"""What each arm exchanges in data-parallel training, counted in two processes by a hook on DDP's buckets.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.gradient_bytes --out benchmarks/results/gradient_bytes.md

No network: the models have random weights. What is counted depends on shapes alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import ImageClassifier

MODELS = {"ViT-S/16": "vit_small_patch16_224", "ViT-B/16": "vit_base_patch16_224"}
QKVO = {"rank": 8, "targets": ("q", "k", "v", "o")}
ARMS: dict[str, AdapterConfig | bool] = {
    "B alone, rank 8": AdapterConfig("hB_zero_A_rand", **QKVO),
    "A alone, rank 8": AdapterConfig("B_rand_hA_zero", **QKVO),
    "LoRA, rank 8": AdapterConfig("hB_zero_hA_he", **QKVO),
    "head alone": False,
    "full fine-tuning": True,
}


class Traffic(Callback):
    """Bytes that DDP exchanges: of gradients in all steps, of states when it is made, and of states in later steps."""

    def __init__(self) -> None:
        self.gradients = self.at_start = self.later = 0
        self._broadcast = dist._broadcast_coalesced

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        def counted(group, tensors, *args):
            self.later += sum(tensor.nbytes for tensor in tensors)
            self._broadcast(group, tensors, *args)

        dist._broadcast_coalesced = counted

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.at_start, self.later = self.later, 0
        trainer.model.register_comm_hook(None, self._count)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        dist._broadcast_coalesced = self._broadcast

    def _count(self, state, bucket):
        self.gradients += bucket.buffer().nbytes
        return allreduce_hook(None, bucket)


def measure(model: str, arm: AdapterConfig | bool) -> Traffic:
    """One step of two processes."""
    is_adapter = isinstance(arm, AdapterConfig)
    module = ImageClassifier(
        timm.create_model(model, depth=12), 10, adapter=arm if is_adapter else None, train_backbone=arm is True
    )
    data = TensorDataset(torch.zeros(2, 3, 224, 224), torch.zeros(2, dtype=torch.long))
    traffic = Traffic()
    Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=1,
        callbacks=[traffic],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, DataLoader(data, batch_size=1))
    return traffic


def table() -> str:
    """A row for each model and arm."""
    lines = [
        "| model | arm | gradients a step | of LoRA's | at the start | later states |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, model in MODELS.items():
        rows = {}
        for arm, config in ARMS.items():
            torch.manual_seed(0)
            rows[arm] = measure(model, config)
        lora = rows["LoRA, rank 8"].gradients
        lines += [
            f"| {name} | {arm} | {row.gradients:,} | {row.gradients / lora:.2f} | {row.at_start:,} | {row.later:,} |"
            for arm, row in rows.items()
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file to write the table to, besides printing it.")
    args = parser.parse_args()
    found = table()
    if dist.get_rank() == 0:
        print(found)
        if args.out:
            args.out.write_text(HEADER + found + "\n")


HEADER = """# Bytes exchanged in data-parallel training

Counted by a hook on DDP's buckets in one step of two processes on a CPU, float32; adapters on q, k, v and the output
projection, each with an A and a B of one size; the head of 10 classes is included. "At the start" is what DDP
broadcasts when it is made, which left to itself is the whole model (the last row of each model) in every arm. "Later
states" are buffers, broadcast in each forward pass.

```
torchrun --standalone --nproc-per-node 2 -m benchmarks.gradient_bytes --out benchmarks/results/gradient_bytes.md
```

"""

if __name__ == "__main__":
    main()
