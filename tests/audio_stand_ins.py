"""A tiny speech encoder with its feature extractor, and tones of classes, written where a test wants them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers as tf

from tests.language_models import word_tokenizer

RATE = 16_000
TONES = {"high": 2400.0, "low": 300.0, "mid": 900.0}


def feature_extractor(**changes) -> tf.Wav2Vec2FeatureExtractor:
    return tf.Wav2Vec2FeatureExtractor(**{"sampling_rate": RATE, "return_attention_mask": True, **changes})


def tiny_wav2vec2_config(**changes) -> tf.Wav2Vec2Config:
    return tf.Wav2Vec2Config(
        **{
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "conv_dim": (16, 16, 16),
            "conv_stride": (5, 4, 2),
            "conv_kernel": (10, 8, 4),
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "classifier_proj_size": 16,
            "layerdrop": 0.0,
            **dict.fromkeys(("hidden_dropout", "activation_dropout", "attention_dropout", "final_dropout"), 0.0),
            "mask_time_prob": 0.0,
            "initializer_range": 0.2,
            "vocab_size": 12,
            **changes,
        }
    )


def write_tiny_wav2vec2(folder: Path, **changes) -> Path:
    """Save an encoder without a head, and its feature extractor."""
    torch.manual_seed(0)
    tf.Wav2Vec2Model(tiny_wav2vec2_config(**changes)).save_pretrained(folder)
    feature_extractor().save_pretrained(folder)
    return folder


def tone(hertz: float, seconds: float, rate: int = RATE, chance: random.Random | None = None) -> np.ndarray:
    phase, noise = (0.0, 0.0) if chance is None else (chance.uniform(0, 6), 0.05)
    time = np.arange(round(seconds * rate)) / rate
    random_numbers = np.random.default_rng(0 if chance is None else chance.randrange(1 << 30))
    return (0.5 * np.sin(2 * np.pi * hertz * time + phase) + noise * random_numbers.standard_normal(len(time))).astype(
        np.float32
    )


def write_tones(folder: Path, per_class: int, tones: Mapping[str, float] = TONES, seconds: float = 0.1) -> Path:
    """Write `folder/<class>/<number>.wav`, of lengths that differ."""
    chance = random.Random(str(folder.name))
    for name, hertz in tones.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            samples = tone(hertz * chance.uniform(0.9, 1.1), seconds * chance.uniform(0.7, 1.3), chance=chance)
            soundfile.write(folder / name / f"{number}.wav", samples, RATE)
    return folder


LETTERS = {"A": 350.0, "B": 900.0, "C": 2300.0}
WORDS = ["AB", "BC", "CAB", "AC", "BAC"]


def letter_tokenizer(folder: Path) -> tf.Wav2Vec2CTCTokenizer:
    """One token a letter, as models with CTC have it."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return tf.Wav2Vec2CTCTokenizer(folder / "vocab.json")


def spoken(text: str, chance: random.Random) -> np.ndarray:
    """A tone for each letter and silence for each space."""
    parts = [tone(LETTERS[c], 0.04 * chance.uniform(0.9, 1.1)) if c != " " else np.zeros(480) for c in text]
    return np.concatenate([part for p in parts for part in (p, np.zeros(160))]).astype(np.float32)


def write_speech(table: Path, count: int, words: int = 2) -> Path:
    """Write a csv of files and texts, and the files in a folder beside it."""
    chance = random.Random(table.stem)
    lines = ["file,text"]
    (table.parent / table.stem).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        text = " ".join(chance.choices(WORDS, k=words))
        soundfile.write(table.parent / table.stem / f"{number}.wav", spoken(text, chance), RATE)
        lines.append(f"{table.stem}/{number}.wav,{text}")
    table.write_text("\n".join(lines) + "\n")
    return table


def write_tiny_ctc(folder: Path, **changes) -> Path:
    """Save an encoder without a head, its feature extractor and a tokenizer of letters."""
    tokenizer = letter_tokenizer(folder)
    write_tiny_wav2vec2(folder, conv_stride=(5, 4, 4), vocab_size=len(tokenizer), pad_token_id=0, **changes)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_whisper_config(**changes) -> tf.WhisperConfig:
    return tf.WhisperConfig(
        **{
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "num_mel_bins": 16,
            "max_source_positions": 50,
            "max_target_positions": 24,
            "classifier_proj_size": 8,
            "vocab_size": 12,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "begin_suppress_tokens": None,
            **changes,
        }
    )


def write_tiny_whisper(folder: Path, **changes) -> Path:
    """Save an encoder-decoder of one second, its feature extractor and a tokenizer of words."""
    tokenizer = word_tokenizer(WORDS, encoder_decoder=True)
    torch.manual_seed(0)
    model = tf.WhisperForConditionalGeneration(tiny_whisper_config(vocab_size=len(tokenizer), **changes))
    model.generation_config = tf.GenerationConfig.from_model_config(model.config)
    model.save_pretrained(folder)
    tf.WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
