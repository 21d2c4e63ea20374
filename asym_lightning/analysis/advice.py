"""What calibration batches say beforehand: how much an A lets B explain, which factor to train, which layers to adapt.

The target of the predictions is the preconditioned descent direction `D_b = C^(-1) G_b S^(-1)`, with G_b the gradient
by the weight on batch b, S the second moment of inputs and C that of the gradients at the outputs, each with a little
of its mean eigenvalue added. In the quadratic model of the loss that K-FAC makes, with the curvature `C (x) S`, it is
the step to the minimum, and what an adapter explains of it, `Tr[C D S D^T]`, is the decrease of the loss that it can
reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, geometric_mean

import torch
from torch import Tensor

from asym_lightning.adapters.init.generator import layer_generator
from asym_lightning.adapters.init.rand import orthonormal_rows
from asym_lightning.adapters.init.rule import Draw, InitRule, init_names, init_rule
from asym_lightning.adapters.init.statistics import CalibrationStatistics
from asym_lightning.adapters.init.subspaces import damped_root
from asym_lightning.analysis.least_squares import effective_dimension

DAMPING = 1e-3


@dataclass(frozen=True)
class LayerForecast:
    """What can be reached in one layer, or in one slice of a fused one.

    Args:
        explained_by_B: By rule and rank: the share of the target that the best B explains with the rule's A frozen.
        explained_by_A: By rank: the same for the best A with a random orthonormal B frozen.
        total: The decrease of the loss that a step of full rank would bring.
        input_dimension: Effective number of directions of the inputs.
        output_dimension: Effective number of directions of the gradients at the outputs.
        input_norms: By rule: root mean square of a row of `A x`, at the largest rank.
        d_out: Numbers that each further rank of B trains.
    """

    explained_by_B: Mapping[str, Mapping[int, float]]
    explained_by_A: Mapping[int, float]
    total: float
    input_dimension: float
    output_dimension: float
    input_norms: Mapping[str, float]
    d_out: int

    def best_rule(self, rank: int) -> str:
        """The rule whose A lets B explain most."""
        return max(self.explained_by_B, key=lambda rule: self.explained_by_B[rule][rank])

    def factor(self, rank: int, rule: str) -> str:
        """The factor that explains more, B with the rule's A or A with a random B."""
        return "B" if self.explained_by_B[rule][rank] >= self.explained_by_A[rank] else "A"

    @classmethod
    def of_all(cls, parts: Sequence[LayerForecast]) -> LayerForecast:
        """Several layers or slices together, each weighted by what there is to explain; dimensions are means."""
        total = sum(part.total for part in parts)
        weights = [part.total / total if total else 1 / len(parts) for part in parts]

        def mean(shares: Sequence[Mapping[int, float]]) -> dict[int, float]:
            ranks = [rank for rank in shares[0] if all(rank in of_part for of_part in shares)]
            return {rank: sum(w * of_part[rank] for w, of_part in zip(weights, shares, strict=True)) for rank in ranks}

        return cls(
            {rule: mean([part.explained_by_B[rule] for part in parts]) for rule in parts[0].explained_by_B},
            mean([part.explained_by_A for part in parts]),
            total,
            fmean(part.input_dimension for part in parts),
            fmean(part.output_dimension for part in parts),
            {rule: geometric_mean([part.input_norms[rule] for part in parts]) for rule in parts[0].input_norms},
            sum(part.d_out for part in parts),
        )


def frozen_rules(names: Sequence[str] | None = None) -> dict[str, InitRule]:
    """Init rules by which a frozen A may be made.

    >>> list(frozen_rules(["rand", "gradient"]))
    ['rand', 'gradient']

    Args:
        names: Which; ``None`` means all with orthonormal rows.

    Raises:
        ValueError: There is no such rule for A, or it makes an A of zeros, beside which B learns nothing.
    """
    known = {name: rule for name in init_names("A") if not (rule := init_rule(name)).is_zero}
    if names is None:
        return {name: rule for name, rule in known.items() if rule.is_orthonormal}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no init rule {unknown[0]!r} for A; those that are: {', '.join(known)}.")
    return {name: known[name] for name in names}


