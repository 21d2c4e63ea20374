"""How a backbone is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from asym_lightning.adapters.surgery.quantize import Quantization, check_quantization
from asym_lightning.core.options import check_kinds

Precision = Literal["float32", "bfloat16", "float16"]
OF_NAMED_BACKBONES = ("pretrained", "model_args", "precision")
"""What is decided when a backbone is made from its name, and is past for a module that is handed over."""


@dataclass(frozen=True)
class BackboneOptions:
    """How a backbone is made, whatever the task; what a backbone can't do is refused by name.

    Args:
        pretrained: Load pretrained weights; false starts from random ones, and needs no weights to be there.
        model_args: Arguments of the architecture that differ: those of a timm model, such as `img_size`, or fields of a
            Hugging Face model's config, such as `hidden_dropout_prob`.
        precision: Precision of the weights in memory, whatever it is in the file. Adapters and heads are in float32.
        gradient_checkpointing: Compute activations again in the backward pass in place of keeping them.
        quantization: Keep the linear layers of the frozen backbone in 4 bits (`nf4`) or 8 (`int8`); null leaves them.

    Raises:
        TypeError: If a value is of another kind.
        ValueError: If it is none of the choices.
        ModuleNotFoundError: If there is a `quantization` and bitsandbytes is not installed.

    Example:
        >>> BackboneOptions(precision="bf16")
        Traceback (most recent call last):
        ValueError: `precision` must be one of float32, bfloat16, float16, not 'bf16': did you mean bfloat16?
    """

    pretrained: bool = True
    model_args: dict[str, Any] | None = None
    precision: Precision = "float32"
    gradient_checkpointing: bool = False
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.quantization is not None:
            check_quantization(self.quantization)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights; float32 gives way to a wider default, such as that of `trainer.precision: 64-true`."""
        dtype: torch.dtype = getattr(torch, self.precision)
        return torch.promote_types(dtype, torch.get_default_dtype()) if dtype == torch.float32 else dtype

    def check_suits_module(self) -> None:
        """Check that nothing is asked of a backbone that is handed over as a module, and so is made already.

        Raises:
            ValueError: If something is.
        """
        defaults = BackboneOptions()
        for name in OF_NAMED_BACKBONES:
            if getattr(self, name) != getattr(defaults, name):
                raise ValueError(
                    f"`backbone_options.{name}` is for a `backbone` that goes by its name: the one given is a module, "
                    "which is made already."
                )

    def check_hyperparameters(self, hyperparameters: Mapping[str, Any]) -> None:
        """Check that hyperparameters of a checkpoint from before these options were apart are those of this backbone.

        Lightning passes over hyperparameters that a class does not take.

        Raises:
            ValueError: If one differs.
        """
        if "backbone_options" in hyperparameters:
            return
        for field in dataclasses.fields(self):
            if field.name in hyperparameters and hyperparameters[field.name] != getattr(self, field.name):
                raise ValueError(
                    f"the checkpoint was written with `{field.name}: {hyperparameters[field.name]}`, which is now "
                    f"`backbone_options.{field.name}`: give `backbone_options` when you load it."
                )


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Let a model of transformers or timm compute its activations again in the backward pass.

    Raises:
        ValueError: If it knows no such thing.
    """
    of_transformers = getattr(model, "gradient_checkpointing_enable", None)
    of_timm = getattr(model, "set_grad_checkpointing", None)
    try:
        if callable(of_transformers):
            # The other kind needs inputs that require a gradient, and those of a frozen embedding do not.
            of_transformers({"use_reentrant": False})
            return
        if callable(of_timm):
            of_timm(True)
            return
    except (ValueError, AssertionError) as error:  # how transformers and timm say that an architecture has none
        raise ValueError(f"{_NO_CHECKPOINTING} {type(model).__name__}: {error}.") from error
    raise ValueError(f"{_NO_CHECKPOINTING} {type(model).__name__}, which is neither of transformers nor of timm.")


_NO_CHECKPOINTING = "`backbone_options.gradient_checkpointing` is not known to"
