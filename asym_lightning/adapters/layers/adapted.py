"""Adapted layers: the host's own layer with one more submodule, ``adapters``.

An adapted layer keeps its identity: it is the same object, still an ``nn.Linear`` (``nn.Conv2d``, ``Conv1D``) with the
same parameter names, and its class is swapped for a subclass whose ``forward`` adds the update. So checkpoints load
with no key surgery, hooks and references survive, and taking the adapter off gives back exactly what was there.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from asym_lightning.adapters.layers.slices import SliceAdapters


class AdaptedLayer(nn.Module):
    """What every adapted layer has beside its host class: ``adapters`` and :meth:`delta_weight`.

    The weight is seen as a (d_out, d_in) matrix through :meth:`weight_matrix`, whatever form the host keeps it in.
    """

    adapters: SliceAdapters
    weight: Tensor
    has_dense_weight: ClassVar[bool] = True

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in) view of the weight."""
        raise NotImplementedError

    def delta_weight(self) -> Tensor:
        """``s B A`` in the base weight's shape; zero in rows that are not adapted."""
        raise NotImplementedError


def adapt_host(layer: nn.Module, adapted_class: type[AdaptedLayer], adapters: SliceAdapters) -> AdaptedLayer:
    """Turn a host's layer, in place, into an adapted one; returns the same object under its new type."""
    adapters.host_class = type(layer)
    layer.__class__ = adapted_class  # type: ignore[assignment]
    assert isinstance(layer, AdaptedLayer)
    layer.adapters = adapters.train(layer.training)
    return layer


def restore_host(layer: AdaptedLayer) -> None:
    """Undo :func:`adapt_host`: the layer has its class and keys back."""
    host_class = layer.adapters.host_class
    del layer.adapters
    layer.__class__ = host_class  # type: ignore[assignment]
