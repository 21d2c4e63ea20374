"""The protocol of an init rule, and the registry of those there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from asym_lightning.adapters.init.statistics import CalibrationStatistics
from asym_lightning.adapters.kernels.sparse_rows import SparseRows

Letter = Literal["A", "B"]


class Draw(NamedTuple):
    """What is to be drawn, and all that it may be drawn from.

    Attributes:
        rank: Number of rows.
        dim: Length of a row: d_in for A, d_out for B, whose columns are drawn as rows.
        fan_in: Inputs of the factor, seen as a layer: d_in for A, the rank for B.
        generator: Seeded by the adapter's seed and the factor's name; the only source of chance.
        weight: (d_out, d_in), the pretrained weight; ``None`` unless the rule needs it.
        statistics: Of calibration batches; ``None`` unless the rule needs data.
    """

    rank: int
    dim: int
    fan_in: int
    generator: torch.Generator
    weight: Tensor | None = None
    statistics: CalibrationStatistics | None = None


class InitRule(ABC):
    """How a factor starts. A rule is a subclass that says what it needs and gives, and draws rows.

    Whoever draws, redraws, grows, saves or loads a factor asks these attributes; no other code knows a rule by name.

    Attributes:
        name: What schemes call it, as in ``hB_zero_A_<name>``.
        factors: The factors that may start so: ``A``, ``B`` or ``AB``.
        needs_weight: It draws from the pretrained weight.
        needs_data: It draws from calibration statistics. A factor that it drew is stored with the adapter, since no
            seed gives it back.
        nests: Its first k rows are the same whatever the rank. An A that is still as it was drawn then grows into what
            its seed gives at the larger rank.
        is_orthonormal: Its rows are orthonormal.
        is_zero: Its rows are zero, so the other factor gets no gradient at first.
        is_sparse: No two of its rows share an input, and :meth:`sparse_rows` says what stands for A in products.
    """

    name: str
    factors: str = "A"
    needs_weight: bool = False
    needs_data: bool = False
    nests: bool = False
    is_orthonormal: bool = False
    is_zero: bool = False
    is_sparse: bool = False

    @abstractmethod
    def rows(self, draw: Draw) -> Tensor:
        """Return (rank, dim) rows: A is used as it is, B is the transpose."""

    def sparse_rows(self, A: Tensor, rank: int) -> SparseRows | None:
        """What stands for A in products, of a rule that is sparse.

        Args:
            A: (allocated rank, d_in), of which the rows from `rank` on are zero. Loading or an edit may have made of it
                what the rule does not draw: then the answer is ``None``, and A is multiplied as any other.
            rank: Of rows that are in use.
        """
        return None

    @property
    def is_redrawn(self) -> bool:
        """Whether seed, name and shape (and the weight, if it needs that) give the same rows again."""
        return not self.needs_data

    @property
    def has_seeded_slots(self) -> bool:
        """Whether rows beside those of one task are further rows of one seeded matrix."""
        return self.grows_from_seed and self.is_orthonormal

    @property
    def grows_from_seed(self) -> bool:
        """Whether growing may add the rows that seed, name and shape alone give at the larger rank."""
        # Not zero ones: with new columns of B, which are zero too, they would never move.
        return self.nests and not (self.needs_weight or self.needs_data or self.is_zero)


Rule = TypeVar("Rule", bound=InitRule | type[InitRule])
_RULES: dict[str, InitRule] = {}


def register_init(rule: Rule) -> Rule:
    """Make a rule known to schemes: an instance, or, as a decorator, a class whose constructor takes nothing.

    Registering the same class again replaces it, as a notebook does.

    >>> @register_init
    ... class Ones(InitRule):
    ...     name = "ones"
    ...
    ...     def rows(self, draw: Draw) -> Tensor:
    ...         return torch.ones(draw.rank, draw.dim)
    >>> from asym_lightning.adapters import AdapterConfig
    >>> AdapterConfig("hB_zero_A_ones").resolved_scheme.A.rule.name
    'ones'

    Raises:
        ValueError: The name is no name, or another rule has it.
    """
    made = rule() if isinstance(rule, type) else rule
    if not made.name or any(part in ("", "A", "B", "hA", "hB") for part in made.name.split("_")):
        raise ValueError(
            f"An init rule can't be called {made.name!r}: schemes such as 'hB_zero_A_rand' are read word by word, and "
            "A, B, hA and hB begin another factor."
        )
    known = _RULES.get(made.name)
    if known is not None and _origin(known) != _origin(made):
        raise ValueError(f"There is an init rule {made.name!r} already, {_origin(known)}; give yours another name.")
    _RULES[made.name] = made
    return rule


def init_rule(name: str) -> InitRule:
    """The rule of that name.

    Raises:
        KeyError: No such rule is registered.
    """
    return _RULES[name]


def init_names(letter: Letter) -> tuple[str, ...]:
    """The rules by which a factor may start.

    >>> "rand" in init_names("A"), "V" in init_names("B")
    (True, False)
    """
    return tuple(name for name, rule in _RULES.items() if letter in rule.factors)


def _origin(rule: InitRule) -> str:
    return f"{type(rule).__module__}.{type(rule).__qualname__}"
