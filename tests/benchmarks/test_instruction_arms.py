"""The synthetic instructions: held-out prompts are held out, and a tiny decoder learns to answer them."""

import json

import pytest

from benchmarks.instruction_arms import NEW_TASK, PRETRAINING, data, fit, records
from tests.language_models import tiny_llama, word_tokenizer


@pytest.fixture
def tokenizer():
    from asym_lightning.data.language.prompts import alpaca_prompt

    return word_tokenizer(
        alpaca_prompt(r["instruction"], r["input"]) for r in records((*PRETRAINING, NEW_TASK), 300, 9)
    )


def test_no_prompt_is_in_two_splits(tmp_path, tokenizer) -> None:
    source = data(tmp_path, tokenizer, (NEW_TASK,), 500, 0)
    splits = [set(source.sources()[name].path.read_text().splitlines()) for name in ("train", "val", "test")]
    assert [len(split) for split in splits] == [500, 100, 200]
    assert len(set.union(*splits)) == 800
    assert json.loads(splits[0].pop())["instruction"] == "Name the first word ."


@pytest.mark.slow
def test_a_tiny_decoder_answers_held_out_prompts(tmp_path, tokenizer) -> None:
    source = data(tmp_path, tokenizer, PRETRAINING, 8000, 0)
    _, test, val = fit(tiny_llama(len(tokenizer), 64, 2), None, 3e-3, 1500, source, 0)
    assert min(test, val) >= 0.85  # 0.92 when it was written; chance is below 0.01
