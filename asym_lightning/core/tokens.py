"""What every tokenizer, language model and batch of tokens agrees on."""

from __future__ import annotations

from typing import Any

IGNORED = -100  # label of a token that is not learnt, as torch's and transformers' losses have it
# Types of models that count positions from the padding token's number on, and so allow that many fewer.
POSITIONS_AFTER_PADDING = (
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)


def pad_token_id(source: Any) -> int:
    """What batches are padded with: many decoders have no padding token, and then it is the end of the text.

    Args:
        source: A tokenizer, or the config of a model.

    Example:
        >>> from types import SimpleNamespace
        >>> pad_token_id(SimpleNamespace(pad_token_id=None, eos_token_id=[2, 3]))
        2
    """
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(source, name, None)
        if isinstance(token, (list, tuple)):
            token = token[0] if token else None
        if token is not None:
            return int(token)
    return 0


def longest_sequence(config: Any) -> int | None:
    """Longest sequence that a model has positions for; None if it has no limit, as T5 with its relative positions.

    Args:
        config: The model's config; what is none, or None, has no limit.

    Example:
        >>> from types import SimpleNamespace
        >>> longest_sequence(SimpleNamespace(model_type="roberta", max_position_embeddings=514, pad_token_id=1))
        512
    """
    get_text_config = getattr(config, "get_text_config", None)
    config = get_text_config() if callable(get_text_config) else config
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.model_type in POSITIONS_AFTER_PADDING:
        return positions - (config.pad_token_id or 0) - 1
    return positions
