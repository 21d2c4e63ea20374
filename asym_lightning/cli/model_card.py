"""The README of an exported adapter."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from asym_lightning.adapters import AdapterConfig, InjectionReport, Scheme, adapter_layers, layers_misread_by_peft
from asym_lightning.core.markup import markdown_text
from asym_lightning.core.messages import listed

_HUB_NAME = re.compile(r"(hf-hub:)?\w[\w.-]*(/\w[\w.-]*)?")


def model_card(model: nn.Module, backbone_name: str, *, is_compact: bool) -> str:
    """Return a model card in the hub's format: what was adapted, how, and how to load it.

    Args:
        model: The adapted model.
        backbone_name: What the base model is called; a local folder is not named on the card.
        is_compact: Whether the frozen A's are left out of the file.

    Raises:
        ValueError: If the model has no adapters.
    """
    layers = adapter_layers(model)
    if not layers:
        raise ValueError("the run has no adapter to export; `asym-lightning merge` writes the whole model.")
    config: AdapterConfig = next(iter(layers.values())).adapters.config
    report = InjectionReport.of(model, layers, [])
    is_on_hub = _HUB_NAME.fullmatch(backbone_name) is not None
    base = f"base_model: {backbone_name}\n" if is_on_hub else ""
    lines = [
        f"---\n{base}library_name: {'asym-lightning' if is_compact else 'peft'}\ntags:\n- lora\n- asym-lightning\n---",
        f"# Low-rank adapter for {backbone_name if is_on_hub else 'a local model'}",
        f"Every adapted weight is `W + {config.alpha:g} / {config.rank} * B A`. {_in_words(config.resolved_scheme)}",
        f"| | |\n|---|---|\n| scheme | `{config.scheme}` |\n| rank | {config.rank} |\n| alpha | {config.alpha:g} |\n"
        f"| targets | {markdown_text(', '.join(config.targets))} |\n| adapted layers | {len(layers)} |\n"
        f"| trained parameters | {report.trainable:,} of {report.total:,} |",
        "## Use",
        f"```python\nfrom asym_lightning.adapters import load_adapters\n\n"
        f"model = ...  # {backbone_name if is_on_hub else 'the base model'}\nload_adapters(model, folder)\n```",
        "The frozen A's are not in the file: they are drawn again from their seed, and checked. `peft` cannot do that."
        if is_compact
        else _for_peft(layers_misread_by_peft(model)),
        "Method: Zhu et al. (2024), [Asymmetry in Low-Rank Adapters of Foundation Models]"
        "(https://arxiv.org/abs/2402.16842).",
    ]
    return "\n\n".join(lines) + "\n"


def _for_peft(misread: Sequence[str]) -> str:
    if not misread:
        return "```python\nfrom peft import PeftModel\n\nmodel = PeftModel.from_pretrained(model, folder)\n```"
    return (
        f"`peft` reads this file and computes something else with the adapters of {listed(misread, 3)}: it wraps "
        "layers, which the model's code may not call, takes some names for those of old checkpoints, and adds the "
        "update of `nn.MultiheadAttention`'s output twice. Use `asym-lightning merge` there."
    )


def _in_words(scheme: Scheme) -> str:
    """Say what trained.

    >>> _in_words(Scheme.parse("hB_zero_A_rand"))
    'Only B was trained, A was frozen.'
    """
    if scheme.A.is_trained and scheme.B.is_trained:
        return "Both B and A were trained."
    return "Only B was trained, A was frozen." if scheme.B.is_trained else "Only A was trained, B was frozen."
