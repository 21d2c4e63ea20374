"""Whether `advise` ranks rules and factors as training does.

    OMP_NUM_THREADS=1 python -m benchmarks.frozen_a.advice --pacs path/to/PACS --glue path/to/glue

For every task that `results/frozen_a.csv` has runs of, what each arm is said to explain before training, the mean over
three seeds, stands beside the test score that training gave. Then come all pairs of arms whose scores differ by more
than two standard errors, paired by seed: `advise` is right where it has the better arm first.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from asym_lightning.adapters.init.rule import init_rule
from asym_lightning.analysis.advice import LayerForecast, frozen_rules
from asym_lightning.lifecycle.backbone import adapted_backbone
from asym_lightning.lifecycle.calibration import Calibration
from asym_lightning.report.statistics import estimate, paired_test
from benchmarks.frozen_a.arms import ARMS, RANK
from benchmarks.frozen_a.runs import Run, by_rate, read_runs
from benchmarks.frozen_a.tasks.every import add_folders, every_task
from benchmarks.frozen_a.tasks.task import Task

RESULTS = Path(__file__).parents[1] / "results" / "frozen_a.csv"
NUM_BATCHES, SEEDS = 16, range(3)
RULES = {arm.name: arm.rule for arm in ARMS.values() if arm.rule and init_rule(arm.rule).is_orthonormal}


class Forecast(Callback):
    """Ends training before it begins, with what each arm can explain in all layers together."""

    def __init__(self, head_steps: int) -> None:
        self.calibration = Calibration(NUM_BATCHES, head_steps)
        self.shares: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        backbone = adapted_backbone(trainer, pl_module)
        rules = frozen_rules(list(RULES.values()))
        found = self.calibration.forecasts(trainer, pl_module, backbone, rules, [RANK])
        together = LayerForecast.of_all(list(found.values()))
        self.shares = {arm: together.explained_by_B[rule][RANK] for arm, rule in RULES.items()}
        self.shares["A"] = together.explained_by_A[RANK]
        trainer.should_stop = True


def shares_of(task: Task) -> dict[str, float]:
    """What each arm is said to explain, the mean over seeds."""
    of_seeds = []
    for seed in SEEDS:
        seed_everything(seed, verbose=False)
        callback = Forecast(task.head_steps)
        trainer = task.trainer([callback])
        trainer.fit(task.module(ARMS["B, random"], task.rates[1], seed), datamodule=task.data(seed))
        of_seeds.append(callback.shares)
    return {arm: statistics.fmean(shares[arm] for shares in of_seeds) for arm in of_seeds[0]}


def pairs(scores: Mapping[str, Mapping[int, float]], shares: Mapping[str, float]) -> Iterator[tuple[str, str, bool]]:
    """Pairs of arms, the better one in training first, that differ by more than two standard errors; and whether the
    shares have them in this order.

    >>> list(pairs({"a": {0: 0.5, 1: 0.6}, "b": {0: 0.8, 1: 0.9001}, "c": {0: 0.5, 1: 0.9}}, {"a": 1, "b": 2, "c": 3}))
    [('b', 'a', True)]
    """
    for one, other in itertools.combinations(scores, 2):
        difference = paired_test(scores[one], scores[other]).difference
        if abs(difference.mean) > 2 * difference.error:
            better, worse = (one, other) if difference.mean > 0 else (other, one)
            yield better, worse, shares[better] > shares[worse]


def advice_text(runs: Sequence[Run], shares_by_task: Mapping[str, Mapping[str, float]]) -> str:
    """Tables of all tasks, and the count."""
    parts, num_right, num_pairs = [], 0, 0
    for task, shares in shares_by_task.items():
        best = {arm: by_rate(runs, task, arm) for arm in shares}
        scores = {arm: {r.seed: r.test for r in groups[0]} for arm, groups in best.items() if groups}
        lines = [f"## {task}", "", "| arm | explained, said before | test |", "|---|---:|---:|"]
        for arm in sorted(scores, key=lambda arm: -shares[arm]):
            of_arm = estimate(list(scores[arm].values()))
            lines.append(f"| {arm} | {shares[arm]:.3f} | {of_arm.mean:.3f} ± {of_arm.error:.3f} |")
        lines.append("")
        for better, worse, is_right in pairs(scores, shares):
            num_pairs, num_right = num_pairs + 1, num_right + is_right
            lines.append(f"- {better} above {worse}: {'right' if is_right else '**wrong**'}")
        parts.append("\n".join(lines))
    head = (
        "What `advise` says before training, beside what training gives at each arm's best rate. Listed are the pairs "
        "of arms that differ by more than two standard errors: "
        f"{num_right} of {num_pairs} are in the order that was said."
    )
    return "\n\n".join([head, *parts]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    runs = read_runs(options.results)
    done = {r.task for r in runs}
    shares = {task.name: shares_of(task) for task in every_task(options) if task.name in done}
    text = advice_text(runs, shares)
    options.results.with_name(f"{options.results.stem}_advice.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
