"""The one description of an adapter: :class:`AdapterConfig`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asym_lightning.adapters.kernels.plan import PATHS
from asym_lightning.adapters.scheme import Scheme
from asym_lightning.core.kinds import Count, FractionBelowOne, NumberOrZero, Positive
from asym_lightning.core.messages import check_choice, shown
from asym_lightning.core.options import check_kinds


@dataclass(frozen=True, kw_only=True)  # not by the mark `KW_ONLY`, which typing of Python 3.10 does not take
class AdapterConfig:
    """What to adapt and how: ``W`` becomes ``W + scaling * B A`` with ``scaling = alpha / rank``.

    >>> config = AdapterConfig(rank=4, targets=["q", "v"])
    >>> config.targets, config.resolved_scheme.B.is_trained
    (('q', 'v'), True)

    Args:
        scheme: Which factor trains and how both start, e.g. ``hB_zero_A_rand``; ``h`` marks a trained factor.
        rank: Rank r of every adapter, at most ``min(d_in, d_out)`` of each layer.
        alpha: Numerator of the scaling.
        dropout: Probability with which an entry of the adapter's input is dropped, in [0, 1).
        targets: Roles (``q``, ``k``, ``v``, ``o``, ``mlp``, ``experts``), parts of a model (``mixer``, ``projector``),
            ``all-linear``, ``all-conv``, dotted suffixes (``attn.qkv``) or globs (``blocks.*.fc1``) of layer names.
        exclude: Dotted suffixes or globs of layers that are never adapted.
        heads: Dotted suffixes or globs of modules of the host that are trained in full. ``None`` means the head of
            the model's family (``classifier``, ``score``, timm's classifier); ``[]`` means none.
        token_rows: Indices of rows that train in full, for new tokens, by the end of the name of their embedding or
            output layer: ``{"embed_tokens": [32000, 32001]}``. Layers that share the table share its rows.
        rank_pattern: Ranks that differ from ``rank``, by role, suffix or glob; the first match counts.
        alpha_pattern: The same for ``alpha``.
        rank_stabilized: Use ``scaling = alpha / sqrt(rank)`` (Kalajdzievski 2023).
        share_a: Slices of one fused matrix (q, k, v) share one A.
        share_expert_a: The experts of one layer of a mixture share one A; ``False`` gives each its own, as `peft` does.
        max_rank: Number of rows of A and columns of B to allocate, for schedules that grow the rank; ``None``
            allocates ``rank``.
        seed: Seed of the random factors. Independent of every other seed; each layer draws from its own generator.
        slot: Number of the task, where one after another is trained, beginning with 0. Slot k has the rows k R to
            (k + 1) R of A's one seeded matrix, with R the allocated rank, so updates in different slots have orthogonal
            row spaces. An A that is drawn from data is orthogonal to the inputs of the tasks before, which
            :class:`~asym_lightning.callbacks.CalibrateA` keeps in a file, ``tasks``.
        path: How a layer computes: ``auto``, or a forced one of ``plain``, ``two_gemm``, ``packed``, ``formed``.

    Raises:
        ValueError: A value is out of its range; the message names the field.
        TypeError: A value is of the wrong kind.
    """

    scheme: str = field(default="hB_zero_A_rand", kw_only=False)
    rank: Count = 8
    alpha: Positive = 16
    dropout: FractionBelowOne = 0.0
    targets: Sequence[str] | str = ("q", "k", "v")
    exclude: Sequence[str] | str = ()
    heads: Sequence[str] | str | None = None
    token_rows: Mapping[str, Sequence[NumberOrZero]] = field(default_factory=dict)
    rank_pattern: Mapping[str, Count] = field(default_factory=dict)
    alpha_pattern: Mapping[str, Positive] = field(default_factory=dict)
    rank_stabilized: bool = False
    share_a: bool = False
    share_expert_a: bool = True
    max_rank: Count | None = None
    seed: int = 0
    slot: NumberOrZero = 0
    path: str = "auto"

    def __post_init__(self) -> None:
        Scheme.parse(self.scheme)
        for name in ("targets", "exclude", "heads"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        check_kinds(self)
        if not self.targets:
            raise ValueError("`targets` is empty: name at least one role, suffix or glob, or 'all-linear'.")
        for name, indices in self.token_rows.items():
            if not indices or len(set(indices)) != len(indices):
                raise ValueError(f"`token_rows[{name!r}]` must hold indices, each once.")
        object.__setattr__(self, "token_rows", {name: tuple(indices) for name, indices in self.token_rows.items()})
        if self.max_rank is not None:
            largest = max(self.rank, *self.rank_pattern.values()) if self.rank_pattern else self.rank
            if self.max_rank < largest:
                raise ValueError(f"`max_rank` is {self.max_rank}, smaller than the rank {largest} to start with.")
        rule = self.resolved_scheme.A.rule
        if self.slot and not (rule.has_seeded_slots or rule.needs_data):
            raise ValueError(
                f"`slot` is {self.slot}, but init {rule.name!r} of A has no seeded matrix of more rows: use 'rand', "
                "'coordinate' or one that draws from data."
            )
        if self.slot and rule.needs_data and self.max_rank is not None:
            raise ValueError(
                f"`slot` is {self.slot} and `max_rank` {self.max_rank}, but rows by which A grows know nothing of "
                f"earlier tasks' inputs, as those by {rule.name!r} do: leave `max_rank` out, or use 'rand'."
            )
        check_choice("path", self.path, PATHS)

    @property
    def resolved_scheme(self) -> Scheme:
        """The parsed :class:`Scheme`."""
        return Scheme.parse(self.scheme)

    @property
    def needs_data(self) -> bool:
        """Whether factors are drawn from calibration statistics, hence not before there are data."""
        return self.resolved_scheme.needs_data

    def scaling(self, rank: int, alpha: float) -> float:
        """The factor of B A: ``alpha / rank``, or ``alpha / sqrt(rank)`` where ``rank_stabilized``."""
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, fit for JSON and for ``AdapterConfig(**d)``."""
        plain: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            plain[f.name] = _plain(value)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _names(field_name: str, value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if value is None and field_name == "heads":
        return None
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) and n for n in names):
        raise TypeError(f"`{field_name}` must be a list of names, not {shown(value)}.")
    return tuple(names)
