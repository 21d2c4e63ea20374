"""`asym-lightning merge`: the trained model as a plain checkpoint, the adapter folded into its weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asym_lightning.cli.run_options import run_parser

DESCRIPTION = """Write the model of a finished run as a full checkpoint with the adapter folded in: for Hugging Face
models a folder that from_pretrained loads, its tokenizer or feature extractor included; for timm models config.json and
model.safetensors, which timm.create_model("local-dir:DIR", pretrained=True) loads. Neither needs this package. A
quantised backbone is merged in the precision that it had before, if --dequantize allows that."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = run_parser("merge", DESCRIPTION)
    parser.add_argument(
        "--dequantize", action="store_true", help="write a quantised backbone as the dense weights it computed with"
    )
    options = parser.parse_args(arguments)
    from asym_lightning.adapters import QuantizedPart, merge_adapters
    from asym_lightning.cli.hub import check_login, new_folder, push_folder
    from asym_lightning.cli.trained_run import load_trained_run
    from asym_lightning.lifecycle.own_files import write_own_files

    if options.push_to_hub:
        check_login()
    with new_folder(options.output) as folder:
        run = load_trained_run(options.run, options.checkpoint)
        backbone: Any = run.model.backbone
        quantized = QuantizedPart.of(backbone)
        merge_adapters(backbone, keep_weights=False, dequantize=options.dequantize)
        save_plain(backbone, folder, run.label_names)
        write_own_files(run.model, folder)
        for kind, name in run.preprocessors.items():
            from asym_lightning.data.preprocessors import load_preprocessor  # and with it transformers

            load_preprocessor(kind, name).save_pretrained(folder)
    print(f"merged  {options.output}")
    if quantized.num_layers:
        print(f"        {quantized.num_layers} layers, which were {' and '.join(quantized.kinds)}, are dense again")
    if options.push_to_hub:
        print(f"hub     {push_folder(options.output, options.push_to_hub, options.private)}")
    return 0


def save_plain(backbone: Any, folder: Path, label_names: Sequence[str] = ()) -> None:
    """Write a model in the format of the library that it comes from.

    Args:
        backbone: The model.
        folder: Where to write.
        label_names: Names of its classes, for timm's config; those of transformers have them already.

    Raises:
        ValueError: If it comes from neither transformers nor timm.
    """
    transformers: Any = sys.modules.get("transformers")  # which a model of it has imported
    if transformers is not None and isinstance(backbone, transformers.PreTrainedModel):
        backbone.save_pretrained(folder)
    elif hasattr(backbone, "save"):  # of a backbone of timm with parts of this package
        backbone.save(folder, label_names)
    elif hasattr(backbone, "pretrained_cfg"):
        import timm

        labels = {"label_names": list(label_names)} if label_names else None
        timm.models.save_for_hf(backbone, str(folder), model_config=labels, safe_serialization=True)
    else:
        raise ValueError(
            f"a {type(backbone).__name__} is a model of neither transformers nor timm: nothing can load it."
        )
