"""The README of an exported adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from asym_lightning.adapters import AdapterConfig, InjectionReport, Scheme, adapter_layers, layers_misread_by_peft
from asym_lightning.cli.use_of_adapter import use_of_adapter
from asym_lightning.core.markup import markdown_text
from asym_lightning.core.messages import listed

_SHOWN_CLASSES = 20
_HUB_NAME = re.compile(r"(hf-hub:)?\w[\w.-]*(/\w[\w.-]*)?")


def model_card(
    model: nn.Module,
    backbone_name: str,
    *,
    is_compact: bool,
    label_names: Sequence[str] = (),
    data: str | None = None,
    scores: Mapping[str, float] | None = None,
) -> str:
    """Return a model card in the hub's format: what was adapted, how, what came out, and how to load it.

    Args:
        model: The adapted model.
        backbone_name: What the base model is called; a local folder is not named on the card.
        is_compact: Whether the frozen A's are left out of the file.
        label_names: Names of the classes by number.
        data: What it was trained on.
        scores: What it came to, by metric.

    Raises:
        ValueError: If the model has no adapters.
    """
    layers = adapter_layers(model)
    if not layers:
        raise ValueError("the run has no adapter to export; `asym-lightning merge` writes the whole model.")
    config: AdapterConfig = next(iter(layers.values())).adapters.config
    report = InjectionReport.of(model, layers, [])
    is_on_hub = _HUB_NAME.fullmatch(backbone_name) is not None and not Path(backbone_name).is_dir()
    base = f"base_model: {backbone_name}\n" if is_on_hub else ""
    facts = {
        "base model": f"`{backbone_name}`" if is_on_hub else "a local one",
        "data": markdown_text(data) if data else "",
        "classes": markdown_text(listed(label_names, _SHOWN_CLASSES)),
        "scheme": f"`{config.scheme}`",
        "rank": str(config.rank),
        "alpha": f"{config.alpha:g}",
        "targets": markdown_text(", ".join(config.targets)),
        "adapted layers": str(len(layers)),
        "trained parameters": f"{report.trainable:,} of {report.total:,}",
    }
    misread = layers_misread_by_peft(model)
    snippet = use_of_adapter(
        model, backbone_name if is_on_hub else None, label_names, for_peft=not (is_compact or misread)
    )
    lines = [
        f"---\n{base}library_name: {'asym-lightning' if is_compact else 'peft'}\ntags:\n- lora\n- asym-lightning\n---",
        f"# Low-rank adapter for {backbone_name if is_on_hub else 'a local model'}",
        f"Every adapted weight is `W + {config.alpha:g} / {config.rank} * B A`. {_in_words(config.resolved_scheme)}",
        _table("", {name: value for name, value in facts.items() if value}),
        *(["## Scores", _table("score", {name: f"{value:.4f}" for name, value in scores.items()})] if scores else []),
        "## Use",
        f"```python\n{snippet}```",
        *_notes(misread, is_compact),
        "Method: Zhu et al. (2024), [Asymmetry in Low-Rank Adapters of Foundation Models]"
        "(https://arxiv.org/abs/2402.16842).",
    ]
    return "\n\n".join(lines) + "\n"


def _table(heading: str, rows: Mapping[str, str]) -> str:
    return f"| {heading} | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _notes(misread: Sequence[str], is_compact: bool) -> list[str]:
    if is_compact:
        return [
            "The frozen A's are not in the file: they are drawn again from their seed, and checked. "
            "`peft` cannot do that."
        ]
    if not misread:
        return []
    return [
        f"`peft` computes something else with the adapters of {listed(misread, 3)}, or does not take them: it wraps "
        "layers, which the model's code may not call or may ask for what the wrapper lacks, takes some names for those "
        "of old checkpoints and refuses others, and adds the update of `nn.MultiheadAttention`'s output twice. Use "
        "`asym-lightning merge` there."
    ]


def _in_words(scheme: Scheme) -> str:
    """Say what trained.

    >>> _in_words(Scheme.parse("hB_zero_A_rand"))
    'Only B was trained, A was frozen.'
    """
    if scheme.A.is_trained and scheme.B.is_trained:
        return "Both B and A were trained."
    return "Only B was trained, A was frozen." if scheme.B.is_trained else "Only A was trained, B was frozen."
