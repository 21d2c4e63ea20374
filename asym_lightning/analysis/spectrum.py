"""Exact statistics of low-rank updates, without forming anything of the weight's size.

The update ``s B A`` of a (d_out, d_in) weight has ``rank`` singular values. If the rows of A are orthonormal they are
``s`` times those of B, the square roots of the eigenvalues of ``B^T B`` (rank x rank). Otherwise, with ``B = Q_B R_B``
and ``A^T = Q_A R_A``, they are ``s`` times those of ``R_B R_A^T``. All in float64, so that squaring in the Gram matrix
costs none of float32's digits.

Where a model is sharded, the Gram matrices of the shards are summed over the processes and R is their root; B is never
gathered. Every process has to take part then, and all get the same numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asym_lightning.adapters import LowRankAdapter, adapters_by_name
from asym_lightning.core.dtensor import piece
from asym_lightning.core.tall_matrices import Columns, exact_dtype, singular_values

# Rounding A to float32 moves A A^T by about 1e-7, and the singular values relatively by half of that.
ORTHONORMAL_TOLERANCE = 1e-5


@dataclass(frozen=True)
class UpdateSpectrum:
    """The singular values of one adapter's update and of its B, on the CPU.

    Attributes:
        update: (rank,) float64, descending: singular values of ``s B A``.
        B: (rank,) float64, descending: singular values of B.
    """

    update: Tensor
    B: Tensor

    @property
    def frobenius_norm(self) -> float:
        """Square root of the sum of squares of all entries of the update."""
        return float(self.update.square().sum().sqrt())

    @property
    def spectral_norm(self) -> float:
        """Largest singular value of the update."""
        return float(self.update[0])

    @property
    def stable_rank(self) -> float:
        """Squared Frobenius norm over squared spectral norm, from 1 to the rank; 0 for a zero update.

        Source: Rudelson and Vershynin 2007.
        """
        return stable_rank(self.update)

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the singular values' shares, from 1 to the rank; 0 for a zero update.

        Source: Roy and Vetterli 2007, definition 1.
        """
        return effective_rank(self.update)


def update_spectrum(model: nn.Module) -> dict[str, UpdateSpectrum]:
    """The exact spectrum of every adapter's update, by ``layer.slice``.

    Layers of one shape are computed together, and all numbers come to the CPU in one transfer. Where the model is
    sharded every process has to call it.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(6, 8))
    >>> _ = inject_adapters(model, AdapterConfig(scheme="hB_he_A_rand", rank=2, targets=["0"]))
    >>> spectrum = update_spectrum(model)["0.all"]
    >>> dense = torch.linalg.svdvals(model[0].delta_weight().double())
    >>> torch.allclose(spectrum.update, dense[:2], rtol=1e-6), len(spectrum.update)
    (True, 2)

    Args:
        model: A model with adapters.
    """
    adapters = adapters_by_name(model)
    on_device = adapter_spectra(adapters, orthonormal_A(adapters))
    values = iter(to_cpu([v for pair in on_device.values() for v in pair]))
    return {name: UpdateSpectrum(next(values), next(values)) for name in on_device}


class SingularValues(NamedTuple):
    """(rank,) each, float64, descending, on the adapter's device."""

    update: Tensor
    B: Tensor


@torch.no_grad()
def adapter_spectra(
    adapters: Mapping[str, LowRankAdapter], orthonormal: Collection[str] = ()
) -> dict[str, SingularValues]:
    """Singular values of each update and of each B; nothing waits for the device.

    Args:
        adapters: Adapters by name.
        orthonormal: Names of those whose A has orthonormal rows, as :func:`orthonormal_A` finds them; the others take
            the QR decompositions of both factors, which are right for any A.
    """
    values: dict[str, SingularValues] = {}
    for names in _by_shape(adapters, orthonormal):
        group = [adapters[name] for name in names]
        B = columns_of_B(group)
        if names[0] in orthonormal:
            of_B = torch.linalg.eigvalsh(B.gram()).clamp_min(0).sqrt().flip(-1)
            of_BA = of_B
        else:
            of_B = torch.linalg.svdvals(B.R)
            of_BA = singular_values(B, columns_of_A(group))
        for i, name in enumerate(names):
            values[name] = SingularValues(adapters[name].scaling * of_BA[i], of_B[i])
    return {name: values[name] for name in adapters}


