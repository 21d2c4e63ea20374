"""Tiny language models and tokenizers, built on the spot and saved where a test can load them by folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

TEXT = ["The following are multiple choice questions (with answers) about the Answer: A B C D\n\n"]


def byte_tokenizer(texts: Iterable[str] = TEXT, size: int = 320, bos: bool = True) -> tf.PreTrainedTokenizerFast:
    """Byte-level pairs, as of GPT-2 and Llama 3: takes any text. `bos` puts a beginning in front, as Llama's do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def word_tokenizer(texts: Iterable[str], encoder_decoder: bool = False) -> tf.PreTrainedTokenizerFast:
    """One token a word; `encoder_decoder` puts a beginning and an end around texts, as BART's do."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=specials, show_progress=False))
    if encoder_decoder:
        ends = [("<s>", 1), ("</s>", 2)]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],  # as BART's; transformers 4 has one name more by default
    )


def tiny_llama(vocabulary: int, width: int = 32, layers: int = 2, **changes: object) -> tf.LlamaForCausalLM:
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, **changes,
    )  # fmt: skip
    return tf.LlamaForCausalLM(config).eval()


def tiny_bart(vocabulary: int, width: int = 32, layers: int = 1, **changes: object) -> tf.BartForConditionalGeneration:
    torch.manual_seed(0)
    config = tf.BartConfig(
        vocab_size=vocabulary, d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_ffn_dim=2 * width,
        decoder_ffn_dim=2 * width, encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=256,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
        dropout=0.0, **changes,
    )  # fmt: skip
    return tf.BartForConditionalGeneration(config).eval()


def saved(folder: Path, model: nn.Module, tokenizer: tf.PreTrainedTokenizerBase) -> str:
    """Save a model and its tokenizer to a folder, and return its name, fit for `backbone`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_jsonl(path: Path, records: Sequence[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
