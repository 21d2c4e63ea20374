"""Second moments of inputs and gradients of a model's layers from a few batches, for A's that are chosen by data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from asym_lightning.adapters import adapter_layers
from asym_lightning.adapters.init.generator import layer_generator
from asym_lightning.adapters.init.statistics import CalibrationStatistics
from asym_lightning.adapters.rows import Rows
from asym_lightning.analysis.observed_layers import observed_layers
from asym_lightning.core.dtensor import whole
from asym_lightning.core.gradients import gradients_by
from asym_lightning.core.messages import listed
from asym_lightning.core.random_state import random_state, set_random_state

# Rows of gradients that are kept of all batches together; more are projected.
NUM_ROWS = 1024
# Columns of a block of S: it is symmetric, so the blocks below the diagonal need no product.
_BLOCK = 512


@dataclass(frozen=True)
class Site:
    """Where one A is.

    Args:
        layer: Name of the layer.
        d_in: Length of a row of A.
        rows: The slices of the layer's weight that read this A: one, or all where A is shared.
    """

    layer: str
    d_in: int
    rows: tuple[Rows, ...]

    @property
    def d_out(self) -> int:
        """Number of rows of the weight."""
        return sum(rows.count for rows in self.rows)


def adapter_sites(model: nn.Module) -> dict[str, Site]:
    """The sites of an adapted model, by the names that its A's are drawn by.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> model = nn.Sequential(nn.Linear(4, 4))
    >>> _ = inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
    >>> adapter_sites(model)
    {'0.all': Site(layer='0', d_in=4, rows=(Rows(start=0, size=4, groups=1),))}
    """
    sites: dict[str, Site] = {}
    for name, layer in adapter_layers(model).items():
        for part, adapter in layer.adapters.items():
            before = sites[adapter.A_key].rows if adapter.A_key in sites else ()
            sites[adapter.A_key] = Site(name, adapter.d_in, (*before, layer.adapters.rows[part]))
    return sites


def calibration_statistics(
    model: nn.Module,
    sites: Mapping[str, Site],
    batches: Sequence[Any],
    loss: Callable[[Any], Tensor],
    *,
    layers_at_a_time: int | None = None,
    seed: int = 0,
    outputs: bool = False,
    taken: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[str, CalibrationStatistics]]:
    """Run batches forward and backward and give the statistics of one site after the other.

    No parameter and no ``.grad`` changes, and every pass draws the same random numbers (dropout), so that the result
    does not depend on ``layers_at_a_time``. Tokens that get no gradient, such as padding, do not count. Sums are in
    float32 at least, whatever the layers compute in.

    In distributed training every process has to take part, each with its own share of every batch; then gradients are
    means and moments sums over all of them, as one process would have them that has whole batches.

    A layer's S takes d_in^2 numbers and each site at most 1024 d_in more: of a batch's gradient (d_out, d_in) a random
    projection on 1024 / (number of batches) rows is kept where it has more. It commutes with whatever is done on the
    input side, and its Gram matrix has the gradient's as its mean.

    Args:
        model: In the mode that it trains in. Some parameter before or in each layer must require a gradient.
        sites: What to calibrate, such as :func:`adapter_sites`.
        batches: Calibration batches.
        loss: Returns the loss of a batch.
        layers_at_a_time: Number of layers whose statistics are in memory together; each such group costs one more
            pass over the batches. ``None`` means all.
        seed: Seed of the projections.
        outputs: Take the second moment of the gradients at the outputs too, and keep gradients of all outputs, in the
            order of batches. That is d_out (d_out + d_in (number of batches)) numbers a site.
        taken: Directions that earlier tasks' inputs have, by layer, to be handed on with the statistics.

    Raises:
        ValueError: There are no batches, no call shows what a layer multiplies, a loss has no gradient, a layer gets
            none, or a sum is not finite; the message names the layer.

    Example:
        >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> _ = inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
        >>> x = torch.randn(100, 3)
        >>> found = dict(calibration_statistics(model, adapter_sites(model), [x], lambda x: model(x).square().mean()))
        >>> torch.allclose(found["0.all"].inputs, x.T @ x / 100), found["0.all"].gradients.shape
        (True, torch.Size([4, 3]))
    """
    if not batches:
        raise ValueError("there are no batches to calibrate with.")
    layers = adapter_layers(model)
    names = list(dict.fromkeys(site.layer for site in sites.values()))
    silent = [name for name in names if not layers[name].shows_tokens]
    if silent:
        raise ValueError(
            f"no A can be chosen from data for {listed([f'`{name}`' for name in silent], 3)}, since no call of "
            f"{type(layers[silent[0]]).host.__name__} shows what its weight multiplies; leave such layers out of the "
            "targets, or use an init rule that draws from no data, such as 'rand'."
        )
    before = random_state()
    step = layers_at_a_time or len(names)
    for start in range(0, len(names), step):
        sums = {
            name: _LayerSums(layers[name], of_layer, len(batches), seed, outputs)
            for name in names[start : start + step]
            if (of_layer := {key: site for key, site in sites.items() if site.layer == name})
        }
        set_random_state(before)
        _run(model, sums, batches, loss)
        for name in list(sums):
            directions = None if taken is None else taken.get(name)
            for key, found in sums.pop(name).statistics(name):
                yield key, dataclasses.replace(found, taken=directions)


def drawn_from(
    model: nn.Module,
    statistics: Iterable[tuple[str, CalibrationStatistics]],
    num_rows: Mapping[str, int] | None = None,
    *,
    keeps_rate: bool = False,
) -> dict[str, Tensor]:
    """Every A of an adapted model as its init rule draws it, in the order in which statistics come.

    The A's in the model stay as they are; `reset_adapters(model, statistics=...)` takes what is returned here.

    Args:
        model: An adapted model; where it is sharded every process has to call this.
        statistics: By the A's names, such as :func:`calibration_statistics` gives them; each is let go before the next.
        num_rows: By A's name; ``None`` means each adapter's rank.
        keeps_rate: Multiply each A by :func:`scale_to_random`.
    """
    layers = adapter_layers(model).values()
    adapters = {adapter.A_key: (layer, part) for layer in layers for part, adapter in layer.adapters.items()}
    drawn: dict[str, Tensor] = {}
    for key, found in statistics:
        layer, part = adapters[key]
        adapter = layer.adapters[part]
        needs_weight = adapter.scheme.A.rule.needs_weight
        weight = layer.adapters.A_weight(part, whole(layer.weight_matrix())) if needs_weight else None
        rank = None if num_rows is None else num_rows[key]
        A = adapter.draw_A(weight, {key: found}, rank=rank)
        drawn[key] = (A * scale_to_random(A, found.inputs) if keeps_rate else A).to(torch.float32)
    return drawn


def scale_to_random(A: Tensor, inputs: Tensor) -> float:
    """The number that makes ``A x`` as large, in the mean square, as random orthonormal rows make it.

    A step of Adam moves each entry of B by the rate, whatever the gradient's size, hence the layer's output by the rate
    times what A makes of x. With A scaled so, the rate that suits a random A suits this one.

    Args:
        A: (rank, d_in).
        inputs: S (d_in, d_in), the second moment of x.

    Example:
        >>> S = torch.diag(torch.tensor([4.0, 1.0, 1.0]))
        >>> scale_to_random(torch.tensor([[2.0, 0.0, 0.0]]), S)  # A x is 4 in the root mean square; a random A: sqrt(2)
        0.353...
    """
    S, rows = inputs.double(), A.double()
    read = ((rows @ S) * rows).sum(dim=1).mean()
    return float((S.diagonal().mean() / read).sqrt())


class _LayerSums:
    """What is summed for one layer and its sites."""

    def __init__(self, layer: nn.Module, sites: Mapping[str, Site], num_batches: int, seed: int, outputs: bool) -> None:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        d_in = next(iter(sites.values())).d_in
        options: Any = {
            "device": weight.device,
            "dtype": torch.float64 if weight.dtype == torch.float64 else torch.float32,
        }
        self.layer, self.batch = layer, 0
        self._sites, self._seed = sites, seed
        most = max(site.d_out for site in sites.values())
        self._num_rows = most if outputs else math.ceil(NUM_ROWS / num_batches)
        self._num_tokens = torch.zeros((), dtype=torch.int64, device=weight.device)
        self._moment = torch.zeros(d_in, d_in, **options)
        self._gradients = {
            key: torch.zeros(num_batches, min(site.d_out, self._num_rows), d_in, **options)
            for key, site in sites.items()
        }
        self._outputs = {key: torch.zeros(site.d_out, site.d_out, **options) for key, site in sites.items() if outputs}

    def add(self, inputs: Tensor, gradients: Tensor) -> None:
        """Take in what passed through the layer in one call."""
        depends = (gradients != 0).any(dim=1)
        x, g = (tensor[depends].to(self._moment) for tensor in (inputs, gradients))
        self._num_tokens += len(x)
        self._moment += _gram(x)
        for key, site in self._sites.items():
            of_site = torch.cat([rows.take(g) for rows in site.rows], dim=1)
            self._gradients[key][self.batch] += self._projected(of_site, key).T @ x
            if key in self._outputs:
                self._outputs[key] += of_site.T @ of_site

    def _projected(self, gradients: Tensor, key: str) -> Tensor:
        """(tokens, d_out) on at most so many columns as are kept of a batch, the same ones in every process."""
        d_out = gradients.shape[1]
        if d_out <= self._num_rows:
            return gradients
        generator = layer_generator(self._seed, f"{key}.projection.{self.batch}")
        projection = torch.randn(d_out, self._num_rows, generator=generator).to(gradients)
        return gradients @ projection / math.sqrt(self._num_rows)

    def statistics(self, name: str) -> Iterator[tuple[str, CalibrationStatistics]]:
        """What the sums come to, over all processes."""
        count = _summed(self._num_tokens)
        if not count:
            raise ValueError(f"`{name}` was never called, or no gradient came to it; leave it out of the targets.")
        moment = (_summed(self._moment) / count).cpu()
        _check_finite(moment, f"the inputs of `{name}`")
        for key, of_batches in self._gradients.items():
            gradients = (_summed(of_batches) / _num_processes()).flatten(0, 1).cpu()
            _check_finite(gradients, f"the gradients by the weight of `{name}`")
            outputs = self._outputs.get(key)
            if outputs is not None:
                outputs = (_summed(outputs) / count / _num_processes() ** 2).cpu()
            yield key, CalibrationStatistics(moment, gradients, outputs)


def _run(
    model: nn.Module, sums: Mapping[str, _LayerSums], batches: Sequence[Any], loss: Callable[[Any], Tensor]
) -> None:
    layers = {name: of_layer.layer for name, of_layer in sums.items()}
    with observed_layers(layers, lambda name, x, g: sums[name].add(x, g)):
        for number, batch in enumerate(batches):
            for of_layer in sums.values():
                of_layer.batch = number
            with torch.enable_grad():
                value = loss(batch)
            if not value.requires_grad:
                raise ValueError(
                    f"the loss of calibration batch {number} depends on nothing that trains, so it has no gradient."
                )
            # By all trainable parameters: hooks fire on the way, and no `.grad` is left behind.
            gradients_by(value, [p for p in model.parameters() if p.requires_grad])


def _gram(x: Tensor) -> Tensor:
    """``x^T x``, a block of columns at a time, each with the columns up to its own."""
    d_in = x.shape[1]
    gram = x.new_empty(d_in, d_in)
    for start in range(0, d_in, _BLOCK):
        stop = min(start + _BLOCK, d_in)
        gram[start:stop, :stop] = x[:, start:stop].T @ x[:, :stop]
        gram[:start, start:stop] = gram[start:stop, :start].T
    return gram


def _check_finite(tensor: Tensor, what: str) -> None:
    if not tensor.isfinite().all():
        raise ValueError(f"{what} are not all finite on the calibration batches, so no A can be made of them.")


def _num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _summed(tensor: Tensor) -> Tensor:
    if _num_processes() > 1:
        dist.all_reduce(tensor)
    return tensor
