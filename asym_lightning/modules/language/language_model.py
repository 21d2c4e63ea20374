"""Hugging Face language models, encoder-decoders and decoders: by name, from a local folder, or from random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import transformers as tf
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
)

from asym_lightning.core.messages import first_line
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.pretrained_config import check_weights_fit, pretrained_config

Architecture = Literal["causal", "encoder-decoder", "speech", "vision-language"]
_AUTO_CLASSES: dict[str, Any] = {"causal": AutoModelForCausalLM, "encoder-decoder": AutoModelForSeq2SeqLM}
# Of models that take more than tokens the class goes by the config.
_BY_CONFIG: dict[str, Mapping[Any, Any]] = {
    "speech": {
        AutoModelForCTC: tf.MODEL_FOR_CTC_MAPPING,
        AutoModelForSpeechSeq2Seq: tf.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    },
    "vision-language": {AutoModelForImageTextToText: tf.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING},
}


def create_language_model(
    source: str,
    architecture: Architecture,
    options: BackboneOptions = BackboneOptions(),
) -> nn.Module:
    """Build a language model with its own output layer.

    Args:
        source: Name on the hub, or local folder with `config.json` and, if `options.pretrained`, the weights.
        architecture: `causal` for a decoder, `encoder-decoder` for the likes of BART and T5, `speech` for encoders with
            CTC and the likes of Whisper, `vision-language` for decoders that are given pictures.
        options: How it is made; its `model_args` are fields of the model's config.

    Raises:
        ValueError: If there is no such model, it is of another architecture, or its config lacks a field.
    """
    config = pretrained_config(source, options.model_args)
    auto_class = _auto_class(source, config, architecture)
    try:
        if not options.pretrained:
            return auto_class.from_config(config, dtype=options.dtype)
        model, loading = auto_class.from_pretrained(
            source, config=config, dtype=options.dtype, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:  # of any kind: what is in the folder goes straight into a constructor
        raise ValueError(
            f"the backbone {source!r} cannot be built ({architecture}): {first_line(error)[:120]}"
        ) from error
    check_weights_fit(source, model, loading)
    return model


def _auto_class(source: str, config: Any, architecture: Architecture) -> Any:
    if architecture in _BY_CONFIG:
        known = _BY_CONFIG[architecture].items()
        if (found := next((auto for auto, models in known if type(config) in models), None)) is None:
            raise ValueError(f"the backbone {source!r} is a {config.model_type}, which is no {architecture} model.")
        return found
    if bool(config.is_encoder_decoder) != (architecture == "encoder-decoder"):
        kind = "an encoder-decoder" if config.is_encoder_decoder else "no encoder-decoder"
        raise ValueError(f"the backbone {source!r} is {kind} ({config.model_type}); this task needs a {architecture}.")
    return _AUTO_CLASSES[architecture]


def last_hidden_states(model: nn.Module, **inputs: Any) -> Any:
    """Run a decoder without its output layer; the result has `last_hidden_state` (batch, length, width)."""
    body = model.base_model
    if body is model:  # transformers 4 names no body of models that see
        body = model.model
    return body(**inputs)  # type: ignore[operator]


def output_layer(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the function from hidden states (..., width) to logits (..., vocabulary) of a decoder.

    With `last_hidden_states` it gives what the model itself would, but leaves to the caller for which positions the
    logits are formed. Families that scale or cap their logits are known here; `check_output_layer` finds others.
    """
    layer = model.get_output_embeddings()  # type: ignore[operator]
    config: Any = model.config
    scale = 1.0
    if config.model_type.startswith("granite"):
        scale = 1 / config.logits_scaling
    elif config.model_type.startswith("cohere"):
        scale = config.logit_scale
    elif config.model_type == "falcon_h1":
        scale = config.lm_head_multiplier
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma

    def logits(hidden: Tensor) -> Tensor:
        values = layer(hidden)
        if scale != 1:
            values = values * scale
        return values if cap is None else torch.tanh(values / cap) * cap

    return logits


@torch.no_grad()
def check_output_layer(model: nn.Module, input_ids: Tensor) -> None:
    """Check on a few tokens that `output_layer` does all that the model does after its last hidden states.

    Args:
        model: A decoder.
        input_ids: Tokens (1, length) to try; few will do.

    Raises:
        ValueError: If the logits differ.
    """
    if type(input_ids) is not Tensor:
        return  # fake tensors have shapes alone
    was_training = model.training
    model.eval()
    ours = output_layer(model)(last_hidden_states(model, input_ids=input_ids, use_cache=False).last_hidden_state)
    own = model(input_ids=input_ids, use_cache=False).logits
    model.train(was_training)
    if not torch.allclose(ours.float(), own.float(), rtol=1e-2, atol=1e-2 * float(own.float().abs().max())):
        raise ValueError(
            f"the family {model.config.model_type!r} changes its logits after the output layer in a way that is not "  # type: ignore[union-attr]
            "known here: set `chunk_size: null` to form them all at once."
        )


def num_embeddings(model: nn.Module) -> int:
    """Number of tokens that a model has embeddings for, or outputs where it takes none."""
    config: Any = getattr(model, "config", None)
    if getattr(model, "main_input_name", "") == "input_values":  # sound alone
        return int(config.vocab_size)
    return int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