@torch.no_grad()
def update_changes(
    adapters: Mapping[str, LowRankAdapter], before: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Frobenius norm of what each update differs by from what it was; nothing waits for the device.

    The difference ``s (B' A' - B A)`` is ``s [B', -B] [A'; A]``, whatever became of rank and coordinates in between,
    and its norm is that of the product of both sides' R factors.

    Args:
        adapters: Adapters by name.
        before: Their A (rank, d_in) and B (d_out, rank) at another time, as :func:`factors` gives them.
    """
    shapes: dict[tuple[object, ...], list[str]] = {}
    for name, adapter in adapters.items():
        key = (adapter.d_out, adapter.d_in, adapter.rank, len(before[name][0]), adapter.factor_B.device)
        shapes.setdefault(key, []).append(name)
    changes: dict[str, Tensor] = {}
    for names in shapes.values():
        group = [adapters[name] for name in names]
        B, A = columns_of_B(group), columns_of_A(group)
        old_B = _stacked(piece(before[name][1], 0).local for name in names).to(B.local.device)
        old_A = _stacked(piece(before[name][0], 1).local.mT for name in names).to(A.local.device)
        R_B = Columns(torch.cat([B.local, -old_B], dim=-1), B.group).R
        R_A = Columns(torch.cat([A.local, old_A], dim=-1), A.group).R
        norms = (R_B @ R_A.mT).flatten(1).norm(dim=1)
        changes |= {name: adapters[name].scaling * norm for name, norm in zip(names, norms, strict=True)}
    return {name: changes[name] for name in adapters}


def orthonormal_A(adapters: Mapping[str, LowRankAdapter]) -> set[str]:
    """Names of the adapters whose A has orthonormal rows now, measured; it waits for the device once."""
    if not adapters:
        return set()
    with torch.no_grad():
        grams = [columns_of_A([adapter]).gram()[0] for adapter in adapters.values()]
        errors = [(gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).abs().amax() for gram in grams]
    measured = zip(adapters, to_cpu([error.reshape(1) for error in errors]), strict=True)
    return {name for name, error in measured if error < ORTHONORMAL_TOLERANCE}


class Factors(NamedTuple):
    """Copies of an adapter's active factors, sharded as they are.

    Attributes:
        A: (rank, d_in).
        B: (d_out, rank).
    """

    A: Tensor
    B: Tensor


def factors(adapter: LowRankAdapter) -> Factors:
    """Copy an adapter's factors, for :func:`update_changes`."""
    return Factors(adapter.A.detach().clone(), adapter.B.detach().clone())


def columns_of_A(adapters: Sequence[LowRankAdapter]) -> Columns:
    """``A^T`` of several adapters of one shape, stacked."""
    pieces = [piece(adapter.factor_A, 1) for adapter in adapters]
    return Columns(_stacked(p.local[: a.rank].mT for p, a in zip(pieces, adapters, strict=True)), pieces[0].group)


def columns_of_B(adapters: Sequence[LowRankAdapter]) -> Columns:
    """B of several adapters of one shape, stacked."""
    pieces = [piece(adapter.factor_B, 0) for adapter in adapters]
    return Columns(_stacked(p.local[:, : a.rank] for p, a in zip(pieces, adapters, strict=True)), pieces[0].group)


def to_cpu(vectors: list[Tensor]) -> list[Tensor]:
    """Vectors of one device on the CPU, in float64, by one transfer.

    >>> to_cpu([torch.ones(2), torch.zeros(1)])
    [tensor([1., 1.], dtype=torch.float64), tensor([0.], dtype=torch.float64)]
    """
    if not vectors:
        return []
    together = torch.cat([v.to(exact_dtype(v)) for v in vectors]).cpu().double()
    return list(together.split([len(v) for v in vectors]))


def stable_rank(singular_values: Tensor) -> float:
    """``sum(S^2) / max(S)^2``; 0 where all are zero.

    >>> stable_rank(torch.tensor([2.0, 2.0, 0.0]))
    2.0
    """
    squares = singular_values.square()
    return float(squares.sum() / squares.max()) if squares.any() else 0.0


def effective_rank(singular_values: Tensor) -> float:
    """``exp(-sum(p log p))`` with ``p = S / sum(S)``; 0 where all are zero.

    >>> round(effective_rank(torch.tensor([2.0, 2.0, 0.0])), 4)
    2.0
    """
    if not singular_values.any():
        return 0.0
    shares = singular_values / singular_values.sum()
    return float(torch.special.entr(shares).sum().exp())


def _by_shape(adapters: Mapping[str, LowRankAdapter], orthonormal: Collection[str]) -> Iterator[list[str]]:
    shapes: dict[tuple[object, ...], list[str]] = {}
    for name, adapter in adapters.items():
        key = (adapter.d_out, adapter.d_in, adapter.rank, adapter.factor_B.device, name in orthonormal)
        shapes.setdefault(key, []).append(name)
    yield from shapes.values()


def _stacked(factors: Iterable[Tensor]) -> Tensor:
    stacked = torch.stack([factor.detach() for factor in factors])
    return stacked.to(exact_dtype(stacked))
