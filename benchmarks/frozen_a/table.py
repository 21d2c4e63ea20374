"""The runs as tables, with paired tests against LoRA and the random A."""

from __future__ import annotations

from collections.abc import Sequence

from asym_lightning.report.statistics import estimate, paired_test
from benchmarks.frozen_a.runs import Run, by_rate

AGAINST = ("LoRA", "B, random")


def results_text(runs: Sequence[Run], machine: str) -> str:
    """A table a task."""
    parts = [
        "Test scores after the last epoch, mean and standard error over seeds, at the rate that is best in validation. "
        "Differences are paired by seed, with the two-sided p of the t-test; `trained` counts numbers in adapters.",
        *(_table(runs, task) for task in dict.fromkeys(r.task for r in runs)),
        f"Machine: {machine}.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(runs: Sequence[Run], task: str) -> str:
    ranked = {arm: by_rate(runs, task, arm) for arm in dict.fromkeys(r.arm for r in runs if r.task == task)}
    best = {arm: groups[0] for arm, groups in ranked.items()}
    lines = [
        f"## {task}",
        "",
        "| arm | trained | rate | seeds | validation | test | next rate: validation, test | "
        f"{' | '.join(f'against {arm}' for arm in AGAINST)} |",
        f"|---|---:|---:|---:|---:|---:|---:|{'---:|' * len(AGAINST)}",
    ]
    for arm, group in sorted(best.items(), key=lambda item: -estimate([r.test for r in item[1]]).mean):
        tried = sorted({r.rate for r in runs if (r.task, r.arm) == (task, arm)})
        edge = " (edge)" if group[0].rate in (tried[0], tried[-1]) else ""
        val, test = estimate([r.val for r in group]), estimate([r.test for r in group])
        others = [_difference(group, best.get(other, [])) for other in AGAINST]
        lines.append(
            f"| {arm} | {group[0].trained:,} | {group[0].rate:g}{edge} | {test.count} | {val.mean:.3f} | "
            f"{test.mean:.3f} ± {test.error:.3f} | {_next(ranked[arm])} | {' | '.join(others)} |"
        )
    return "\n".join(lines)


def _next(groups: Sequence[Sequence[Run]]) -> str:
    """The second best rate and what it comes to: validation data are few, and may choose the worse of two."""
    if len(groups) < 2:
        return ""
    val, test = (estimate([getattr(r, of) for r in groups[1]]).mean for of in ("val", "test"))
    return f"{groups[1][0].rate:g}: {val:.3f}, {test:.3f}"


def _difference(group: Sequence[Run], other: Sequence[Run]) -> str:
    first, second = {r.seed: r.test for r in group}, {r.seed: r.test for r in other}
    if not first.keys() & second.keys() or group[0].arm == other[0].arm:
        return ""
    result = paired_test(first, second)
    return f"{result.difference.mean:+.3f} (p {result.p_value:.2f})"
