"""`asym-lightning calibrate`: choose A once, by data, for any number of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asym_lightning.cli.run_options import add_calibration_options, config_parser, parsed_with_config

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

DESCRIPTION = """Choose the A of every adapter of a config by a few batches of its own training data and loss, as the
callback CalibrateA does before a run, and write them to a file, which runs of the same backbone and targets take with
CalibrateA(file=...). A file of a large rank serves smaller ones too. Options of fit may follow."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = config_parser("calibrate", DESCRIPTION)
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write, such as A.safetensors")
    parser.add_argument("--rule", help="init rule that draws from data; default: the scheme's, or whitened_gradient")
    parser.add_argument(
        "--keeps-rate", action="store_true", help="scale each A so that the rate which suits a random one suits it"
    )
    add_calibration_options(parser, num_batches=8)
    options, of_fit = parsed_with_config(parser, arguments)

    from asym_lightning.adapters.files.chosen import save_chosen
    from asym_lightning.callbacks import CalibrateA
    from asym_lightning.cli.built_model import start_run

    calibrate = CalibrateA(
        options.rule,
        num_batches=options.num_batches,
        head_steps=options.head_steps,
        layers_at_a_time=options.layers_at_a_time,
        keeps_rate=options.keeps_rate,
    )

    def write(trainer: Trainer, module: LightningModule) -> None:
        assert calibrate.chosen is not None
        if trainer.is_global_zero:
            save_chosen(calibrate.chosen, options.out)
            ranks = sorted({len(A) for A in calibrate.chosen.factors.values()})
            print(f"{len(calibrate.chosen.factors)} A's of rank {', '.join(map(str, ranks))}  {options.out}")

    start_run(of_fit, write, [calibrate])
    return 0
