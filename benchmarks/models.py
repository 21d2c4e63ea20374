"""Backbones with random weights, their inputs and their loss.

Dropout of the backbone itself is off everywhere: it would make the floor slower and the adapters look better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cells import Cell

PATCH = 16


@dataclass(frozen=True)
class Shape:
    """Sizes of a model that a cell doesn't set.

    Attributes:
        family: ``vit``, ``roberta``, ``llama``, ``mixtral``, ``torch``, ``resnet`` or ``convolutions``.
        width: Hidden size.
        num_heads: Attention heads at that width.
        mlp_width: Hidden size of the MLP.
        num_kv_heads: Heads of k and v, for a Llama.
        vocabulary: Number of tokens, or of classes where the model classifies.
        num_experts: Of which two are taken for a token.
        num_groups: Of channels, in a ResNet's convolutions.
        num_axes: Along which convolutions go.
    """

    family: str
    width: int
    num_heads: int
    mlp_width: int
    num_kv_heads: int = 0
    vocabulary: int = 1000
    num_experts: int = 0
    num_groups: int = 1
    num_axes: int = 0


SHAPES = {
    "vit-s": Shape("vit", 384, 6, 1536),
    "vit-b": Shape("vit", 768, 12, 3072),
    "vit-l": Shape("vit", 1024, 16, 4096),
    "roberta-base": Shape("roberta", 768, 12, 3072, vocabulary=50265),
    "roberta-large": Shape("roberta", 1024, 16, 4096, vocabulary=50265),
    "llama-s": Shape("llama", 512, 8, 1376, 8, vocabulary=8192),
    "llama-1b": Shape("llama", 2048, 32, 8192, 8, vocabulary=128256),
    "llama-7b": Shape("llama", 4096, 32, 11008, 32, vocabulary=32000),
    "mixtral-s": Shape("mixtral", 512, 8, 1024, 8, vocabulary=8192, num_experts=8),
    "torch-encoder": Shape("torch", 384, 6, 1536),
    "resnet": Shape("resnet", 64, 1, 64),
    "resnext": Shape("resnet", 128, 1, 128, num_groups=32),
    "conv1d": Shape("convolutions", 256, 1, 256, num_axes=1),
    "conv3d": Shape("convolutions", 64, 1, 64, num_axes=3),
}
Loss = Callable[[nn.Module], Tensor]


def build_model(cell: Cell, seed: int = 0) -> nn.Module:
    """The backbone of a cell, in training mode, on the current default device and dtype.

    Raises:
        ValueError: The length is not a square (ViT), or the width no multiple of the head size.
    """
    shape = SHAPES[cell.model]
    width = cell.width or shape.width
    head_width = shape.width // shape.num_heads
    if width % head_width:
        raise ValueError(f"`width` must be a multiple of {head_width} for {cell.model}, got {width}.")
    num_heads, mlp_width = width // head_width, shape.mlp_width * width // shape.width
    torch.manual_seed(seed)
    build = {
        "vit": _build_vit, "roberta": _build_roberta, "llama": _build_llama, "mixtral": _build_mixtral,
        "torch": _build_torch, "resnet": _build_resnet, "convolutions": _build_convolutions,
    }[shape.family]  # fmt: skip
    return build(cell, shape, width, num_heads, mlp_width).train()


def first_block(cell: Cell, model: nn.Module) -> nn.Module:
    """The block whose input is where the floor's backward pass ends."""
    path = {
        "vit": "blocks.0", "roberta": "roberta.encoder.layer.0", "llama": "model.layers.0",
        "mixtral": "model.layers.0", "torch": "0.layers.0", "resnet": "layer1.0", "convolutions": "0",
    }  # fmt: skip
    return model.get_submodule(path[SHAPES[cell.model].family])


