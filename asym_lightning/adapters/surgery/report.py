"""What an injection did, as data and as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer, own_parameter
from asym_lightning.adapters.layers.lookup import adapter_layers, factors_by_name
from asym_lightning.adapters.surgery.quantize import QuantizedPart, num_weights
from asym_lightning.adapters.targets.find import output_layers
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.messages import listed
from asym_lightning.core.names import without_numbers


@dataclass(frozen=True)
class LayerReport:
    """One adapter.

    Attributes:
        layer: Name of the layer.
        slice: Slice of it, ``all`` for the whole.
        shape: (d_out, d_in) of the slice.
        rank: Active rank.
        scheme: How the factors started and which one trains.
        A_norm: Frobenius norm of A now.
        B_norm: Frobenius norm of B now.
        trainable: Trained numbers.
        frozen: Frozen numbers (a shared A counts at its first slice).
    """

    layer: str
    slice: str
    shape: tuple[int, int]
    rank: int
    scheme: str
    A_norm: float
    B_norm: float
    trainable: int
    frozen: int


@dataclass(frozen=True)
class InjectionReport:
    """All adapters of a model, its heads and its counts.

    Attributes:
        layers: One entry an adapter.
        heads: Modules that are trained in full.
        trainable: Parameters that train, each counted once.
        total: All parameters, each counted once.
        quantized: What of the backbone is quantised.
        reach: Share of the weights in matrices that are in adapted ones; embeddings, output layers and heads aside.
        unreached: The others, as names with ``*`` for numbers, by their share: those with a hundredth at least.
        left_out: Layers that ``all-linear`` or ``all-conv`` means and that can't be adapted, with the reason.
        unplayed: By role that was asked for, attention and MLPs in which no layer plays it.
        derived: By role that was asked for, layers that play it by what they and what holds them are called, for no
            family says so.
    """

    layers: tuple[LayerReport, ...]
    heads: tuple[str, ...]
    trainable: int
    total: int
    quantized: QuantizedPart
    reach: float
    unreached: Mapping[str, float]
    left_out: Mapping[str, str]
    unplayed: Mapping[str, Sequence[str]]
    derived: Mapping[str, Sequence[str]]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        layers: Mapping[str, AdaptedLayer],
        heads: Sequence[str],
        *,
        left_out: Mapping[str, str] | None = None,
        unplayed: Mapping[str, Sequence[str]] | None = None,
        derived: Mapping[str, Sequence[str]] | None = None,
    ) -> InjectionReport:
        """Describe a model as it is now."""
        rows: list[LayerReport] = []
        for name, layer in layers.items():
            seen: set[int] = set()
            for slice_name, adapter in layer.adapters.items():
                new = [p for p in adapter.parameters() if id(p) not in seen]
                seen.update(map(id, new))
                rows.append(
                    LayerReport(
                        name,
                        slice_name,
                        (adapter.d_out, adapter.d_in),
                        adapter.rank,
                        str(adapter.scheme),
                        A_norm=_norm(adapter.factor_A),
                        B_norm=_norm(adapter.factor_B),
                        trainable=sum(p.numel() for p in new if p.requires_grad),
                        frozen=sum(p.numel() for p in new if not p.requires_grad),
                    )
                )
        parameters = list(model.parameters())
        return cls(
            tuple(rows),
            tuple(heads),
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
            total=sum(num_weights(p) for p in parameters),
            quantized=QuantizedPart.of(model),
            **_reach(model, heads),
            left_out=left_out or {},
            unplayed=unplayed or {},
            derived=derived or {},
        )

    def __str__(self) -> str:
        header = ("layer", "slice", "d_out x d_in", "rank", "init", "|A|", "|B|", "trained", "frozen")
        table = [header] + [
            (
                r.layer,
                r.slice,
                f"{r.shape[0]} x {r.shape[1]}",
                str(r.rank),
                r.scheme,
                f"{r.A_norm:.3g}",
                f"{r.B_norm:.3g}",
                f"{r.trainable:,}",
                f"{r.frozen:,}",
            )
            for r in self.layers
        ]
        widths = [max(len(row[i]) for row in table) for i in range(len(header))]
        words, numbers = slice(0, 5), slice(5, None)
        lines = [
            "  ".join(
                [cell.ljust(width) for cell, width in zip(row[words], widths[words], strict=True)]
                + [cell.rjust(width) for cell, width in zip(row[numbers], widths[numbers], strict=True)]
            )
            for row in table
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        if self.heads:
            lines.append(f"trained in full: {', '.join(self.heads)}")
        if self.quantized.num_layers:
            lines.append(str(self.quantized))
        lines += self._what_is_not()
        share = self.trainable / max(self.total, 1)
        lines.append(f"trainable {self.trainable:,} of {self.total:,} parameters ({share:.2%})")
        return "\n".join(lines)

    def _what_is_not(self) -> Iterator[str]:
        """A line for each kind of thing that was asked for and is not adapted."""
        for reason, names in _grouped(self.left_out).items():
            yield f"left out: {listed(names, 4)}, which {reason}"
        for role, holders in self.unplayed.items():
            yield f"no {role} is known in {listed(holders, 4)}"
        for role, layers in self.derived.items():
            listing = listed(without_numbers(layers), 4)
            yield f"derived: {role} is {listing}, by names and classes, for no family says so"
        if self.unreached:
            rest = listed([f"{name} ({share:.0%})" for name, share in self.unreached.items()], 4)
            yield f"adapted matrices hold {self.reach:.0%} of the weights in matrices; others are {rest}"


def _grouped(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    return {reason: without_numbers(names) for reason, names in groups.items()}


def _reach(model: nn.Module, heads: Sequence[str]) -> dict[str, Any]:
    factors = {id(parameter) for parameter in factors_by_name(model).values()}
    adapted = {id(p) for layer in adapter_layers(model).values() for p in layer.base_parameters()}
    outputs = {f"{name}.weight" for name in output_layers(model)}
    embeddings = {id(own_parameter(m)) for m in model.modules() if isinstance(m, nn.Embedding)}
    sizes = {
        name: num_weights(p)
        for name, p in model.named_parameters()
        if (p.dim() > 1 or num_weights(p) != p.numel())
        and not (id(p) in factors or id(p) in embeddings or name in outputs or is_within(name, heads))
    }
    here = {name for name, p in model.named_parameters() if id(p) in adapted}
    total = sum(sizes.values())
    rest: Counter[str] = Counter()
    for name, size in sizes.items():
        if name not in here:
            rest[without_numbers([name])[0]] += size
    return {
        "reach": sum(size for name, size in sizes.items() if name in here) / total if total else 1.0,
        "unreached": {name: size / total for name, size in rest.most_common() if size >= total / 100},
    }


def _norm(factor: Tensor) -> float:
    return math.nan if factor.is_meta else factor.detach().norm().item()
