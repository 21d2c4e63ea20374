"""Host code that reads a layer's weight without calling the layer, which would leave its adapter silently untrained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from asym_lightning.adapters.targets.find import Target


def open_bypasses(model: nn.Module, names: Iterable[str]) -> None:
    """Make known bypassing hosts call their layer.

    timm's BEiT, EVA and SwinV2 compute ``F.linear(x, qkv.weight, cat(q_bias, 0, v_bias))`` but call ``qkv`` and add the
    same bias afterwards where ``qkv_bias_separate`` is set, which is the same function.
    """
    for parent in _parents(model, names):
        if getattr(parent, "qkv_bias_separate", None) is False and getattr(parent, "q_bias", None) is not None:
            parent.qkv_bias_separate = True  # type: ignore[assignment]


def refuse_bypasses(model: nn.Module, targets: list[Target]) -> None:
    """Refuse layers whose host would never call them.

    Raises:
        ValueError: A target lies in ``nn.MultiheadAttention``, or in ``nn.TransformerEncoderLayer`` while torch may
            take its fused evaluation path; the message names the layer.
    """
    for target, parent in zip(targets, _parents(model, [target.name for target in targets]), strict=True):
        if isinstance(parent, nn.MultiheadAttention):
            raise ValueError(
                f"Layer `{target.name}` lies in nn.MultiheadAttention, which reads its weight and never calls "
                "it, so its adapter would not train; name it in `exclude`."
            )
        # The fused path skips the layers in evaluation only: training would look right and every score be wrong.
        if isinstance(parent, nn.TransformerEncoderLayer) and torch.backends.mha.get_fastpath_enabled():
            raise ValueError(
                f"Layer `{target.name}` lies in nn.TransformerEncoderLayer, whose fused path skips it in evaluation; "
                "call torch.backends.mha.set_fastpath_enabled(False) first, or name it in `exclude`."
            )


def _parents(model: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    return [model.get_submodule(name.rpartition(".")[0]) for name in names]
