"""What calibration says beforehand, as text and as an overlay for `fit`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from asym_lightning.adapters import AdapterConfig
from asym_lightning.adapters.init.rule import init_rule
from asym_lightning.adapters.scheme import Factor, Scheme
from asym_lightning.analysis.advice import LayerForecast, RankPlan, plan_ranks


@dataclass(frozen=True)
class Advice:
    """What to do with a config, and why.

    Args:
        config: The adapter's present configuration.
        forecasts: By the A's names.
        layers: The layer that each of them is in.
        rate: The config's learning rate; None if it is not known.
        head_steps: Steps by which heads were trained before, and are to be again.
        plan: Ranks by layer under a budget; None if none was asked for.
    """

    config: AdapterConfig
    forecasts: Mapping[str, LayerForecast]
    layers: Mapping[str, str]
    rate: float | None = None
    head_steps: int = 0
    plan: RankPlan | None = None

    @property
    def together(self) -> LayerForecast:
        """All layers."""
        return LayerForecast.of_all(list(self.forecasts.values()))

    @property
    def rule(self) -> str:
        """The rule that lets B explain most at the config's rank, in all layers together."""
        return self.together.best_rule(self.config.rank)

    @property
    def factor(self) -> str:
        """The factor to train: B with that rule's A, or A with a random B."""
        return self.together.factor(self.config.rank, self.rule)

    @property
    def scheme(self) -> str:
        """The scheme to train by."""
        if self.factor == "A":
            return str(Scheme(Factor("zero", True), Factor("rand", False)))
        return str(Scheme(Factor(self.rule, False), Factor("zero", True)))

    @property
    def starting_rate(self) -> float | None:
        """A rate to start from: the config's, in proportion to how much larger or smaller A makes what B reads."""
        norms = self.together.input_norms
        present = self.config.resolved_scheme.A.init
        if self.rate is None or self.factor == "A" or present not in norms:
            return None
        return self.rate * norms[present] / norms[self.rule]

    def with_plan(self, budget: int) -> Advice:
        """The same, with ranks by layer of at most so many trained numbers."""
        of_layers = {
            layer: LayerForecast.of_all([self.forecasts[key] for key, of in self.layers.items() if of == layer])
            for layer in dict.fromkeys(self.layers.values())
        }
        return dataclasses.replace(self, plan=plan_ranks(of_layers, self.rule, budget))

    def overlay(self) -> dict[str, Any]:
        """What differs from the config, as `fit` takes it."""
        adapter: dict[str, Any] = {"scheme": self.scheme}
        if self.plan is not None:
            ranks = {layer: rank for layer, rank in self.plan.ranks.items() if rank not in (0, self.config.rank)}
            scaling = self.config.alpha / self.config.rank
            adapter["rank_pattern"] = ranks
            adapter["alpha_pattern"] = {layer: rank * scaling for layer, rank in ranks.items()}
            unused = [layer for layer, rank in self.plan.ranks.items() if rank == 0]
            adapter["exclude"] = [*self.config.exclude, *unused]
        overlay: dict[str, Any] = {"model": {"adapter": adapter}}
        if self.starting_rate is not None:
            overlay["model"]["optimizer"] = {"init_args": {"lr": float(f"{self.starting_rate:.1g}")}}
        if self.factor == "B" and init_rule(self.rule).needs_data:
            callback: dict[str, Any] = {"class_path": "asym_lightning.callbacks.CalibrateA"}
            if self.head_steps:
                callback["init_args"] = {"head_steps": self.head_steps}
            overlay["trainer"] = {"callbacks+": [callback]}
        return overlay


def overlay_text(advice: Advice) -> str:
    """Return the overlay as YAML, with what it is."""
    plan = "" if advice.plan is None else f", with {advice.plan.num_trained:,} trained numbers in B"
    header = f"# Advised from calibration: {advice.factor} trained by {advice.scheme}{plan}.\n"
    return header + yaml.safe_dump(advice.overlay(), sort_keys=False)


def advice_text(advice: Advice) -> str:
    """Return tables of layers, of roles, of ranks, and what follows."""
    rank, together = advice.config.rank, advice.together
    rules = list(together.explained_by_B)
    parts = [
        f"Share of the predicted update that B explains at rank {rank} with A by each rule, and A with a random B:",
        _table("layer", advice.forecasts, rank),
        "The same by role:",
        _table("role", _by_role(advice.forecasts), rank),
        "All layers together, by rank:",
        "\n".join(
            [
                f"| rank | {' | '.join(rules)} | A trained |",
                "|---|" + "---:|" * (len(rules) + 1),
                *(
                    f"| {r} | {' | '.join(f'{together.explained_by_B[rule][r]:.2f}' for rule in rules)} | {share:.2f} |"
                    for r, share in together.explained_by_A.items()
                ),
            ]
        ),
    ]
    if advice.plan is not None:
        plan = advice.plan
        ranks = "\n".join(f"| {layer} | {rank} |" for layer, rank in plan.ranks.items())
        parts += [
            f"Ranks for {plan.num_trained:,} trained numbers; {plan.explained:.2f} of what full ranks explain:",
            f"| layer | rank |\n|---|---:|\n{ranks}",
        ]
    lines = [f"train         {advice.factor}, by the scheme {advice.scheme}"]
    if advice.starting_rate is not None:
        lines.append(f"rate          start from {advice.starting_rate:.1g}, where the config has {advice.rate:g}")
    lines.append("predictions   are of a first step; what training shows decides, at a rate that is tuned for each arm")
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def _table(header: str, forecasts: Mapping[str, LayerForecast], rank: int) -> str:
    rules = list(next(iter(forecasts.values())).explained_by_B)
    lines = [
        f"| {header} | inputs fill | outputs fill | {' | '.join(rules)} | A trained | train |",
        "|---|" + "---:|" * (len(rules) + 3) + "---|",
    ]
    for name, found in forecasts.items():
        shares = " | ".join(f"{found.explained_by_B[rule][rank]:.2f}" for rule in rules)
        lines.append(
            f"| {name.removesuffix('.all')} | {found.input_dimension:.1f} | {found.output_dimension:.1f} | {shares} | "
            f"{found.explained_by_A[rank]:.2f} | {found.factor(rank, found.best_rule(rank))} |"
        )
    return "\n".join(lines)


def _by_role(forecasts: Mapping[str, LayerForecast]) -> dict[str, LayerForecast]:
    """Layers whose names differ in numbers alone play one role."""
    roles: dict[str, list[LayerForecast]] = {}
    for name, found in forecasts.items():
        roles.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), []).append(found)
    return {role: LayerForecast.of_all(found) for role, found in roles.items()}
