"""One backbone, one A a layer, and a stack of B's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from asym_lightning.adapters.files.backbone import backbone_sample, other_weight
from asym_lightning.adapters.files.directory import SavedAdapter
from asym_lightning.adapters.files.load import config_of, heads_of, read_for, staged
from asym_lightning.adapters.files.save import save_adapters
from asym_lightning.adapters.kernels.by_row import FactorsByRow, RowsInUse
from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.lookup import adapter_layers, adapters_by_name
from asym_lightning.adapters.stack.heads import heads_by_row
from asym_lightning.adapters.surgery.inject import inject_adapters, remove_adapters
from asym_lightning.adapters.surgery.merge import merged_layers
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.dtensor import any_sharded
from asym_lightning.core.messages import did_you_mean, listed
from asym_lightning.core.names import plain_state

_NO_ADAPTER = 0  # the place in each stack whose B is zero


class AdapterStack:
    """Adapters of one model that share its A's, by name; every row of a batch may have another of them.

    ``h = A x`` is computed once for the batch, and B's are multiplied in one batched product a layer, whatever the
    number of adapters. Each adapter brings its heads, if it has some, and rows without an adapter get the backbone
    alone, with the heads that the model has itself. The model's own B's are not used while rows are named.

    Args:
        model: Adapted, with the A's that all share, or not yet: then the first adapter says how.
        adapters: Directories by name, to begin with.

    Raises:
        RuntimeError: The model's adapters are merged, or it is sharded.
        ValueError: As for :meth:`load`.

    Example:
        >>> import tempfile
        >>> from asym_lightning.adapters import AdapterConfig
        >>> model = nn.Sequential(nn.Linear(4, 4))
        >>> _ = inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
        >>> _ = nn.init.ones_(model[0].adapters["all"].factor_B)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_adapters(model, folder)
        ...     stack = AdapterStack(model, {"ones": folder})
        >>> x = torch.ones(2, 4)
        >>> with stack.rows_use(["ones", None]):
        ...     y = model(x)
        >>> torch.allclose(y[0], model(x)[0]), torch.allclose(y[1], model(x)[1])
        (True, False)
    """

    def __init__(self, model: nn.Module, adapters: Mapping[str, str | Path] | None = None) -> None:
        self.model = model
        self._stacks: dict[str, Tensor] = {}
        """(places, rank, rows of the slice), the transposed B's by layer and slice."""
        self._places: dict[str, int] = {}
        self._heads: dict[str, dict[str, dict[str, Tensor]]] = {}
        """What the heads of each adapter hold, by the head's name and their names in it."""
        self._in_use: list[str] = []
        if any(True for _ in merged_layers(model)):
            raise RuntimeError(
                "The adapters are merged into the weights: call `unmerge_adapters` before stacking others."
            )
        if adapter_layers(model):
            self._begin()
        for name, directory in (adapters or {}).items():
            self.load(name, directory)

    @property
    def names(self) -> list[str]:
        """The adapters that there are, in the order in which they were loaded."""
        return list(self._places)

    def load(self, name: str, directory: str | Path) -> None:
        """Add an adapter, or put another in the place of one; the model may have been used in between.

        Args:
            name: What rows call it.
            directory: The adapter's directory, or that of the run that it is in.

        Raises:
            FileNotFoundError: There is no adapter in ``directory``.
            ValueError: A file is damaged, or the adapter is of another backbone, rank, A or head than the model has, or
                trains what rows of a batch can't have each their own of. Nothing is changed then.
            RuntimeError: The model is sharded, or rows use an adapter of that name.
        """
        self._check_not_in_use(name)
        saved = read_for(self.model, directory)
        if saved.token_rows:
            raise ValueError(
                f"`{saved.path}` trains rows of `{next(iter(saved.token_rows))}`, which rows of a batch can't have "
                "each their own of: load it alone, by `load_adapters`."
            )
        config = config_of(saved, self.model)
        is_first = not adapter_layers(self.model)
        try:
            if is_first:
                trains = {n: p.requires_grad for n, p in self.model.named_parameters()}
                inject_adapters(self.model, config, draw=False)
                self._begin()
            self._check_backbone(saved)
            factors, others = staged(self.model, saved, keeps_A=not is_first)
        except Exception:
            if is_first and adapter_layers(self.model):
                remove_adapters(self.model)
                self._stacks.clear()
                for n, p in self.model.named_parameters():
                    p.requires_grad_(trains[n])
            raise
        own = adapters_by_name(self.model)
        if is_first:
            with torch.no_grad():
                for key, (A, _) in factors.items():
                    own[key].factor_A[: len(A)].copy_(A)
                    own[key].rank = len(A)
        place = self._places.get(name) or self._free_place()
        for key, (_, B) in factors.items():
            self._stacks[key][place, : B.shape[1]] = B.T.to(self._stacks[key])
        self._places[name] = place
        state = plain_state(self.model)
        heads = heads_of(self.model, saved)
        self._heads[name] = {}
        for tensor_name, tensor in others.items():
            head = next(head for head in heads if is_within(tensor_name, [head]))
            own_name = tensor_name.removeprefix(f"{head}.")
            self._heads[name].setdefault(head, {})[own_name] = tensor.to(state[tensor_name])

    def drop(self, name: str) -> None:
        """Take an adapter out.

        Raises:
            ValueError: There is none of that name.
            RuntimeError: Rows use it.
        """
        self._check_known(name)
        self._check_not_in_use(name)
        del self._places[name], self._heads[name]

    @contextmanager
    def rows_use(self, names: Sequence[str | None]) -> Iterator[None]:
        """Let the rows of each batch have these adapters until the context is left.

        Where a model is called with k times as many rows, as in a beam search, each name counts for k rows in a row.

        Args:
            names: One for each row; ``None`` means the backbone alone.

        Raises:
            ValueError: There is no adapter of a name, or no name at all.
            RuntimeError: Rows use others already, or the model's adapters are merged, disabled or gone by now.
        """
        if not names:
            raise ValueError("`rows_use` needs a name, or None, for each row of the batch.")
        for name in names:
            if name is not None:
                self._check_known(name)
        if self._in_use:
            raise RuntimeError("Rows use adapters already: leave that `rows_use` first.")
        layers = adapter_layers(self.model)
        if set(adapters_by_name(self.model)) != set(self._stacks):
            raise RuntimeError("The model's adapters have been merged, disabled or taken off since they were stacked.")
        places = [_NO_ADAPTER if name is None else self._places[name] for name in names]
        rows: dict[torch.device, RowsInUse] = {}
        self._in_use = [*dict.fromkeys(name for name in names if name is not None)] or [""]
        try:
            for layer_name, layer in layers.items():
                stacks = [self._on_device(f"{layer_name}.{part}", layer) for part in layer.adapters]
                device = stacks[0].device
                rows[device] = rows.get(device) or RowsInUse.of(places, device)
                layer.adapters.by_row = FactorsByRow(layer_name, stacks, rows[device])
            with heads_by_row(self.model, self._heads, names):
                yield
        finally:
            for layer in layers.values():
                layer.adapters.by_row = None
            self._in_use = []

    def save(self, name: str, directory: str | Path, *, include_frozen: bool = True) -> None:
        """Write one adapter as a directory that `peft` reads.

        Args:
            name: Which.
            directory: Where to write.
            include_frozen: As for `save_adapters`.

        Raises:
            ValueError: There is none of that name.
        """
        self._check_known(name)
        state = plain_state(self.model)
        before = {
            **{
                adapter.factor_B: adapter.factor_B.detach().clone() for adapter in adapters_by_name(self.model).values()
            },
            **{state[n]: state[n].detach().clone() for n in self._head_tensors(name)},
        }
        try:
            with torch.no_grad():
                for key, adapter in adapters_by_name(self.model).items():
                    adapter.factor_B.copy_(self._stacks[key][self._places[name]].T)
                for n, tensor in self._head_tensors(name).items():
                    state[n].copy_(tensor)
            save_adapters(self.model, directory, include_frozen=include_frozen)
        finally:
            with torch.no_grad():
                for tensor, was in before.items():
                    tensor.copy_(was)

    def _begin(self) -> None:
        """Make room for no adapter.

        Raises:
            RuntimeError: The model is sharded.
            ValueError: It has adapted layers in which rows can't differ.
        """
        if any_sharded(self.model):
            raise RuntimeError("Adapters can't be stacked on a sharded model: the rows of its factors are apart.")
        unfit = [
            f"`{name}` ({type(layer).__name__})"
            for name, layer in adapter_layers(self.model).items()
            if not _fits(layer)
        ]
        if unfit:
            raise ValueError(
                f"Rows of a batch can't have adapters of their own in {listed(unfit, 3)}: adapt linear layers alone."
            )
        for key, adapter in adapters_by_name(self.model).items():
            self._stacks[key] = adapter.factor_B.detach().new_zeros(1, adapter.max_rank, adapter.d_out)

    def _check_backbone(self, saved: SavedAdapter) -> None:
        here = backbone_sample(self.model)
        if (name := other_weight(here, saved.backbone)) is not None:
            raise ValueError(
                f"`{saved.path}` was trained over another backbone: the weight of `{name}` starts with "
                f"{here[name][0]:.6g} here and with {saved.backbone[name][0]:.6g} there."
            )

    def _free_place(self) -> int:
        num_places = len(next(iter(self._stacks.values())))
        taken = {_NO_ADAPTER, *self._places.values()}
        place = next((place for place in range(num_places) if place not in taken), num_places)
        if place == num_places:  # room for twice as many, so that loading copies little
            for key, stack in self._stacks.items():
                self._stacks[key] = torch.cat([stack, torch.zeros_like(stack)])
        return place

    def _on_device(self, key: str, layer: AdaptedLayer) -> Tensor:
        """The stack of a slice, where the layer is now."""
        own = layer.adapters[key.rpartition(".")[2]].factor_B
        if self._stacks[key].device != own.device:
            self._stacks[key] = self._stacks[key].to(own.device)
        return self._stacks[key]

    def _head_tensors(self, name: str) -> dict[str, Tensor]:
        return {f"{head}.{own}": tensor for head, state in self._heads[name].items() for own, tensor in state.items()}

    def _check_known(self, name: str) -> None:
        if name not in self._places:
            raise ValueError(f"There is no adapter `{name}`{did_you_mean(name, self.names)}")

    def _check_not_in_use(self, name: str) -> None:
        if name in self._in_use:
            raise RuntimeError(f"Rows use `{name}`: leave `rows_use` before it is dropped or replaced.")


def _fits(layer: AdaptedLayer) -> bool:
    """Whether a layer multiplies rows of a batch by its adapters, and host code reads no weight of it."""
    return layer.calls_adapters and not layer.adapters.is_read
