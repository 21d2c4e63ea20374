"""Adapted layers: the host's own layer with one more submodule, ``adapters``.

An adapted layer keeps its identity: it is the same object, still an ``nn.Linear`` (``nn.Conv2d``, ``Conv1D``) with the
same parameter names, and its class is swapped for a subclass whose ``forward`` adds the update. So checkpoints load
with no key surgery, hooks and references survive, and taking the adapter off gives back exactly what was there.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from asym_lightning.adapters.layers.slices import SliceAdapters
from asym_lightning.adapters.rows import Rows
from asym_lightning.core.private_names import is_offloaded


def own_parameter(layer: nn.Module, name: str = "weight") -> Any:
    """The frozen parameter of a layer, adapted or not, where :class:`ReadParameter` would give it with the update."""
    own = layer._parameters.get(name)
    if own is None and name not in vars(layer):
        raise AttributeError(f"{type(layer).__name__} has no parameter `{name}`.")
    # FSDP1 takes parameters out of their dictionary and sets plain views in their place.
    return vars(layer)[name] if own is None else own


def with_update(weight: Tensor, delta: Tensor) -> Tensor:
    """``W + s B A`` in W's dtype, added up in that of the factors: in bfloat16 the sum would be rounded twice."""
    return (weight.to(delta.dtype) + delta).to(weight.dtype)


