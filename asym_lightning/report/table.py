"""The table of a comparison: arms by tasks, each arm at the learning rate that validation data chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from asym_lightning.report.chart import Look
from asym_lightning.report.published import Published, published_score
from asym_lightning.report.runs import Run
from asym_lightning.report.statistics import Estimate, PairedTest, estimate, paired_test
from asym_lightning.report.style import ReportStyle

Column = tuple[str, str]


@dataclass(frozen=True)
class Cell:
    """One arm on one task.

    Args:
        runs: Its runs at the chosen rate, one a seed.
        rates: Mean validation score of each rate that could be chosen.
        score: Test score over the seeds.
        is_best: Whether no arm's mean is better.
        is_tied: Whether it is within one standard error of the (paired) difference to the best.
        published: The paper's number for this arm and task, if there is one.
    """

    runs: Sequence[Run]
    rates: Mapping[float, Estimate]
    score: Estimate
    is_best: bool = False
    is_tied: bool = False
    published: Published | None = None

    @property
    def learning_rate(self) -> float:
        """The rate that was chosen."""
        return self.runs[0].learning_rate

    @property
    def scores_by_seed(self) -> dict[int, float]:
        """Test scores."""
        return {run.seed: run.test for run in self.runs}

    @property
    def trained(self) -> int:
        """Trained parameters, each counted once."""
        return self.runs[0].record["trained"]


@dataclass(frozen=True)
class ResultsTable:
    """Arms by tasks.

    Args:
        arms: Rows, in the user's order, else that in which they were found.
        columns: Task and test score of each column.
        cells: Cells by arm and column; some may be missing.
        looks: How each arm looks in charts.
        notes: What a reader has to know, in sentences.
    """

    arms: Sequence[str]
    columns: Sequence[Column]
    cells: Mapping[tuple[str, Column], Cell]
    looks: Mapping[str, Look]
    notes: Sequence[str]

    def best_arm(self, column: Column) -> str:
        """Return the arm with the best mean on a task."""
        return next(arm for arm in self.arms if (cell := self.cells.get((arm, column))) and cell.is_best)

    def mode(self, column: Column) -> str:
        """Return "max" if more is better on a task, else "min"."""
        return next(cell.runs[0].test_mode for (_, of), cell in self.cells.items() if of == column)

    def compare(self, first: str, second: str, column: Column) -> PairedTest:
        """Test an arm against another on one task.

        Raises:
            ValueError: If one of them has no result there, or they share no seed.
        """
        for arm in (first, second):
            if (arm, column) not in self.cells:
                raise ValueError(f"arm {arm!r} has no result on {column[0]}; those that have: {self._arms_on(column)}.")
        return paired_test(self.cells[first, column].scores_by_seed, self.cells[second, column].scores_by_seed)

    def column_name(self, column: Column) -> str:
        """Return the task, and the test score as well where a task has several."""
        is_alone = [task for task, _ in self.columns].count(column[0]) == 1
        return column[0] if is_alone else f"{column[0]} ({column[1]})"

    def _arms_on(self, column: Column) -> str:
        return ", ".join(arm for arm in self.arms if (arm, column) in self.cells)


def results_table(runs: Sequence[Run], notes: Sequence[str] = (), style: ReportStyle = ReportStyle()) -> ResultsTable:
    """Choose each arm's learning rate on validation data and report it on test data.

    Of the rates of an arm the one with the best mean validation score is chosen, the smaller one of equals. A rate
    that lacks seeds which another rate has cannot be chosen: a mean over fewer, maybe luckier, seeds wins too often.

    Args:
        runs: Finished runs.
        notes: Notes from reading them.
        style: Names, order and looks of arms.

    Raises:
        ValueError: If there are no runs.
    """
    if not runs:
        shown = "".join(f"\n- {note}" for note in notes[:3])
        more = f"\n- and {len(notes) - 3} more" if len(notes) > 3 else ""
        raise ValueError(f"there is no finished run to report.{shown}{more}")
    notes = list(notes)
    columns = list(dict.fromkeys(run.column for run in runs))
    looks = {style.name(arm): look for arm, look in style.looks(run.arm for run in runs).items()}
    arms = list(map(style.name, style.in_order(run.arm for run in runs)))
    runs = [replace(run, arm=style.name(run.arm)) for run in runs]
    cells: dict[tuple[str, Column], Cell] = {}
    for column in columns:
        for arm in arms:
            of_arm = [run for run in runs if run.arm == arm and run.column == column]
            if of_arm:
                cells[arm, column] = _chosen(of_arm, notes)
            else:
                notes.append(f"arm {arm} has no finished run on {column[0]}.")
        _mark_best({arm: cells[arm, column] for arm in arms if (arm, column) in cells}, cells, column)
    table = ResultsTable(arms, columns, cells, looks, notes)
    notes += _column_notes(table)
    return table


def _chosen(runs: Sequence[Run], notes: list[str]) -> Cell:
    by_rate: dict[float, list[Run]] = {}
    for run in runs:
        by_rate.setdefault(run.learning_rate, []).append(run)
    all_seeds = {run.seed for run in runs}
    complete = {rate: of_rate for rate, of_rate in by_rate.items() if {run.seed for run in of_rate} == all_seeds}
    where = f"arm {runs[0].arm} on {runs[0].task}"
    if not complete:
        most = max(len(of_rate) for of_rate in by_rate.values())
        complete = {rate: of_rate for rate, of_rate in by_rate.items() if len(of_rate) == most}
    for rate in by_rate.keys() - complete.keys():
        notes.append(
            f"{where}: rate {rate:g} has {len(by_rate[rate])} of {len(all_seeds)} seeds and was not considered."
        )
    rates = {rate: estimate([run.validation for run in complete[rate]]) for rate in sorted(complete)}
    sign = -1 if runs[0].mode == "max" else 1
    chosen = min(rates, key=lambda rate: (sign * rates[rate].mean, rate))
    if len(by_rate) > 1 and chosen in (min(by_rate), max(by_rate)):
        side = "smallest" if chosen == min(by_rate) else "largest"
        notes.append(f"{where}: the chosen rate {chosen:g} is the {side} tried, so a better one may lie beyond.")
    of_chosen = sorted(complete[chosen], key=lambda run: run.seed)
    return Cell(of_chosen, rates, estimate([run.test for run in of_chosen]), published=published_score(of_chosen[0]))


def _mark_best(column_cells: Mapping[str, Cell], cells: dict[tuple[str, Column], Cell], column: Column) -> None:
    sign = 1 if next(iter(column_cells.values())).runs[0].test_mode == "max" else -1
    best_arm = max(column_cells, key=lambda arm: sign * column_cells[arm].score.mean)
    best = column_cells[best_arm]
    for arm, cell in column_cells.items():
        is_best = arm == best_arm
        is_tied = not is_best and _is_within_error(best, cell)
        cells[arm, column] = Cell(cell.runs, cell.rates, cell.score, is_best, is_tied, cell.published)


def _is_within_error(best: Cell, other: Cell) -> bool:
    if best.scores_by_seed.keys() & other.scores_by_seed.keys():
        difference = paired_test(best.scores_by_seed, other.scores_by_seed).difference
        return abs(difference.mean) <= difference.error
    return abs(best.score.mean - other.score.mean) <= (best.score.error**2 + other.score.error**2) ** 0.5


def _column_notes(table: ResultsTable) -> list[str]:
    notes = []
    chosen_by: dict[str, set[str]] = {}
    for (_, (task, _)), cell in table.cells.items():
        chosen_by.setdefault(task, set()).add(cell.runs[0].metric)
    for task, metrics in chosen_by.items():
        if len(metrics) > 1:
            listed = ", ".join(sorted(metrics))
            notes.append(f"runs on {task} were scored by different metrics ({listed}), each in a column of its own.")
    for column in table.columns:
        of_column = {arm: cell for (arm, of), cell in table.cells.items() if of == column}
        backbones = {str(cell.runs[0].settings.get("model.init_args.backbone")) for cell in of_column.values()}
        if len(backbones) > 1:
            notes.append(f"arms on {column[0]} adapt different backbones: {', '.join(sorted(backbones))}.")
        counts = {cell.score.count for cell in of_column.values()}
        if len(counts) > 1:
            listed = ", ".join(f"{arm} {cell.score.count}" for arm, cell in of_column.items())
            notes.append(f"arms on {column[0]} have different numbers of seeds: {listed}.")
        if counts == {1}:
            notes.append(f"one seed on {column[0]}: there is no standard error, and no difference is more than luck.")
        if all(run.test == run.validation for cell in of_column.values() for run in cell.runs):
            notes.append(
                f"test and validation scores on {column[0]} are equal in every run: the two data sets are one, so "
                "rates were chosen on what is reported and the scores are too good."
            )
    return notes
