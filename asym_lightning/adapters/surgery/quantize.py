"""A frozen backbone in 4 or 8 bits, by bitsandbytes, on a CPU or a GPU.

Linear layers are quantised in place, one after the other, so there is never more than one weight in both forms. Heads,
embeddings, output layers, convolutions and adapters stay as they are. The layers compute with the dequantised weight,
in the dtype of their input: an adapter trains on, and merges into, exactly that weight.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from asym_lightning.adapters.layers.kinds.linear import AdaptedLinear
from asym_lightning.adapters.layers.kinds.registry import kind_of
from asym_lightning.adapters.targets.bypasses import open_bypasses
from asym_lightning.adapters.targets.find import output_layers
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.extras import check_installed
from asym_lightning.core.messages import check_choice
from asym_lightning.core.names import plain_modules, submodule
from asym_lightning.core.private_names import kept_in_float32

if TYPE_CHECKING:
    from asym_lightning.adapters.layers.quantized import QuantizedLinear

Quantization = Literal["nf4", "int8"]
QUANTIZATIONS = get_args(Quantization)
DEVICES = ("cpu", "cuda", "xpu", "hpu", "mps")
_ATTRIBUTE = "weight_before_dequantization"


class QuantizedPart(NamedTuple):
    """How much of a model is quantised.

    Attributes:
        kinds: Kinds of its layers: ``nf4``, ``fp4``, ``int8``.
        num_layers: Number of them.
        num_bytes: Bytes of their weights and scales.
        num_weights: Number of weights.
    """

    kinds: tuple[str, ...]
    num_layers: int
    num_bytes: int
    num_weights: int

    @classmethod
    def of(cls, model: nn.Module) -> QuantizedPart:
        """Describe a model as it is now."""
        layers = dict(quantized_layers(model))
        return cls(
            tuple(sorted({_kind(layer) for layer in layers.values()})),
            len(layers),
            sum(_num_bytes(layer) for layer in layers.values()),
            sum(layer.in_features * layer.out_features for layer in layers.values()),
        )

    def __str__(self) -> str:
        return (
            f"quantised to {' and '.join(self.kinds)}: {self.num_layers} layers, {self.num_weights:,} weights in "
            f"{self.num_bytes / 2**20:.1f} MiB"
        )


def check_quantization(quantization: str) -> None:
    """Check that there is such a quantisation, and the library for it.

    Raises:
        ValueError: There is no quantisation of that name.
        ModuleNotFoundError: bitsandbytes is not installed.
    """
    check_choice("quantization", quantization, QUANTIZATIONS)
    check_installed("bitsandbytes", f"quantization: {quantization}")


def quantize_backbone(model: nn.Module, quantization: str, heads: Sequence[str] = ()) -> QuantizedPart:
    """Quantise, in place, the linear layers of a model that is not adapted yet.

    Args:
        model: The backbone, on the CPU or on its device, with its weights; inside `torch.device("meta")` the shapes
            are enough, and are all that is made.
        quantization: ``nf4``, 4-bit normal floats with a scale for every 64, or ``int8``, integers with a scale for
            each row.
        heads: Names of the modules that are trained in full, which stay as they are.

    Returns:
        What is quantised now.

    Raises:
        ValueError: There is no such quantisation, or no linear layer to quantise.
        ModuleNotFoundError: bitsandbytes is not installed.
        RuntimeError: The model is adapted or quantised already, or its weights are not loaded.
    """
    check_quantization(quantization)
    if any(hasattr(module, "adapters") for module in model.modules()):
        raise RuntimeError("The model is adapted already: quantise it before the adapters are injected.")
    if any(True for _ in quantized_layers(model)):
        raise RuntimeError("The model is quantised already.")
    names = _names_to_quantize(model, heads)
    if not names:
        raise ValueError(
            f"`quantization: {quantization}` finds no layer to quantise in {type(model).__name__}: outside its heads "
            "and output layers it has no nn.Linear."
        )
    from asym_lightning.adapters.layers.quantized import quantize_4bit, quantize_8bit

    open_bypasses(model, names)
    for name in names:
        layer = submodule(model, name)
        assert isinstance(layer, nn.Linear)
        if layer.weight.is_meta and torch.get_default_device().type != "meta":
            raise RuntimeError(f"The weight of `{name}` is not loaded yet, so it can't be quantised.")
        if layer.weight.dtype == torch.float64:
            raise ValueError(f"The weight of `{name}` is in float64, which bitsandbytes does not quantise.")
        (quantize_4bit if quantization == "nf4" else quantize_8bit)(layer)
    return QuantizedPart.of(model)


def prepare_quantized(model: nn.Module, heads: Sequence[str] = ()) -> None:
    """Make a model that its owner quantised by bitsandbytes ready to be adapted.

    Raises:
        ValueError: A head is quantised, hence can't be trained.
    """
    for name, layer in quantized_layers(model):
        from asym_lightning.adapters.layers.quantized import keep_gradients

        if is_within(name, heads):
            raise ValueError(
                f"The head `{name}` is quantised, hence can't be trained: leave it out of the quantisation "
                "(in transformers by `llm_int8_skip_modules`)."
            )
        keep_gradients(layer)


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, QuantizedLinear]]:
    """Names and layers whose weight is quantised by bitsandbytes, ours and its own, adapted or not."""
    bnb = sys.modules.get("bitsandbytes")  # without it there are none
    if bnb is not None:
        for name, module in plain_modules(model):
            if isinstance(module, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)):
                yield name, module  # type: ignore[misc]


def dequantize_layer(layer: nn.Module, *, keep_weight: bool = True) -> None:
    """Turn a quantised layer, which may not be adapted, into an ``nn.Linear`` of the dequantised weight, in place.

    Args:
        layer: The layer.
        keep_weight: Keep the quantised weight for :func:`requantize_layers`.
    """
    from asym_lightning.adapters.layers.quantized import make_dense

    form = make_dense(layer)  # type: ignore[arg-type]
    if keep_weight:
        setattr(layer, _ATTRIBUTE, form)


def requantize_layers(model: nn.Module) -> None:
    """Undo :func:`dequantize_layer` in a whole model: the quantised weights, bit for bit."""
    for module in model.modules():
        if hasattr(module, _ATTRIBUTE):
            from asym_lightning.adapters.layers.quantized import make_quantized

            assert isinstance(module, nn.Linear)
            form = getattr(module, _ATTRIBUTE)
            delattr(module, _ATTRIBUTE)
            make_quantized(module, form)


def quantization_scales(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that are kept beside quantised weights, which are neither parameters nor buffers."""
    for _, layer in quantized_layers(model):
        from asym_lightning.adapters.layers.quantized import scales

        yield from scales(layer.weight)


