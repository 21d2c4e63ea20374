"""What an injection did, as data and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.surgery.quantize import QuantizedPart, num_weights


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
    """

    layers: tuple[LayerReport, ...]
    heads: tuple[str, ...]
    trainable: int
    total: int
    quantized: QuantizedPart

    @classmethod
    def of(cls, model: nn.Module, layers: Mapping[str, AdaptedLayer], heads: Sequence[str]) -> InjectionReport:
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
        share = self.trainable / max(self.total, 1)
        lines.append(f"trainable {self.trainable:,} of {self.total:,} parameters ({share:.2%})")
        return "\n".join(lines)


def _norm(factor: Tensor) -> float:
    return math.nan if factor.is_meta else factor.detach().norm().item()
