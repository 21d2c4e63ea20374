from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig, AutoModel

from asym_lightning.core.tokens import POSITIONS_AFTER_PADDING, longest_sequence, pad_token_id

SMALL = {
    "vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
    "max_position_embeddings": 20, "entity_vocab_size": 5, "attention_window": [4], "mask_token_id": 3,
    "languages": ["en_XX"], "max_xpath_tag_unit_embeddings": 4, "max_xpath_subs_unit_embeddings": 4,
    "tag_pad_id": 1, "subs_pad_id": 1, "max_depth": 2, "position_embedding_type": "absolute",
    "max_2d_position_embeddings": 16,
}  # fmt: skip


@pytest.mark.parametrize("model_type", POSITIONS_AFTER_PADDING)
def test_models_that_count_from_the_padding_token_on_have_fewer_positions(model_type):
    config = AutoConfig.for_model(model_type, **SMALL, pad_token_id=1)
    model = AutoModel.from_config(config)
    positions: Any = next(m for name, m in model.named_modules() if name.endswith("embeddings.position_embeddings"))
    assert positions.padding_idx is not None
    assert longest_sequence(model.config) == len(positions.weight) - positions.padding_idx - 1


@pytest.mark.parametrize(("model_type", "limit"), [("bert", 20), ("gpt2", 20), ("t5", None), ("xlnet", None)])
def test_other_models_have_as_many_as_they_say_or_no_limit(model_type, limit):
    options = {} if limit is None else {"max_position_embeddings": limit}
    assert longest_sequence(AutoConfig.for_model(model_type, **options)) == limit


def test_what_is_no_config_has_no_limit():
    assert longest_sequence(None) is None
    assert longest_sequence({"hidden": 3}) is None


@pytest.mark.parametrize(
    ("pad", "eos", "expected"), [(5, 2, 5), (0, 2, 0), (None, 2, 2), (None, [7, 8], 7), (None, [], 0), (None, None, 0)]
)
def test_padding_is_the_padding_token_else_the_end_of_the_text_else_0(pad, eos, expected):
    assert pad_token_id(SimpleNamespace(pad_token_id=pad, eos_token_id=eos)) == expected
    assert pad_token_id(object()) == 0
