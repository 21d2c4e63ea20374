"""Adapted layers: the host's own layer with one more submodule, ``adapters``.

An adapted layer keeps its identity: it is the same object, still an ``nn.Linear`` (``nn.Conv2d``, ``Conv1D``) with the
same parameter names, and its class is swapped for a subclass whose ``forward`` adds the update. So checkpoints load
with no key surgery, hooks and references survive, and taking the adapter off gives back exactly what was there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from asym_lightning.adapters.layers.slices import SliceAdapters
from asym_lightning.adapters.rows import Rows


class AdaptedLayer(nn.Module):
    """A kind of adapted layer: a subclass of this and of the host's class, registered by `register_kind`.

    The weight is seen as a (d_out, d_in) matrix through :meth:`weight_matrix`, whatever form the host keeps it in. The
    factors A and B of each of its slices are in ``adapters``, one :class:`LowRankAdapter` a slice. Whoever finds
    targets, merges, saves, loads, reports or exchanges asks what is below; no other code knows a kind by name.

    A kind has to define ``host``, :meth:`weight_matrix`, :meth:`delta_weight` and :meth:`forward`.

    Attributes:
        adapters: The factors, by slice.
        host: The class of layers that it adapts. Subclasses of it can be named as targets, which is refused then.
        is_linear: The target ``all-linear`` means it too.
        has_dense_weight: The weight is a plain tensor of the matrix's numbers, hence an update can be added to it.
        can_change_rank: Schedules may grow and shrink its adapters.
        calls_adapters: Its forward pass calls ``adapters`` and reads no factor itself, as FSDP1 needs to shard them
            apart from the layer.
        peft_names: What PEFT's files call A and B, after the layer's name.
        fan_in_fan_out: PEFT's word for a weight that is kept as (d_in, d_out).
    """

    adapters: SliceAdapters
    weight: Tensor
    host: ClassVar[type[nn.Module]]
    is_linear: ClassVar[bool] = True
    has_dense_weight: ClassVar[bool] = True
    can_change_rank: ClassVar[bool] = True
    calls_adapters: ClassVar[bool] = True
    peft_names: ClassVar[tuple[str, str]] = ("lora_A.weight", "lora_B.weight")
    fan_in_fan_out: ClassVar[bool] = False

    # Of a host's layer that is not adapted yet

    @classmethod
    def adapts(cls, layer: nn.Module) -> bool:
        """Whether this is how to adapt a layer: of ``host`` itself, for a subclass may compute in a way of its own."""
        return type(layer) is cls.host

    @classmethod
    def refusal(cls, layer: nn.Module) -> str | None:
        """Why a layer that it adapts can't be, to follow the layer's name in a sentence; ``None`` if it can."""
        weight_type = type(getattr(layer, "weight", None))
        if not cls.has_dense_weight or weight_type is type(None) or weight_type.__module__.startswith("torch."):
            return None
        return (
            f"has a weight of type {weight_type.__name__} ({weight_type.__module__.split('.')[0]}), whose products are "
            "not known here, as those of bitsandbytes are"
        )

    @classmethod
    def shape_of(cls, layer: nn.Module) -> tuple[int, int]:
        """(d_out, d_in) of a layer's weight, adapted or not."""
        # The method reads only what the host's layer has.
        d_out, d_in = cls.weight_matrix(layer).shape  # type: ignore[arg-type]
        return d_out, d_in

    @classmethod
    def slices_of(cls, layer: nn.Module) -> Mapping[str, Rows] | None:
        """The rows of q, k and v, or whatever a layer of this class is fused of; ``None`` leaves it to the family."""
        return None

    @classmethod
    def adapt_host(cls, layer: nn.Module, adapters: SliceAdapters) -> AdaptedLayer:
        """Turn a host's layer, in place, into an adapted one; returns the same object under its new type."""
        adapters.host_class = type(layer)
        layer.__class__ = cls  # type: ignore[assignment]
        assert isinstance(layer, cls)
        layer.adapters = adapters.train(layer.training)
        return layer

    # Of an adapted one

    def restore_host(self) -> None:
        """Undo :meth:`adapt_host`: the layer has its class and keys back."""
        host_class = self.adapters.host_class
        del self.adapters
        self.__class__ = host_class  # type: ignore[assignment]

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in) view of the weight."""
        raise NotImplementedError

    def delta_weight(self) -> Tensor:
        """``s B A`` in the base weight's shape; zero in rows that are not adapted."""
        raise NotImplementedError

    def tokens(self, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """(tokens, d_in) and (tokens, d_out): what the weight's matrix multiplies, and what it gives or gets back.

        Args:
            inputs: What the layer is called with.
            outputs: What it returns, or the loss's gradient by that.
        """
        return inputs.flatten(0, -2), outputs.flatten(0, -2)

    def updates(self) -> dict[str, Tensor]:
        """What merging adds to which parameter of the layer, by the parameter's name."""
        return {"weight": self.delta_weight()}

    def to_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """A (rank, d_in) and B (d_out, rank) of the whole layer in the shapes that PEFT keeps them in."""
        return A, B

    def from_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`to_peft`."""
        return A.flatten(1), B.flatten(1)
