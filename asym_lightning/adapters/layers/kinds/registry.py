"""The registry of kinds of adapted layers, which everything that looks for layers asks."""

from __future__ import annotations

import functools
import importlib.util
from typing import TypeVar

from torch import nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.core.discovery import import_modules
from asym_lightning.core.names import plain_modules

Kind = TypeVar("Kind", bound=type[AdaptedLayer])
_KINDS: dict[str, type[AdaptedLayer]] = {}


def register_kind(kind: Kind) -> Kind:
    """Make a kind of adapted layer known, as a decorator; where two kinds adapt one layer, the later one does.

    Registering a class of the same name again replaces it, as a notebook does.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> from asym_lightning.adapters.layers.kinds.linear import AdaptedLinear
    >>> class Projection(nn.Linear):
    ...     "A layer of one's own, which computes what nn.Linear does."
    >>> @register_kind
    ... class AdaptedProjection(AdaptedLinear, Projection):
    ...     host = Projection
    >>> model = nn.Sequential(Projection(4, 4))
    >>> inject_adapters(model, AdapterConfig(rank=2, targets=["0"])).layers[0].layer
    '0'

    Raises:
        TypeError: It is no :class:`AdaptedLayer`, or no subclass of the layer that it adapts.
    """
    if not (isinstance(kind, type) and issubclass(kind, AdaptedLayer)):
        raise TypeError(f"A kind must be a subclass of AdaptedLayer, got {kind!r}.")
    if not issubclass(kind, getattr(kind, "host", type(None))):
        raise TypeError(f"`{kind.__name__}.host` must be the class of layers that it adapts and inherits from.")
    name = f"{kind.__module__}.{kind.__qualname__}"
    _KINDS.pop(name, None)
    _KINDS[name] = kind
    return kind


def kinds() -> tuple[type[AdaptedLayer], ...]:
    """All kinds that are known by now, the latest first."""
    return tuple(reversed(_KINDS.values()))


def kind_of(layer: nn.Module) -> type[AdaptedLayer] | None:
    """The kind that adapts exactly this layer, or that does already; ``None`` where there is none.

    >>> kind_of(nn.Linear(2, 2)).__name__, kind_of(nn.ReLU())
    ('AdaptedLinear', None)
    """
    if isinstance(layer, AdaptedLayer):
        return type(layer)
    _know_libraries_of(layer)
    return next((kind for kind in kinds() if kind.adapts(layer)), None)


def host_kind(layer: nn.Module) -> type[AdaptedLayer] | None:
    """The kind of a layer that may be named as a target: its own, or one of a class that it is a subclass of."""
    return kind_of(layer) or next((kind for kind in kinds() if isinstance(layer, kind.host)), None)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Everything in a model that may be named as a target, by name and in its order."""
    found: dict[str, nn.Module] = {}
    for name, module in plain_modules(model):
        if host_kind(module):
            found[name] = module
        for kind in kinds():
            for parameter, part in kind.parts_of(module).items():
                found.setdefault(f"{name}.{parameter}".removeprefix("."), part)
    return found


def host_names() -> list[str]:
    """The classes of layers that are adapted, as messages call them."""
    return sorted({_short_name(kind.host) for kind in kinds()})


def _short_name(host: type[nn.Module]) -> str:
    library = host.__module__.partition(".")[0]
    return f"{'nn' if library == 'torch' else library}.{host.__name__}"


def _know_libraries_of(layer: nn.Module) -> None:
    """Import the kinds for the libraries that a layer's class and its bases come from."""
    for cls in type(layer).__mro__:
        _import_library(cls.__module__.partition(".")[0])


@functools.cache
def _import_library(name: str) -> None:
    package = f"{__package__}.{name}"
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations is not None:
        import_modules(package)
