"""What BNormMonitor costs: the time of its logs over the time of the training steps between two of them.

    python -m benchmarks.monitor_overhead                      # ViT-B/16, one image a step: the hardest case
    python -m benchmarks.monitor_overhead --batch-size 32 --accelerator gpu

A log costs the same whatever the batch, so a step as short as possible is the worst for it. The log goes to a CSV file
and to TensorBoard, with histograms. Steps with and without a log are timed in one run, so that both see the same
load on the machine. The first figure is the one that is asked for, cost a step at one log in 50.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings

import timm
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig, adapters_by_name
from asym_lightning.callbacks import AdapterInjection, BNormMonitor


class Classifier(LightningModule):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = timm.create_model(name, num_classes=10)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.backbone(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


class TimedMonitor(BNormMonitor):
    """Notes how long each of its hooks takes in each step."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.seconds: list[float] = []

    def on_before_optimizer_step(self, *args) -> None:
        started = self._now()
        super().on_before_optimizer_step(*args)
        self.seconds.append(self._now() - started)

    def on_train_batch_end(self, *args, **kwargs) -> None:
        started = self._now()
        super().on_train_batch_end(*args, **kwargs)
        self.seconds[-1] += self._now() - started

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


class StepTimer(Callback):
    """Wall time from the start of one step to the start of the next."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *args) -> None:
        self.starts.append(TimedMonitor._now())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--scheme", default="hB_zero_A_rand")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--log-every", type=int, default=4, help="logs in this benchmark, to have enough to average")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    monitor, timer = TimedMonitor(every_n_steps=args.log_every), StepTimer()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator=args.accelerator,
            devices=1,
            max_steps=args.steps,
            logger=TensorBoardLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[
                AdapterInjection(AdapterConfig(scheme=args.scheme, rank=args.rank), backbone="backbone"),
                timer,
                monitor,
            ],
        )
        size = args.batch_size
        data = TensorDataset(
            torch.randn(size, 3, 224, 224).repeat(args.steps, 1, 1, 1), torch.ones(size * args.steps).long()
        )
        module = Classifier(args.model)
        trainer.fit(module, DataLoader(data, batch_size=size))
    warm = args.log_every  # the first log builds and loads what later ones have
    is_log = [(step + 1) % args.log_every == 0 for step in range(args.steps)]
    logs = [s for s, due in zip(monitor.seconds[warm:], is_log[warm:], strict=True) if due]
    others = [s for s, due in zip(monitor.seconds[warm:], is_log[warm:], strict=True) if not due]
    steps = [
        b - a
        for a, b, due in zip(timer.starts[warm:], timer.starts[warm + 1 :], is_log[warm:], strict=False)
        if not due
    ]
    log, other, step = map(statistics.median, (logs, others, steps))
    count = len(adapters_by_name(module.backbone))
    print(f"{args.model}, {args.scheme}, rank {args.rank}, {count} adapters, batch {size}, {args.accelerator}")
    print(f"cost at one log in 50 steps  {(log + 49 * other) / (50 * step):.2%}")
    print(f"a step {step * 1e3:.1f} ms, a log {log * 1e3:.1f} ms, the monitor in other steps {other * 1e6:.0f} us")


if __name__ == "__main__":
    main()