class ReadParameter:
    """A parameter of an adapted layer: the frozen one, or ``W + s B A`` where host code reads it and calls no layer.

    Whether it does is ``adapters.is_read``. Then what it reads is what merging would leave: state-space blocks,
    attention that takes weights as arguments and torch's fused encoder so compute with the adapter and give it its
    gradient, in training or in evaluation, always or once in a while. What a kind itself computes with is
    :func:`own_parameter`. From a weight that is read dropout has no input to drop.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, layer: AdaptedLayer | None, owner: type) -> Any:
        if layer is None:
            return self
        own = own_parameter(layer, self._name)
        if not (layer.adapters.is_read and layer.has_dense_weight):
            return own
        delta = layer.updates()[self._name]
        return with_update(own, delta)

    # Without these two FSDP1 could not set its views.
    def __set__(self, layer: AdaptedLayer, value: Any) -> None:
        vars(layer)[self._name] = value

    def __delete__(self, layer: AdaptedLayer) -> None:
        del vars(layer)[self._name]


class PeftPlace(NamedTuple):
    """Where PEFT keeps a layer's factors.

    Attributes:
        path: What its tensors' names begin with, after the prefix of all.
        target: What its configuration calls the layer.
        is_parameter: The target is a parameter, and not a module.
    """

    path: str
    target: str
    is_parameter: bool = False


class AdaptedLayer(nn.Module):
    """A kind of adapted layer: a subclass of this and of the host's class, registered by `register_kind`.

    The weight is seen as a (d_out, d_in) matrix through :meth:`weight_matrix`, whatever form the host keeps it in. The
    factors A and B of each of its slices are in ``adapters``, one :class:`LowRankAdapter` a slice. Whoever finds
    targets, merges, saves, loads, reports or exchanges asks what is below; no other code knows a kind by name.

    A kind has to define ``host``, :meth:`weight_matrix`, :meth:`delta_weight` and :meth:`forward`. It reads its
    parameters by :func:`own_parameter`.

    Attributes:
        adapters: The factors, by slice.
        weight: The frozen weight; for host code that reads it and does not call the layer, with the update.
        parameter: Name of the weight among the parameters of :meth:`holder`.
        host: The class of layers that it adapts. Subclasses of it can be named as targets, which is refused then.
        is_linear: The target ``all-linear`` means it too.
        is_convolution: The target ``all-conv`` means it.
        plays_roles: Its name may tell a role that it plays.
        is_read: Host code reads its weight and nothing else of it.
        has_dense_weight: The weight is a plain tensor of the matrix's numbers, hence an update can be added to it.
        can_change_rank: Schedules may grow and shrink its adapters.
        calls_adapters: Its forward pass calls ``adapters`` and reads no factor itself, as FSDP1 needs to shard them
            apart from the layer.
        own_role: A role that every layer of this kind plays, beside what its family says.
        peft_names: What PEFT's files call A and B, after the layer's name.
        is_misread_by_peft: PEFT reads the factors and computes something else with them.
        fan_in_fan_out: PEFT's word for a weight that is kept as (d_in, d_out).
    """

    adapters: SliceAdapters
    weight: Any = ReadParameter()
    parameter: str = "weight"
    host: ClassVar[type[nn.Module]]
    is_linear: ClassVar[bool] = True
    is_convolution: ClassVar[bool] = False
    plays_roles: ClassVar[bool] = True
    is_read: ClassVar[bool] = False
    has_dense_weight: ClassVar[bool] = True
    can_change_rank: ClassVar[bool] = True
    calls_adapters: ClassVar[bool] = True
    own_role: ClassVar[str] = ""
    peft_names: ClassVar[tuple[str, str]] = ("lora_A.weight", "lora_B.weight")
    is_misread_by_peft: ClassVar[bool] = False
    fan_in_fan_out: ClassVar[bool] = False

    # Of a host's layer that is not adapted yet

    @classmethod
    def adapts(cls, layer: nn.Module) -> bool:
        """Whether this is how to adapt a layer: of ``host`` itself, for a subclass may compute in a way of its own."""
        return type(layer) is cls.host

    @classmethod
    def parts_of(cls, module: nn.Module) -> Mapping[str, nn.Module]:
        """What stands for parameters of a module that are adapted each like a layer, by the parameter's name."""
        return {}

    @classmethod
    def refusal(cls, layer: nn.Module) -> str | None:
        """Why a layer that it adapts can't be, to follow the layer's name in a sentence; ``None`` if it can."""
        if "forward" in vars(layer) and not _methods(layer):
            return "has a `forward` set on itself, which goes past its class and so past an adapter"
        if is_offloaded(layer):
            return "is offloaded by accelerate, which leaves it no weight to adapt: load the model without offloading"
        weight_type = type(layer._parameters.get("weight"))
        if not cls.has_dense_weight or weight_type is type(None) or weight_type.__module__.startswith("torch."):
            return None
        return (
            f"has a weight of type {weight_type.__name__} ({weight_type.__module__.split('.')[0]}), whose products are "
            "not known here, as those of bitsandbytes are"
        )

    @classmethod
    def counts_as_linear(cls, layer: nn.Module) -> bool:
        """Whether ``all-linear`` means this layer."""
        return cls.is_linear

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
    def parts_with_own_A(cls, layer: nn.Module) -> Mapping[str, Rows]:
        """Rows of what shares one A unless the configuration's ``share_expert_a`` is false; none for most kinds."""
        return {}

    @classmethod
    def adapt_host(cls, layer: nn.Module, adapters: SliceAdapters) -> AdaptedLayer:
        """Turn a host's layer, in place, into an adapted one; returns the same object under its new type."""
        adapters.host_class = type(layer)
        _become(layer, cls)
        assert isinstance(layer, cls)
        layer.adapters = adapters.train(layer.training)
        return layer

    # Of an adapted one

    def restore_host(self) -> None:
        """Undo :meth:`adapt_host`: the layer has its class and keys back."""
        host_class = self.adapters.host_class
        del self.adapters
        _become(self, host_class)

    def holder(self) -> nn.Module:
        """The module whose parameters :meth:`updates` names: itself, where it is one of the host's."""
        return self

    def base_parameters(self) -> list[nn.Parameter]:
        """The host's parameters that it computes with."""
        return list(self.parameters(recurse=False))

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in) view of the weight."""
        raise NotImplementedError

    def delta_weight(self) -> Tensor:
        """``s B A`` in the base weight's shape; zero in rows that are not adapted."""
        raise NotImplementedError

    @property
    def shows_tokens(self) -> bool:
        """Whether tokens can be told from a call, as choosing A from data needs."""
        return not type(self).is_read

    def input_tokens(self, inputs: Tensor) -> Tensor:
        """(tokens, d_in): what the weight's matrix multiplies, of what the layer is called with."""
        return inputs.flatten(0, -2)

    def output_tokens(self, outputs: Tensor) -> Tensor:
        """(tokens, d_out), in the order of :meth:`input_tokens`: of what the layer returns, or its gradient."""
        return outputs.flatten(0, -2)

    def updates(self) -> dict[str, Tensor]:
        """What merging adds to which parameter of the layer, by the parameter's name."""
        return {self.parameter: self.delta_weight()}

    def peft_place(self, name: str) -> PeftPlace:
        """Where PEFT keeps the factors of this layer, which goes by ``name`` in the model."""
        return PeftPlace(name, name)

    def to_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """A (rank, d_in) and B (d_out, rank) of the whole layer in the shapes that PEFT keeps them in."""
        return A, B

    def from_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`to_peft`."""
        return A.flatten(1), B.flatten(1)

    def peft_rank(self, rank: int) -> int:
        """PEFT's word for the rank of A (rank, d_in)."""
        return rank


def _methods(layer: nn.Module) -> list[str]:
    """Attributes of the instance that are its class's ``forward``, as accelerate keeps it when it wraps a layer."""
    return [name for name, value in vars(layer).items() if getattr(value, "__func__", None) is type(layer).forward]


def _become(layer: nn.Module, cls: type[nn.Module]) -> None:
    """Give a layer another class, and its ``forward`` to the attributes of the instance that were the former one's."""
    attributes: dict[str, Any] = vars(layer)
    methods = _methods(layer)
    layer.__class__ = cls  # type: ignore[assignment]
    attributes.update((name, types.MethodType(cls.forward, layer)) for name in methods)
    # Compiled code of torch 2.10 asks for a class again only where an attribute has become another since.
    is_training = attributes["training"]
    attributes["training"] = None
    attributes["training"] = is_training
