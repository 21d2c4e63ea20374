"""The model `asym` of EleutherAI's lm-evaluation-harness; importing this module makes it known there."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from asym_lightning.cli.writing.source import load_source


@register_model("asym")
class AsymLM(HFLM):
    """What a source names, evaluated as the harness evaluates models of transformers.

    Args:
        source: A run directory, an adapter directory, a model's folder, or a name on the hub.
        base: Base model of an adapter directory; None takes the one that it names.
        checkpoint: Checkpoint of a run; None takes the best one.
        dtype: Precision of the base model's weights; None or `auto` means the model's own, or that of the run.
        device: Where to compute; None takes a GPU if there is one.
        options: Others of the harness's own `hf`, such as `batch_size` and `max_length`.
    """

    def __init__(
        self,
        source: str,
        base: str | None = None,
        checkpoint: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        found = load_source(
            source,
            base=base,
            checkpoint=checkpoint,
            dtype=None if dtype == "auto" else dtype,
            device=device or "auto",
        )
        self._adapter = ExitStack()  # the adapter takes part as long as the model is there
        self._adapter.enter_context(found.adapters.using(None))
        super().__init__(pretrained=found.model, tokenizer=found.tokenizer, **options)
