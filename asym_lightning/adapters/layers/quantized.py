"""Linear layers with a bitsandbytes weight, not adapted; :mod:`.kinds.bitsandbytes` has the adapted ones.

bitsandbytes keeps and converts the weights; the products are those of :mod:`asym_lightning.adapters.kernels.linear`,
with the dense weight made anew for each. Its own layers would, on some CPUs, compute in bfloat16 in evaluation and give
no gradient ever after, and in 8 bits round the activations too.

Apart from the other layers, so that bitsandbytes is imported only where a model is quantised.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asym_lightning.adapters.kernels.linear import frozen_linear
from asym_lightning.adapters.kernels.plan import QuantizedWeight

# On a CPU it warns of a kernel that it can't download, which is for inference and not used here.
_logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
_level = _logger.level
_logger.setLevel(logging.ERROR)
import bitsandbytes as bnb  # noqa: E402

_logger.setLevel(_level)


class QuantizedLinear(nn.Linear):
    """``y = x W^T + b`` with W in few bits."""

    def dense_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """The (d_out, d_in) weight, dequantised; ``None`` means the dtype that it was quantised from."""
        return dense_weight(self, dtype)

    def quantized_weight(self) -> QuantizedWeight:
        """What the kernel takes as a weight."""
        return QuantizedWeight((self.out_features, self.in_features), self.dense_weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        return frozen_linear(x, self.quantized_weight(), self.bias)


class Linear4bit(QuantizedLinear, bnb.nn.Linear4bit):
    """4 bits a weight, and the largest modulus of every block of 64."""


class Linear8bit(QuantizedLinear, bnb.nn.Linear8bitLt):
    """8 bits a weight, and the largest modulus of every row."""

    original_dtype: torch.dtype


def quantize_4bit(layer: nn.Linear) -> None:
    """Turn a linear layer, in place, into one of 4-bit normal floats.

    Source: Dettmers et al. 2023 (QLoRA), section 3, without the second quantisation, of the moduli.
    """
    weight = layer.weight.detach()
    empty = Linear4bit(1, 1, quant_type="nf4", compress_statistics=False, device="meta")
    # Not by its parameter's `to`, which does not quantise on the meta device.
    data, state = bnb.functional.quantize_4bit(weight.contiguous(), quant_type="nf4")
    packed: Any = bnb.nn.Params4bit(
        data, requires_grad=False, quant_state=state, compress_statistics=False, quant_type="nf4", bnb_quantized=True
    )
    _fill(layer, empty, packed)


def quantize_8bit(layer: nn.Linear) -> None:
    """Turn a linear layer, in place, into one of 8-bit integers with a scale for each row.

    Source: Dettmers et al. 2022 (LLM.int8()), section 2.1, for the weights only.
    """
    weight = layer.weight.detach()
    # In float16, the one dtype that the kernel takes on every device.
    data, scale, _ = bnb.functional.int8_vectorwise_quant(weight.to(torch.float16))
    empty = Linear8bit(1, 1, has_fp16_weights=False, device="meta")
    empty.original_dtype = weight.dtype
    _fill(layer, empty, bnb.nn.Int8Params(data, requires_grad=False, CB=data, SCB=scale))


def dense_weight(layer: Any, dtype: torch.dtype | None = None) -> Tensor:
    """The (d_out, d_in) weight of a bitsandbytes layer, dequantised; ``None`` means the dtype it was quantised from.

    A layer that is not quantised yet, because that happens when it is moved to the GPU, gives its weight.
    """
    weight = layer.weight.detach()
    if hasattr(layer.weight, "quant_state"):
        state = layer.weight.quant_state or layer.quant_state
        dense = weight if state is None else bnb.functional.dequantize_4bit(weight, state)
    elif weight.dtype == torch.int8:
        # Its own forward pass moves the scales from the weight to the layer's state.
        scale = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB
        dense = bnb.functional.int8_vectorwise_dequant(weight, scale.to(weight.device))
        # bitsandbytes forgets the dtype of the weight; that of the bias tells.
        known = torch.float16 if layer.bias is None else layer.bias.dtype
        dtype = dtype or getattr(layer, "original_dtype", known)
    else:
        dense = weight
    return dense if dtype is None else dense.to(dtype)


def scales(weight: Any) -> Iterator[Tensor]:
    """What bitsandbytes keeps beside a quantised weight to make it dense again."""
    state = getattr(weight, "quant_state", None)
    while state is not None:  # of a state that is quantised itself, the scales of the scales
        yield from (tensor for tensor in (state.absmax, state.code, state.offset) if tensor is not None)
        state = state.state2
    if getattr(weight, "SCB", None) is not None:
        yield weight.SCB


def keep_gradients(layer: Any) -> None:
    """Stop bitsandbytes' own 4-bit layer from laying its weight out for inference, which gives no gradient ever after.

    It does so in the first evaluation on a CPU with bfloat16 instructions.
    """
    if not isinstance(layer, bnb.nn.Linear4bit) or isinstance(layer, Linear4bit):
        return
    layer.support_avx512bf16_for_cpu = False
    weight: Any = layer.weight
    if getattr(weight.quant_state, "packing_format_for_cpu", False):
        layer.state_dict()  # which undoes it
        layer.quant_state = weight.quant_state


class QuantizedForm(NamedTuple):
    """What makes a layer a quantised one."""

    layer_class: type[nn.Linear]
    attributes: dict[str, Any]
    weight: nn.Parameter


def make_dense(layer: QuantizedLinear) -> QuantizedForm:
    """Turn a quantised layer, in place, into an ``nn.Linear`` of the dequantised weight; returns what it was."""
    form = QuantizedForm(type(layer), _own_attributes(layer), layer.get_parameter("weight"))
    weight = nn.Parameter(dense_weight(layer), requires_grad=False)
    for name in form.attributes:
        delattr(layer, name)
    layer.__class__ = nn.Linear  # type: ignore[assignment]
    layer.weight = weight
    return form


def make_quantized(layer: nn.Linear, form: QuantizedForm) -> None:
    """Turn a linear layer, in place, into a quantised one, on the device where it is now."""
    device = layer.weight.device
    vars(layer).update(form.attributes)
    layer.__class__ = form.layer_class  # type: ignore[assignment]
    layer.weight = form.weight if form.weight.device == device else form.weight.to(device)


def _fill(layer: nn.Linear, empty: QuantizedLinear, weight: nn.Parameter) -> None:
    make_quantized(layer, QuantizedForm(type(empty), _own_attributes(empty), weight))


def _own_attributes(layer: nn.Linear) -> dict[str, Any]:
    """The attributes of a quantised layer that ``nn.Linear`` does not have."""
    return {name: value for name, value in vars(layer).items() if name in _own_attribute_names()}


@functools.cache
def _own_attribute_names() -> frozenset[str]:
    kinds = (Linear4bit(1, 1, device="meta"), Linear8bit(1, 1, device="meta"))
    own = {name for layer in kinds for name in vars(layer)} - set(vars(nn.Linear(1, 1, device="meta")))
    return frozenset({*own, "original_dtype"})
