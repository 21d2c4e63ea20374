"""`asym-lightning advise`: what to train, said before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asym_lightning.cli.run_options import add_calibration_options, config_parser, parsed_with_config
from asym_lightning.core.kinds import Count, check_value

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

DESCRIPTION = """Say beforehand, from a few batches of a config's own training data and loss: which factor to train,
what share of the predicted update B explains with A by each rule at ranks 2 to 64, which layers are worth adapting at
a budget of trained numbers, and a rate to start from. --out writes it as an overlay for fit. Options of fit may
follow."""
RANKS = (2, 4, 8, 16, 32, 64)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = config_parser("advise", DESCRIPTION)
    parser.add_argument("--out", metavar="FILE", help="overlay to write, such as advised.yaml")
    parser.add_argument("--rules", nargs="+", help="init rules of A to compare; default: all with orthonormal rows")
    parser.add_argument("--budget", type=int, help="numbers that may train in all B's: share them out among layers")
    add_calibration_options(parser, num_batches=16)
    options, of_fit = parsed_with_config(parser, arguments)
    if options.budget is not None:
        check_value("--budget", options.budget, Count)

    from asym_lightning.adapters import adapter_layers
    from asym_lightning.analysis.advice import frozen_rules
    from asym_lightning.cli.built_model import start_run
    from asym_lightning.core.files import write_text
    from asym_lightning.lifecycle.backbone import adapted_backbone
    from asym_lightning.lifecycle.calibration import Calibration
    from asym_lightning.report.advice import Advice, advice_text, overlay_text

    rules = frozen_rules(options.rules)
    calibration = Calibration(options.num_batches, options.head_steps, options.layers_at_a_time)

    def advise(trainer: Trainer, module: LightningModule) -> None:
        backbone = adapted_backbone(trainer, module)
        layers = adapter_layers(backbone)
        if not layers:
            raise ValueError("the config describes a model without adapters.")
        forecasts = calibration.forecasts(trainer, module, backbone, rules, RANKS)
        if not trainer.is_global_zero:
            return
        advice = Advice(
            config=next(iter(layers.values())).adapters.config,
            forecasts=forecasts,
            layers={a.A_key: name for name, layer in layers.items() for a in layer.adapters.values()},
            rate=_rate(trainer),
            head_steps=options.head_steps,
        )
        if options.budget is not None:
            advice = advice.with_plan(options.budget)
        print(advice_text(advice), end="")
        if options.out:
            write_text(options.out, overlay_text(advice))
            print(f"overlay       {options.out}")

    start_run(of_fit, advise)
    return 0


def _rate(trainer: Trainer) -> float | None:
    """The one learning rate of the run; None where it has several."""
    from asym_lightning.lifecycle.calibration import rate_before_schedule

    rates = {rate_before_schedule(group) for optimizer in trainer.optimizers for group in optimizer.param_groups}
    return rates.pop() if len(rates) == 1 else None