def forecast(
    chosen_on: CalibrationStatistics,
    seen_on: CalibrationStatistics,
    rules: Mapping[str, InitRule],
    *,
    ranks: Sequence[int],
    name: str,
    seed: int = 0,
    weight: Tensor | None = None,
) -> LayerForecast:
    """Say what the adapters of one layer can explain.

    What an A explains of the very gradients that it was chosen by flatters it. So it is chosen on some batches and
    judged by others.

    Args:
        chosen_on: Statistics that rules draw from.
        seen_on: Statistics of other batches, with gradients of all outputs and their second moment.
        rules: Init rules of A by name.
        ranks: Ascending, each at most the smaller side of the weight.
        name: Of the adapter, for its random draws.
        seed: The adapter's seed.
        weight: (d_out, d_in), for rules that need it.

    Raises:
        ValueError: The outputs' second moment was not taken.

    Example:
        >>> from asym_lightning.adapters.init.rule import init_rule
        >>> _ = torch.manual_seed(0)
        >>> G = torch.randn(4, 2) @ torch.randn(2, 16)  # of rank 2
        >>> found = CalibrationStatistics(torch.eye(16), G, torch.eye(4))
        >>> rules = {name: init_rule(name) for name in ("rand", "gradient")}
        >>> result = forecast(found, found, rules, ranks=[1, 2], name="fc")
        >>> {rule: [round(share, 2) for share in shares.values()] for rule, shares in result.explained_by_B.items()}
        {'rand': [0.03, 0.16], 'gradient': [0.84, 1.0]}
    """
    if seen_on.outputs is None:
        raise ValueError("a forecast needs the second moment of gradients at the outputs.")
    S, C = seen_on.inputs.double(), seen_on.outputs.double()
    d_out, d_in = len(C), len(S)
    L_S, L_C = damped_root(S, DAMPING), damped_root(C, DAMPING)
    batches = seen_on.weight_gradients().double().unflatten(0, (-1, d_out))
    # L_C^-1 G_b, whose rows are those of the target `D_b` in coordinates in which C is the identity.
    gradients = torch.linalg.solve_triangular(L_C, batches, upper=False)
    whitened = torch.linalg.solve_triangular(L_S, gradients.mT, upper=False).mT  # and S too
    shares: dict[str, dict[int, float]] = {}
    norms: dict[str, float] = {}
    for rule_name, rule in rules.items():
        draw = Draw(ranks[-1], d_in, d_in, layer_generator(seed, f"{name}.A"), weight, chosen_on)
        A = rule.rows(draw).double()
        norms[rule_name] = float((A @ S * A).sum(1).mean().sqrt())
        if rule.nests:
            shares[rule_name] = _shares(A @ L_S, whitened.flatten(0, 1), ranks)
        else:
            generators = [layer_generator(seed, f"{name}.A") for _ in ranks]
            draws = [draw._replace(rank=rank, generator=g) for rank, g in zip(ranks, generators, strict=True)]
            each = [_shares(rule.rows(one).double() @ L_S, whitened.flatten(0, 1), [one.rank]) for one in draws]
            shares[rule_name] = {rank: share for found in each for rank, share in found.items()}
    B = orthonormal_rows(ranks[-1], d_out, layer_generator(seed, f"{name}.forecast.B"))
    return LayerForecast(
        shares,
        _shares(B @ L_C, whitened.mT.flatten(0, 1), ranks),
        float(whitened.square().sum()),
        effective_dimension(S),
        effective_dimension(C),
        norms,
        d_out,
    )


def _shares(rows: Tensor, targets: Tensor, ranks: Sequence[int]) -> dict[int, float]:
    """Of the targets' squared norm, the share that lies in the span of the first rows, by their number."""
    Q = torch.linalg.qr(rows.T).Q
    explained = (targets @ Q).square().sum(0).cumsum(0) / targets.square().sum()
    return {rank: float(explained[rank - 1]) for rank in ranks}


@dataclass(frozen=True)
class RankPlan:
    """Ranks for layers under a budget.

    Args:
        ranks: By layer; 0 means that it is not worth adapting.
        num_trained: Numbers that B's of these ranks hold.
        explained: Share of what full ranks would bring in all layers together.
    """

    ranks: Mapping[str, int]
    num_trained: int
    explained: float


def plan_ranks(forecasts: Mapping[str, LayerForecast], rule: str, budget: int) -> RankPlan:
    """Share a number of trained numbers out among layers, where each brings the most.

    Args:
        forecasts: By layer.
        rule: Whose A is frozen.
        budget: How many numbers may train in all B's together.

    Example:
        >>> def layer(shares, total):
        ...     return LayerForecast({"rand": dict(enumerate(shares, 1))}, {}, total, 1, 1, {}, d_out=10)
        >>> plan_ranks({"much": layer([0.5, 0.9], 8.0), "little": layer([0.1, 0.2], 1.0)}, "rand", budget=20).ranks
        {'much': 2, 'little': 0}
    """
    chosen = dict.fromkeys(forecasts, 0)
    left = budget
    steps = []  # up from one rank to the next: what it brings for each number that it trains
    for name, found in forecasts.items():
        shares = {0: 0.0, **found.explained_by_B[rule]}
        steps += [
            (found.total * (shares[high] - shares[low]) / ((high - low) * found.d_out), name, low, high)
            for low, high in pairwise(shares)
        ]
    explained = 0.0
    for brings, name, low, high in sorted(steps, key=lambda step: -step[0]):
        cost = (high - low) * forecasts[name].d_out
        if chosen[name] == low and cost <= left:
            chosen[name], left, explained = high, left - cost, explained + brings * cost
    total = sum(found.total for found in forecasts.values())
    return RankPlan(chosen, budget - left, explained / total if total else 0.0)
