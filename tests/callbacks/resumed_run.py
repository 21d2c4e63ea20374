"""A run with every callback on, as a program of its own, so that it can be killed.

    python tests/callbacks/resumed_run.py FOLDER [--kill-in-save N] [--kill-at-step N] [--resume]

It resumes from the newest complete checkpoint. At the end it writes `end.pt`: weights, optimizer state, metrics.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.loggers import CSVLogger

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from asym_lightning.callbacks import AdapterCheckpoint, BNormMonitor, FreezeA, Milestones, RankScheduler  # noqa: E402
from tests.callbacks.foreign import Foreign, injection, loader, trainer  # noqa: E402


class KillAtStep(Callback):
    """SIGKILL when a step is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_in_save(number: int) -> None:
    """SIGKILL in the middle of the file that the given save writes."""
    replace, saves = os.replace, [0]

    def half_written(source, target) -> None:
        if str(target).endswith(".ckpt"):
            saves[0] += 1
            if saves[0] == number:
                data = Path(source).read_bytes()
                Path(source).write_bytes(data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = half_written


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-in-save", type=int)
    parser.add_argument("--kill-at-step", type=int)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    seed_everything(0, verbose=False)
    if args.kill_in_save:
        kill_in_save(args.kill_in_save)
    checkpoints = args.folder / "checkpoints"
    callbacks = [
        injection(adapter={"rank": 4, "scheme": "hB_zero_hA_rand", "dropout": 0.1}),
        RankScheduler(Milestones({3: 2, 9: 6, 15: 3})),
        FreezeA(after_steps=5, orthonormalize=True),
        BNormMonitor(every_n_steps=2),
        AdapterCheckpoint(checkpoints, every_n_train_steps=2, save_top_k=-1, save_last=True),
    ]
    if args.kill_at_step:
        callbacks.append(KillAtStep(args.kill_at_step))
    run = trainer(
        args.folder,
        *callbacks,
        max_epochs=4,
        enable_checkpointing=True,
        logger=CSVLogger(args.folder, name="log", version=0, flush_logs_every_n_steps=1),
    )
    newest = max(checkpoints.glob("*.ckpt"), key=os.path.getmtime) if args.resume else None
    module = Foreign("configure_model")
    run.fit(module, loader(shuffle=True), loader(), ckpt_path=newest)
    torch.save(
        {
            "state": module.state_dict(),
            "optimizer": run.optimizers[0].state_dict(),
            "metrics": dict(run.callback_metrics),
            "losses": module.losses,
            "random": torch.rand(3),
        },
        args.folder / "end.pt",
    )


if __name__ == "__main__":
    main()
