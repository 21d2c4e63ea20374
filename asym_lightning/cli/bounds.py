"""`asym-lightning bounds`: the generalization bounds of Lemma 4.5 for an adapter's true shapes."""

from __future__ import annotations

from collections.abc import Sequence

from asym_lightning.cli.run_options import parsed_with_fit
from asym_lightning.cli.usage import ToolParser
from asym_lightning.core.kinds import Count, Positive, check_value

DESCRIPTION = """Bound the gap between training and test loss for B trained, A trained and both (Lemma 4.5), and say
what rank B-only may have at the bound of both. Give an adapter directory, or --config and options as fit takes them."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = ToolParser("bounds", description=DESCRIPTION)
    parser.add_argument("adapter", nargs="?", metavar="DIR", help="adapter directory or run directory")
    parser.add_argument("--config", action="append", default=[], help="config of a run; several are overlaid")
    parser.add_argument("--num-samples", type=int, required=True, help="number of training samples")
    parser.add_argument("--bits", type=float, default=32, help="bits a trained number holds (default: 32)")
    parser.add_argument("--sigma", type=float, default=1, help="the loss is sigma-sub-Gaussian (default: 1)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options, of_fit = parsed_with_fit(parser, arguments)
    if (options.adapter is None) == (not options.config):
        raise ValueError("`bounds` takes either an adapter directory or `--config`, as fit does.")

    for name, annotation in {"num_samples": Count, "bits": Positive, "sigma": Positive}.items():
        check_value(f"--{name.replace('_', '-')}", getattr(options, name), annotation)

    from asym_lightning.report.bounds import bounds_text, shapes_of_factors, shapes_of_model

    if options.adapter is not None:
        from asym_lightning.adapters.files.factors import read_factors

        shapes = shapes_of_factors(read_factors(options.adapter))
    else:
        from asym_lightning.adapters import adapters_by_name
        from asym_lightning.cli.built_model import build_model

        shapes = shapes_of_model(adapters_by_name(build_model(of_fit)))
        if not shapes:
            raise ValueError("the config describes a model without adapters.")
    print(bounds_text(shapes, options.num_samples, options.bits, options.sigma))
    return 0
