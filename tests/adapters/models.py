"""Tiny models of every family, from configs, with random weights."""

import timm
import torch
import transformers as tf
from torch import nn


def tiny_vit(name="vit_tiny_patch16_224", **kwargs):
    torch.manual_seed(0)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    return timm.create_model(name, **{**arguments, **kwargs}).eval()


_SIZES = {
    "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GQA = {**_SIZES, "num_attention_heads": 4, "num_key_value_heads": 2}
_BART = {
    "vocab_size": 60, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3,
    "decoder_attention_heads": 3, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip

# name -> (class, config)
HF_MODELS = {
    "roberta": (tf.RobertaForSequenceClassification, tf.RobertaConfig(**_SIZES)),
    "bert": (tf.BertForSequenceClassification, tf.BertConfig(**_SIZES)),
    "electra": (tf.ElectraForSequenceClassification, tf.ElectraConfig(**_SIZES, embedding_size=24)),
    "albert": (tf.AlbertForSequenceClassification, tf.AlbertConfig(**_SIZES, embedding_size=24)),
    "distilbert": (
        tf.DistilBertForSequenceClassification,
        tf.DistilBertConfig(vocab_size=60, dim=24, n_layers=2, n_heads=3, hidden_dim=32),
    ),
    "deberta": (tf.DebertaForSequenceClassification, tf.DebertaConfig(**_SIZES)),
    "deberta-v2": (tf.DebertaV2ForSequenceClassification, tf.DebertaV2Config(**_SIZES)),
    "bart": (tf.BartForConditionalGeneration, tf.BartConfig(**_BART)),
    "t5": (
        tf.T5ForConditionalGeneration,
        tf.T5Config(vocab_size=60, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3, decoder_start_token_id=0),
    ),
    "llama": (tf.LlamaForCausalLM, tf.LlamaConfig(**_GQA)),
    "qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config(**_GQA)),
    "phi3": (tf.Phi3ForCausalLM, tf.Phi3Config(**_GQA)),
    "phi": (tf.PhiForCausalLM, tf.PhiConfig(**_SIZES)),
    "gpt2": (tf.GPT2LMHeadModel, tf.GPT2Config(vocab_size=60, n_embd=24, n_layer=2, n_head=3, n_positions=32)),
    "gpt_neox": (tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig(**_SIZES)),
    "bloom": (tf.BloomForCausalLM, tf.BloomConfig(vocab_size=60, hidden_size=24, n_layer=2, n_head=3)),
    "falcon": (
        tf.FalconForCausalLM,
        tf.FalconConfig(vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, multi_query=True),
    ),
    "falcon-new": (
        tf.FalconForCausalLM,
        tf.FalconConfig(
            vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2,
            new_decoder_architecture=True,
        ),
    ),
    "vit": (
        tf.ViTForImageClassification,
        tf.ViTConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32, image_size=16,
            patch_size=8,
        ),
    ),
}  # fmt: skip

SEQ2SEQ = ("bart", "t5")


def hf_model(name):
    torch.manual_seed(0)
    cls, config = HF_MODELS[name]
    return cls(config).eval()


def hf_inputs(name):
    g = torch.Generator().manual_seed(1)
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=g)}
    inputs = {"input_ids": torch.randint(3, 60, (2, 7), generator=g)}
    if name in SEQ2SEQ:
        inputs["decoder_input_ids"] = torch.randint(3, 60, (2, 5), generator=g)
    return inputs


def perturb(model: nn.Module, scale: float = 0.3) -> None:
    """Give every trained parameter a random value, so that updates are not zero."""
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, p in sorted((n, p) for n, p in model.named_parameters() if p.requires_grad):
            p.copy_(torch.randn(p.shape, generator=g) * scale)
