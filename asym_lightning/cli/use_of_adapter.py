"""A few lines of Python that load an exported adapter, for its model card."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from torch import nn

from asym_lightning.adapters.files.save import task_type

FOLDER = 'folder = "."  # where this adapter is\n'
_AUTO_CLASSES = {
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
}


def use_of_adapter(model: nn.Module, base: str | None, label_names: Sequence[str] = (), *, for_peft: bool) -> str:
    """Return code that loads an adapter from a folder to `model`.

    Args:
        model: The adapted model.
        base: Name of the base model; None leaves it to the reader.
        label_names: Names of the classes by number.
        for_peft: Whether `peft` is to load it, and not this package.
    """
    transformers: Any = sys.modules.get("transformers")  # which a model of it has imported
    is_of_transformers = transformers is not None and isinstance(model, transformers.PreTrainedModel)
    names = f"names = {json.dumps(list(label_names), ensure_ascii=False)}\n" if label_names else ""
    auto_class = _AUTO_CLASSES.get(task_type(model) or "")
    labels = "id2label=dict(enumerate(names)), label2id=dict(zip(names, range(len(names))))" if names else ""
    if is_of_transformers and for_peft and auto_class:
        options = f"\n    folder, {labels}\n" if labels else "folder"
        load = f"model = {auto_class}.from_pretrained({options})\n"
        return f"from peft import {auto_class}\n\n{FOLDER}{names}{load}"
    imports, build = _base(model, base, labels if is_of_transformers else "", is_of_transformers)
    loader, load = (
        ("from peft import PeftModel", "model = PeftModel.from_pretrained(model, folder)\n")
        if for_peft
        else ("from asym_lightning.adapters import load_adapters", "load_adapters(model, folder)\n")
    )
    return f"{loader}\n{imports}\n{FOLDER}{names}{build}{load}"


def _base(model: nn.Module, base: str | None, labels: str, is_of_transformers: bool) -> tuple[str, str]:
    """Imports, and what makes the base model with a head of the right size."""
    name = "base" if base is None else repr(base)
    asked = "base = ...  # the model that was adapted: a local one\n" if base is None else ""
    if is_of_transformers:
        kind = type(model).__name__
        options = f"\n    {name}, {labels}\n" if labels else name
        return f"from transformers import {kind}\n", f"{asked}model = {kind}.from_pretrained({options})\n"
    if hasattr(model, "pretrained_cfg") or hasattr(model, "made_with"):
        kind = "create_timm_segmenter" if hasattr(model, "made_with") else "create_timm_backbone"
        made_with: dict[str, Any] = getattr(model, "made_with", None) or {"num_classes": model.num_classes}
        arguments = ", ".join(f"{argument}={value}" for argument, value in made_with.items())
        module = f"asym_lightning.modules.images.{kind.removeprefix('create_')}"
        return f"from {module} import {kind}\n", f"{asked}model = {kind}({name}, {arguments})\n"
    return "", "model = ...  # the model that was adapted\n"
