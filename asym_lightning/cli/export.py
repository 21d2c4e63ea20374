"""`asym-lightning export`: the trained adapter as a directory for `peft`, with a model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asym_lightning.cli.run_options import run_parser
from asym_lightning.core.messages import listed

DESCRIPTION = """Write the adapter of a finished run, and the heads trained with it, as a directory that peft loads,
with a model card."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = run_parser("export", DESCRIPTION)
    parser.add_argument(
        "--compact", action="store_true", help="leave out frozen factors that their seed gives back; not for peft"
    )
    options = parser.parse_args(arguments)
    from asym_lightning.adapters import layers_misread_by_peft, save_adapters
    from asym_lightning.cli.hub import check_login, new_folder, push_folder
    from asym_lightning.cli.model_card import model_card
    from asym_lightning.cli.trained_run import load_trained_run
    from asym_lightning.lifecycle.label_names import save_label_names
    from asym_lightning.lifecycle.own_files import write_own_files

    if options.push_to_hub:
        check_login()
    with new_folder(options.output) as folder:
        run = load_trained_run(options.run, options.checkpoint)
        backbone: Any = run.model.backbone
        card = model_card(
            backbone,
            run.backbone_name,
            is_compact=options.compact,
            label_names=run.label_names,
            data=run.data,
            scores=run.scores,
        )
        save_adapters(backbone, folder, include_frozen=not options.compact)
        save_label_names(run.label_names, folder)
        write_own_files(run.model, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"exported  {options.output}")
    if (misread := layers_misread_by_peft(backbone)) and not options.compact:
        print(f"note      peft computes otherwise with, or refuses, {listed(misread, 3)}: see the model card")
    if options.push_to_hub:
        print(f"hub       {push_folder(options.output, options.push_to_hub, options.private)}")
    return 0
