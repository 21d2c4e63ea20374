"""`asym-lightning estimate`: memory, traffic and file sizes of a config's training step, without running it."""

from __future__ import annotations

from collections.abc import Sequence

from asym_lightning.cli.run_options import config_parser, parsed_with_config
from asym_lightning.core.files import json_text, write_json
from asym_lightning.core.kinds import Count, Positive, check_value

DESCRIPTION = """Estimate what one training step of a config takes of each device, without running it: parameters,
weights, gradients, optimizer state, activations and peak, what the devices exchange, and what is written. No weights
are read or downloaded, and no device is needed; of a backbone on the hub, config.json is. Options of fit may follow."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = config_parser("estimate", DESCRIPTION)
    parser.add_argument("--strategy", help="single, ddp, fsdp or fsdp2; default: the config's")
    parser.add_argument("--devices", type=int, help="number of devices of all nodes together; default: the config's")
    parser.add_argument("--batch-size", type=int, help="rows of a batch of one device; default: the data's")
    parser.add_argument("--sequence-length", type=int, help="tokens of a row; default: the most that the data allows")
    parser.add_argument("--target-length", type=int, help="tokens of a summary; default: the most that the data allows")
    parser.add_argument("--image-size", type=int, help="height and width of images; default: the backbone's")
    parser.add_argument("--seconds", type=float, help="length of clips; default: the most that the data allows")
    parser.add_argument("--memory", metavar="SIZE", help="what a device has, such as 80GB: say whether the peak fits")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="what to print (default: table)")
    parser.add_argument("--out", metavar="FILE", help="also write the numbers to this file, as JSON")
    options, of_fit = parsed_with_config(parser, arguments)
    for name in ("devices", "batch_size", "sequence_length", "target_length", "image_size"):
        if (size := getattr(options, name)) is not None:
            check_value(name, size, Count)
    if options.seconds is not None:
        check_value("seconds", options.seconds, Positive)

    from asym_lightning.cli.estimate.described_run import DescribedRun
    from asym_lightning.cli.estimate.example_batch import example_batch, in_dtype, shape_of_batch
    from asym_lightning.estimate.estimate import estimate_step
    from asym_lightning.estimate.placement import check_strategy
    from asym_lightning.estimate.table import estimate_table, size_from_text

    memory = None if options.memory is None else size_from_text(options.memory)
    described = DescribedRun(of_fit)
    run = described.run(options.strategy, options.devices)
    check_strategy(run.strategy, run.devices)
    module = described.build_module()
    shape = shape_of_batch(described.data, vars(options))
    estimate = estimate_step(
        module,
        lambda: in_dtype(example_batch(module, shape), described.input_dtype()),
        lambda batch: module.step(batch).loss,  # type: ignore[operator]
        lambda: module.optimizer(module.parameter_groups()),  # type: ignore[operator]
        run,
        backbone=getattr(module, "backbone", None),
    )
    result = estimate.as_dict()
    if memory is not None:
        result["fits"] = estimate.peak <= memory
    if options.out:
        write_json(options.out, result)
    if options.format == "json":
        print(json_text(result), end="")
    else:
        from rich.console import Console

        kind = "GPU" if run.is_gpu else "CPU"
        title = f"{described.name}: {run.strategy}, {run.devices} {kind}{'s' if run.devices > 1 else ''}"
        Console().print(estimate_table(estimate, title, memory))
    return 0