def num_weights(parameter: Tensor) -> int:
    """Number of weights in a parameter: of a quantised one, those before two of them were packed in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else prod(state.shape)


def quantized_state_names(model: nn.Module, *, with_weights: bool = True) -> set[str]:
    """Names in the state dict that hold quantised weights and their scales.

    Args:
        model: The model.
        with_weights: Include the weights; ``False`` means the scales alone, which are no parameters.
    """
    names = set()
    for name, layer in quantized_layers(model):
        for key in _weight_and_scales(layer):
            if with_weights or key != "weight":
                names.add(f"{name}.{key}" if name else key)
    return names


def _names_to_quantize(model: nn.Module, heads: Sequence[str]) -> list[str]:
    outputs = output_layers(model)
    # What transformers keeps in float32 is what its own code asks the dtype of.
    kept = kept_in_float32(model)
    return [
        name
        for name, layer in plain_modules(model)
        if kind_of(layer) is AdaptedLinear
        and not (name in outputs or is_within(name, heads) or kept.intersection(name.split(".")))
        and not isinstance(submodule(model, name.rpartition(".")[0]), nn.TransformerEncoderLayer)
    ]


def _kind(layer: QuantizedLinear) -> str:
    return getattr(layer.weight, "quant_type", "int8")


def _num_bytes(layer: QuantizedLinear) -> int:
    return sum(tensor.nbytes for tensor in _weight_and_scales(layer).values())


def _weight_and_scales(layer: QuantizedLinear) -> dict[str, Tensor]:
    """What a layer's state dict holds beside its bias and its adapters."""
    return {key: tensor for key, tensor in layer.state_dict().items() if not key.startswith(("bias", "adapters."))}
