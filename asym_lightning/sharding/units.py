"""Which parts of a model are gathered and freed together, for FSDP2 and for FSDP1."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakSet

from torch import nn

from asym_lightning.adapters import adapter_layers, adapters_by_name
from asym_lightning.adapters.layers.adapted import own_parameter
from asym_lightning.adapters.layers.slices import SliceAdapters


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The repeated blocks of a network by name: transformer layers, or the blocks of a convolutional network's stages.

    A block is a member of an ``nn.ModuleList`` or ``nn.Sequential`` of at least two modules of one class, which has
    parts of its own; where such lists are nested, of the innermost ones.

    >>> layer = lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> list(blocks(nn.ModuleDict({"layers": nn.ModuleList([layer(), layer()]), "head": nn.Linear(2, 2)})))
    ['layers.0', 'layers.1']
    """
    found = {f"{name}.{child}".removeprefix("."): module for name, parent in model.named_modules()
             for child, module in _members(parent)}  # fmt: skip
    return {name: block for name, block in found.items() if not any(other.startswith(f"{name}.") for other in found)}


def large_embeddings(model: nn.Module) -> dict[str, nn.Embedding]:
    """Embeddings outside the blocks with at least as many parameters as a block, whose weight no other module uses.

    Only these are worth a gather of their own: they are needed at the start of the forward pass and not again.
    """
    all_blocks = blocks(model).values()
    inside = {id(p) for block in all_blocks for p in block.parameters()}
    largest = max(map(_size, all_blocks), default=0)
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        and id(weight := own_parameter(module)) not in inside
        and users[id(weight)] == 1
        and weight.numel() >= largest > 0
    }


def fsdp2_units(model: nn.Module) -> list[nn.Module]:
    """The modules that FSDP2 gathers one by one: blocks and large embeddings; all the rest is one unit more."""
    return [*blocks(model).values(), *large_embeddings(model).values()]


def sharded_by_columns(model: nn.Module, num_shards: int) -> set[int]:
    """Ids of the parameters that FSDP2 cuts along their second dimension: every A, where that gives equal shards."""
    return {id(a.factor_A) for a in adapters_by_name(model).values() if a.d_in % num_shards == 0}


class AdapterWrapPolicy:
    """For FSDP1: which submodules are units of their own, as `auto_wrap_policy` of Lightning's `FSDPStrategy` or torch.

    FSDP1 flattens a unit into one parameter, whose gradient takes memory and traffic for all of it if any of it trains.
    So blocks are units, and the adapters and the trained modules in and beside them are units apart.

    Example:
        >>> model = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)], nn.Linear(4, 2))
        >>> _ = model.requires_grad_(False), model[2].requires_grad_(True)
        >>> policy = AdapterWrapPolicy()
        >>> policy(model, recurse=True, nonwrapped_numel=0)  # torch begins with the whole model
        True
        >>> [name for name, module in model.named_modules() if policy(module, recurse=False, nonwrapped_numel=0)]
        ['2']
    """

    def __init__(self) -> None:
        self._known: WeakSet[nn.Module] = WeakSet()
        self._units: WeakSet[nn.Module] = WeakSet()

    def __call__(self, module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
        """Whether to look into a module (always), or whether it is a unit."""
        if not recurse:
            return module in self._units
        if module not in self._known:  # the root: nothing else is asked about before what contains it
            self._known.update(module.modules())
            self._units.update([*blocks(module).values(), *_adapters(module), *_trained_in_full(module)])
        return True


def _members(parent: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children of a list of like blocks; none of anything else."""
    children = list(parent.named_children())
    if not isinstance(parent, (nn.ModuleList, nn.Sequential)) or len(children) < 2:
        return
    like = len({type(child) for _, child in children}) == 1
    # A leaf is a layer, not a block.
    if like and all(any(True for _ in child.children()) for _, child in children):
        yield from children


def _adapters(model: nn.Module) -> Iterator[SliceAdapters]:
    """Those that their layer calls; another kind of layer reads the factors itself."""
    return (layer.adapters for layer in adapter_layers(model).values() if layer.calls_adapters)


def _trained_in_full(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules outside adapters all of whose parameters train."""
    for child in model.children():
        if isinstance(child, SliceAdapters):
            continue
        parameters = list(child.parameters())
        if parameters and all(parameter.requires_grad for parameter in parameters):
            yield child
        else:
            yield from _trained_in_full(child)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
