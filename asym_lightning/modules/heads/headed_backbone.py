"""Hugging Face models with a head for a task: by name, from a local folder, or from random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from asym_lightning.core.messages import first_line
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.pretrained_config import check_weights_fit, pretrained_config


class HeadedBackbone(NamedTuple):
    """A model with a head for a task.

    Attributes:
        model: The model.
        new_modules: Names of the modules for which the checkpoint has no weights of the right shape, and which
            therefore start from random ones: the head, and often BERT's pooler, which checkpoints of masked language
            models lack.
    """

    model: nn.Module
    new_modules: list[str]


def create_headed_backbone(
    source: str,
    num_outputs: int,
    label_names: Sequence[str] | None = None,
    options: BackboneOptions = BackboneOptions(),
    auto_class: Any = AutoModelForSequenceClassification,
) -> HeadedBackbone:
    """Build an encoder or decoder with a head of `num_outputs` outputs.

    A checkpoint that was trained on the same classes keeps its head, and its own order of the classes. In all other
    cases the head starts from random weights.

    Args:
        source: Name on the hub, or local folder with `config.json` and, if `options.pretrained`, the weights.
        num_outputs: Number of outputs; 1 in regression, 0 where the task has no head.
        label_names: Names of the classes, which are written to the model's config.
        options: How it is made; its `model_args` are fields of the model's config.
        auto_class: Class of transformers that knows the models with a head for the task.

    Raises:
        ValueError: If there is no such model, it has no head for the task, or the weights are those of another
            architecture.
    """
    config: Any = pretrained_config(source, options.model_args)
    keeps_head = label_names is not None and set(config.label2id or ()) == set(label_names)
    if num_outputs and not keeps_head:
        config.num_labels = num_outputs  # also renames the classes to LABEL_0 and so on
        if label_names is not None:
            config.id2label = dict(enumerate(label_names))
            config.label2id = {name: number for number, name in config.id2label.items()}
    try:
        if not options.pretrained:
            return HeadedBackbone(auto_class.from_config(config, dtype=options.dtype), [])
        with _quiet():  # its report of missing weights: `new_modules` are trained
            model, loading = auto_class.from_pretrained(
                source,
                config=config,
                dtype=options.dtype,
                ignore_mismatched_sizes=not keeps_head,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as error:  # of any kind: what is in the folder goes straight into a constructor
        task = auto_class.__name__.removeprefix("AutoModelFor")
        raise ValueError(f"the backbone {source!r} cannot be built for {task}: {first_line(error)[:120]}") from error
    mismatched = [key if isinstance(key, str) else key[0] for key in loading.get("mismatched_keys", ())]
    missing = [*loading["missing_keys"], *mismatched]
    check_weights_fit(source, model, loading)
    return HeadedBackbone(model, sorted({key.rpartition(".")[0] for key in missing if "." in key}))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers report nothing but errors."""
    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()


def class_order(model: nn.Module, label_names: Sequence[str] | None) -> list[int] | None:
    """Outputs of a model in the order of `label_names`, or None if that is its own order.

    A checkpoint that was trained on the same classes may number them in another way: those of MNLI do.
    """
    label2id = getattr(getattr(model, "config", None), "label2id", None) or {}
    if label_names is None or set(label2id) != set(label_names):
        return None
    order = [int(label2id[name]) for name in label_names]
    return None if order == sorted(order) else order
