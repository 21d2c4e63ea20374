"""Tiny models that see, with their processors, and pictures of one colour with questions on them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
import transformers as tf
from PIL import Image

from tests.language_models import word_tokenizer

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}{% if c['type'] == 'image' %}PICTURE "
    "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
WORDS = ["user : assistant what colour ? is this and that a picture", *COLOURS]


def seeing_tokenizer(*specials: str) -> tf.PreTrainedTokenizerFast:
    tokenizer = word_tokenizer(WORDS)
    tokenizer.add_tokens(list(specials), special_tokens=True)
    return tokenizer


def llava_processor() -> tf.LlavaProcessor:
    return tf.LlavaProcessor(
        tf.CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
        seeing_tokenizer("<image>"),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("PICTURE", "<image>"),
    )


def tiny_llava(tokenizer: tf.PreTrainedTokenizerFast) -> tf.LlavaForConditionalGeneration:
    torch.manual_seed(0)
    vision = tf.CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4,
        projection_dim=16,
    )  # fmt: skip
    text = tf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<image>")
    model = tf.LlavaForConditionalGeneration(
        tf.LlavaConfig(vision_config=vision, text_config=text, image_token_id=image, vision_feature_layer=-1)
    )
    model.generation_config.eos_token_id = 2
    return model.eval()


def write_tiny_llava(folder: Path) -> Path:
    processor = llava_processor()
    tiny_llava(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def qwen_processor() -> tf.Qwen2VLProcessor:
    tokenizer = seeing_tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    if tf.__version__ < "5":  # which wants its own class
        tokenizer.__class__ = tf.Qwen2TokenizerFast
    pixels = {"shortest_edge": 16 * 16, "longest_edge": 32 * 32}
    return tf.Qwen2VLProcessor(
        tf.Qwen2VLImageProcessor(size=pixels, patch_size=4, temporal_patch_size=1, merge_size=2),
        tokenizer,
        video_processor=tf.Qwen2VLVideoProcessor(size=pixels, patch_size=4, temporal_patch_size=1, merge_size=2),
        chat_template=TEMPLATE.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )


def tiny_qwen(tokenizer: tf.PreTrainedTokenizerFast) -> tf.Qwen2VLForConditionalGeneration:
    torch.manual_seed(0)
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    image, video, start, end = map(tokenizer.convert_tokens_to_ids, names)
    config = tf.Qwen2VLConfig(
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4,
                       "spatial_merge_size": 2, "temporal_patch_size": 1, "in_channels": 3},
        text_config={"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
                     "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
                     "rope_scaling": {"rope_type": "default", "mrope_section": [1, 1, 2]}, "rope_theta": 1e4,
                     "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    return tf.Qwen2VLForConditionalGeneration(config).eval()


def idefics_processor() -> tf.Idefics3Processor:
    image_processor = tf.Idefics3ImageProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    return tf.Idefics3Processor(
        image_processor,
        seeing_tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
                         *(f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4))),
        image_seq_len=4,
        chat_template=TEMPLATE.replace("PICTURE", "<image>"),
    )  # fmt: skip


def tiny_idefics(tokenizer: tf.PreTrainedTokenizerFast) -> tf.Idefics3ForConditionalGeneration:
    torch.manual_seed(0)
    config = tf.Idefics3Config(
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "image_size": 16, "patch_size": 4},
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32,
                     "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
                     "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=2, pad_token_id=0,
    )  # fmt: skip
    return tf.Idefics3ForConditionalGeneration(config).eval()


def write_pictures(folder: Path, count: int, size: int = 8) -> list[tuple[str, str]]:
    """Write pictures about of one colour, and return their paths in the folder and their colours."""
    chance = random.Random(folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(count):
        name = chance.choice(list(COLOURS))
        colour = tuple(max(0, min(255, value + chance.randint(-30, 30))) for value in COLOURS[name])
        Image.new("RGB", (size, size), colour).save(folder / f"{number}.png")
        found.append((f"{folder.name}/{number}.png", name))
    return found


def write_questions(file: Path, count: int) -> Path:
    """Write a jsonl of pictures and chats on them, and the pictures in a folder beside it."""
    rows = []
    for path, colour in write_pictures(file.parent / file.stem, count):
        messages = [{"role": "user", "content": "what colour ?"}, {"role": "assistant", "content": colour}]
        rows.append({"images": [path], "messages": messages})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