def make_loss(cell: Cell, device: torch.device, batch: int | None = None, seed: int = 0) -> Loss:
    """A function from model to loss that holds one fixed batch of inputs and labels."""
    shape, batch = SHAPES[cell.model], batch or cell.batch
    g = torch.Generator().manual_seed(seed)
    if shape.family == "torch":
        rows = torch.randn(batch, cell.length, cell.width or shape.width, generator=g).to(device)
        labels = torch.randint(shape.vocabulary, (batch, cell.length), generator=g).to(device)
        return lambda model: F.cross_entropy(model(rows.to(_dtype_of(model))).flatten(0, 1).float(), labels.flatten())
    if shape.family in ("vit", "resnet", "convolutions"):
        side = PATCH * math.isqrt(cell.length)
        sizes = (3, side, side)
        if shape.num_axes:
            sizes = (cell.width or shape.width, *shape.num_axes * [round(cell.length ** (1 / shape.num_axes))])
        images = torch.randn(batch, *sizes, generator=g).to(device)
        labels = torch.randint(shape.vocabulary, (batch,), generator=g).to(device)
        return lambda model: F.cross_entropy(model(images.to(_dtype_of(model))).float(), labels)
    # Token 0 and 1 are special in RoBERTa: no padding is wanted, every token is computed.
    tokens = torch.randint(2, shape.vocabulary, (batch, cell.length), generator=g).to(device)
    if shape.family == "roberta":
        labels = torch.randint(2, (batch,), generator=g).to(device)
        return lambda model: F.cross_entropy(model(input_ids=tokens).logits.float(), labels)
    return lambda model: F.cross_entropy(
        model(input_ids=tokens, use_cache=False).logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten()
    )


def _dtype_of(model: nn.Module) -> torch.dtype:
    return next(p.dtype for name, p in model.named_parameters() if "adapters" not in name and "lora" not in name)


def _build_vit(cell: Cell, shape: Shape, width: int, num_heads: int, mlp_width: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    side = math.isqrt(cell.length)
    if side * side != cell.length:
        raise ValueError(f"`length` of a ViT is its number of patches, a square such as 196, got {cell.length}.")
    return VisionTransformer(
        img_size=side * PATCH,
        patch_size=PATCH,
        embed_dim=width,
        depth=cell.depth,
        num_heads=num_heads,
        mlp_ratio=mlp_width / width,
        num_classes=shape.vocabulary,
    )


def _sizes(cell: Cell, shape: Shape, width: int, num_heads: int, mlp_width: int) -> dict[str, int]:
    """What the configurations of transformers have in common."""
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": width,
        "num_hidden_layers": cell.depth,
        "num_attention_heads": num_heads,
        "intermediate_size": mlp_width,
    }


def _build_roberta(cell: Cell, shape: Shape, width: int, num_heads: int, mlp_width: int) -> nn.Module:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        **_sizes(cell, shape, width, num_heads, mlp_width),
        max_position_embeddings=cell.length + 2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        type_vocab_size=1,
    )
    return RobertaForSequenceClassification(config)


def _build_llama(cell: Cell, shape: Shape, width: int, num_heads: int, mlp_width: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **_sizes(cell, shape, width, num_heads, mlp_width),
        num_key_value_heads=max(1, shape.num_kv_heads * num_heads // shape.num_heads),
        max_position_embeddings=max(cell.length, 2048),
    )
    return LlamaForCausalLM(config)


def _build_mixtral(cell: Cell, shape: Shape, width: int, num_heads: int, mlp_width: int) -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        **_sizes(cell, shape, width, num_heads, mlp_width),
        num_key_value_heads=num_heads,
        num_local_experts=shape.num_experts,
        num_experts_per_tok=2,
        max_position_embeddings=max(cell.length, 2048),
    )
    return MixtralForCausalLM(config)


def _build_torch(cell: Cell, shape: Shape, width: int, num_heads: int, mlp_width: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, num_heads, mlp_width, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, cell.depth), nn.Linear(width, shape.vocabulary))


def _build_resnet(cell: Cell, shape: Shape, width: int, num_heads: int, mlp_width: int) -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet

    groups = shape.num_groups
    return ResNet(
        Bottleneck, [cell.depth] * 4, num_classes=shape.vocabulary, cardinality=groups, base_width=width // groups
    )


def _build_convolutions(cell: Cell, shape: Shape, width: int, num_heads: int, mlp_width: int) -> nn.Module:
    convolution = {1: nn.Conv1d, 3: nn.Conv3d}[shape.num_axes]
    blocks = [nn.Sequential(convolution(width, width, 3, padding=1), nn.GELU()) for _ in range(cell.depth)]
    return nn.Sequential(
        *blocks, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, shape.vocabulary)
    )
