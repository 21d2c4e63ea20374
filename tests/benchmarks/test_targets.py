"""Verdicts on made-up results."""

import re

import pytest

from benchmarks.__main__ import RESULTS, main
from benchmarks.figure_targets import TARGETS, check_figures
from benchmarks.figures import figures_table, read_figures, write_figures
from benchmarks.results import Row, read_csv, write_csv
from benchmarks.targets import check


def row(arm, steps, *, dropout=0.0, saved=100, **fields):
    cell = {"model": "vit-s", "depth": 4, "width": None, "batch": 8, "length": 196, "targets": "all-linear"}
    cell |= {"rank": 8, "mode": "eager", "device": "cpu", "precision": "32", "threads": 2}
    return Row(**{**cell, **fields}, arm=arm, dropout=dropout, step_seconds=tuple(steps), saved_bytes=saved)


def verdicts(*rows):
    return {v.what.split(" [")[0]: v for v in check(rows)}


def test_ratios_are_taken_round_by_round():
    # The second round is twice as slow for everything: a ratio of medians of other rounds would not see it.
    found = verdicts(row("floor", [1, 2, 1]), row("ours-b-only", [1.05, 2.1, 1.5]))
    assert found["ours-b-only: time over floor"].value == pytest.approx(1.05)
    assert found["ours-b-only: time over floor"].is_met


@pytest.mark.parametrize(
    ("targets", "dropout", "limit"),
    [("qkv", 0.0, 1.02), ("all-linear", 0.0, 1.10), ("qkv", 0.05, 1.05), ("all-linear", 0.05, 1.20)],
)
def test_limits_over_the_floor_depend_on_targets_and_dropout(targets, dropout, limit):
    arm = "ours-b-only-dropout" if dropout else "ours-b-only"
    found = verdicts(row("floor", [1], targets=targets), row(arm, [limit], dropout=dropout, targets=targets, saved=103))
    assert found[f"{arm}: time over floor"].limit == limit and found[f"{arm}: time over floor"].is_met
    assert not found[f"{arm}: saved bytes over floor"].is_met


def test_all_linear_with_dropout_is_held_to_less_than_peft_and_compiled_cells_only_to_no_more():
    rows = [row("peft-lora-dropout", [1.0], dropout=0.05), row("ours-b-only-dropout", [0.8], dropout=0.05)]
    verdict = verdicts(*rows)["ours-b-only-dropout: time over peft-lora-dropout"]
    assert not verdict.is_met and str(verdict).startswith("MISS  0.800 <= 0.70")
    for r in rows:
        r.mode = "compiled"
    assert verdicts(*rows)["ours-b-only-dropout: time over peft-lora-dropout"].is_met


def test_compiled_cells_are_held_to_the_floors_memory_but_not_to_its_time():
    rows = [row("floor", [1], mode="compiled"), row("ours-b-only", [1.5], mode="compiled", saved=109)]
    assert {what: v.is_met for what, v in verdicts(*rows).items()} == {"ours-b-only: saved bytes over floor": False}


def test_growth_is_measured_from_the_smallest_rank_up_to_64():
    rows = [r for rank, t in [(4, 1.0), (64, 1.2), (128, 9)]
            for r in (row("floor", [1], rank=rank), row("ours-b-only", [t], rank=rank))]  # fmt: skip
    growth = [v for v in check(rows) if "time over that at rank 4" in v.what]
    assert [(v.value, v.is_met) for v in growth] == [(pytest.approx(1.2), False)]


def test_on_a_gpu_the_peak_counts_too():
    floor, ours = (row(arm, [1], device="cuda", precision="bf16-true") for arm in ("floor", "ours-b-only"))
    floor.peak_bytes, ours.peak_bytes = 100, 106
    found = verdicts(floor, ours)
    assert found["ours-b-only: time over floor"].limit == 1.05
    assert not found["ours-b-only: peak over floor"].is_met


def test_rows_are_the_same_after_a_csv(tmp_path):
    rows = [row("floor", [0.25, 0.5], width=64), row("full", [], saved=None)]
    rows[1].skipped = "would need 9.00 GB, at least, of memory"
    write_csv(rows, tmp_path / "a" / "x.csv")
    assert read_csv(tmp_path / "a" / "x.csv") == rows


def test_on_a_gpu_a_narrow_model_has_more_room_in_every_mode():
    for mode in ("eager", "graph"):
        rows = [row(arm, [1], device="cuda", precision="bf16-true") for arm in ("floor", "ours-b-only")]
        for one in rows:
            one.model, one.mode = "roberta-large", mode
        assert verdicts(*rows)["ours-b-only: time over floor"].limit == 1.10


def test_what_is_missed_says_why():
    rows = [row("floor", [0.9]), row("peft-lora-dropout", [1.0], dropout=0.05)]
    rows.append(row("ours-b-only-dropout", [0.8], dropout=0.05))
    missed = str(verdicts(*rows)["ours-b-only-dropout: time over peft-lora-dropout"])
    assert missed.endswith(": the floor itself takes 0.90 of peft-lora-dropout")
    rows[-1].step_seconds = (0.6,)
    assert "floor itself" not in str(verdicts(*rows)["ours-b-only-dropout: time over peft-lora-dropout"])


def test_figures_are_held_to_a_limit_or_to_a_multiple_of_another():
    figures = {"`lightning --help`, s": 0.6, "10,000,000 rows: read, MB of memory": 95.0, "unknown": 1.0}
    (alone,) = check_figures(figures)
    assert str(alone).startswith("MISS  0.600 <= 0.50  `lightning --help`, s")
    both = list(check_figures({**figures, "1,000,000 rows: read, MB of memory": 10.0}))
    assert both[1].value == 9.5 and "their order and lengths take 4 bytes a row each" in str(both[1])


def test_check_reads_figures_and_arms_alike(tmp_path, capsys):
    write_csv([row("floor", [1]), row("ours-b-only", [1.05])], tmp_path / "arms.csv")
    write_figures({"`lightning --help`, s": 0.2}, tmp_path / "figures.csv", "here")
    write_figures({"`lightning`, s": 0.1}, tmp_path / "figures.csv", "there")  # of a later run
    assert main(["check", *(str(tmp_path / f"{name}.csv") for name in ("arms", "figures"))]) == 0
    assert capsys.readouterr().out.endswith("`lightning --help`, s\n4 of 4 targets met\n")
    assert read_figures(tmp_path / "figures.csv")["`lightning`, s"] == (0.1, "there")
    assert "Measured on: here.\nMeasured on: there.\n" in figures_table(tmp_path / "figures.csv")


def test_whatever_is_missed_in_the_stored_results_says_why(capsys):
    main(["check"])
    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MISS")]
    assert len(missed) > 10
    for line in missed:
        assert re.search(r"(\]|a step|of memory): \S.{20,}$", line), line


def test_every_figure_that_has_a_target_has_been_measured():
    stored = {name for file in ("startup", "around_the_step") for name in read_figures(RESULTS / f"{file}.csv")}
    assert {name for target in TARGETS for name in (target.name, target.over) if name} <= stored
