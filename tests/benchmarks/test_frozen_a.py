"""How rates are tried and chosen, and the table: with runs that are made up."""

import pytest

from asym_lightning.callbacks import CalibrateA
from benchmarks.frozen_a import runs as module
from benchmarks.frozen_a.arms import ARMS, Arm
from benchmarks.frozen_a.runs import Run, by_rate, read_runs, run_arm
from benchmarks.frozen_a.table import results_text
from benchmarks.frozen_a.tasks import swapped_words, word_order_pairs
from benchmarks.frozen_a.tasks.instructions import Instructions
from benchmarks.frozen_a.tasks.pacs import PACS


class Task:
    name, rates, equal_rank = "made up", (0.01, 0.02, 0.04, 0.08), 4


@pytest.fixture
def best(monkeypatch):
    """Makes a run's scores fall with the distance from this rate."""
    rate = {"best": 0.03}

    def run(task, arm, tried, seed):
        score = 0.9 - abs(tried - rate["best"]) - seed / 1000
        return Run(task.name, arm.name, tried, seed, round(score, 4), round(score + 0.01, 4), 10, 1.0)

    monkeypatch.setattr(module, "run", run)
    return rate


def rates_by_count(runs):
    return {rate: sum(r.rate == rate for r in runs) for rate in sorted({r.rate for r in runs})}


def test_all_rates_are_tried_and_the_best_two_with_all_seeds(best, tmp_path):
    runs = []
    list(run_arm(Task, Arm("LoRA"), runs, tmp_path / "r.csv", [0, 1, 2, 3, 4]))
    assert rates_by_count(runs) == {0.01: 2, 0.02: 5, 0.04: 5, 0.08: 2}
    assert read_runs(tmp_path / "r.csv") == runs
    assert [group[0].rate for group in by_rate(runs, "made up", "LoRA")] == [0.02, 0.04]
    assert list(run_arm(Task, Arm("LoRA"), runs, tmp_path / "r.csv", [0, 1, 2, 3, 4])) == []


def test_rates_beyond_are_tried_while_the_best_is_at_an_edge(best, tmp_path):
    best["best"], runs = 0.0, []
    list(run_arm(Task, Arm("LoRA"), runs, tmp_path / "r.csv", [0, 1]))
    assert min(rates_by_count(runs)) == 0.0025
    assert list(run_arm(Task, Arm("LoRA"), runs, tmp_path / "r.csv", [0, 1])) == []
    best["best"], runs = 0.3, []
    list(run_arm(Task, Arm("B, random", rate_factor=2), runs, tmp_path / "r.csv", [0, 1]))
    assert max(rates_by_count(runs)) == 0.64  # one beyond the best


def test_the_best_of_all_seeds_is_not_left_at_an_edge_either(monkeypatch, tmp_path):
    def run(task, arm, rate, seed):  # of two seeds 0.02 is best, of all of them 0.01
        score = 0.5 - rate if seed > 1 else 0.5 - abs(rate - 0.019)
        return Run(task.name, arm.name, rate, seed, score, score, 10, 1.0)

    monkeypatch.setattr(module, "run", run)
    runs = []
    list(run_arm(Task, Arm("LoRA"), runs, tmp_path / "r.csv", [0, 1, 2, 3, 4]))
    assert rates_by_count(runs) == {0.005: 2, 0.01: 5, 0.02: 5, 0.04: 2, 0.08: 2}


def test_the_table_has_paired_differences_and_says_where_the_best_rate_is_at_an_edge(best, tmp_path):
    runs = []
    for arm, rate in (("LoRA", 0.03), ("B, random", 0.0)):
        best["best"] = rate
        list(run_arm(Task, Arm(arm), runs, tmp_path / "r.csv", [0, 1, 2]))
    text = results_text(runs, "a machine")
    assert "| LoRA | 10 | 0.02 | 3 |" in text and "| B, random | 10 | 0.0025 (edge) | 3 |" in text
    assert "Machine: a machine." in text


def test_arms_of_chosen_As_calibrate():
    (calibrate,) = ARMS["B, gradient"].callbacks(200, 30)
    assert isinstance(calibrate, CalibrateA) and calibrate.calibration.head_steps == 30


def test_an_arm_is_left_out_where_a_task_has_nothing_for_it(tmp_path):
    instructions, pacs = Instructions(), PACS(tmp_path)
    assert not instructions.has(ARMS["head"]) and instructions.has(ARMS["peft EVA"])
    assert not any(pacs.has(ARMS[f"peft {name}"]) for name in ("EVA", "PiSSA", "MiSS", "LoRA-FA"))
    assert all(pacs.has(ARMS[name]) for name in ("peft LoRA", "peft DoRA", "head"))
    assert all(task.has(ARMS[name]) for task in (instructions, pacs) for name in ("B, random", "LoRA", "all"))


def test_tasks_of_swapped_words_mark_and_leave_what_they_say(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("a\t1\t\tthe cat sat on mats\na\t0\t*\tcat the sat on mats\na\t1\t\tstop stop\n")
    (row,) = swapped_words.tagged_sentences(path)
    i = row["tags"].index("B-SWAP")
    words = row["tokens"]
    words[i : i + 2] = words[i + 1], words[i]
    assert " ".join(words) == "the cat sat on mats"
    assert row["tags"][i + 1] == "I-SWAP" and row["tags"].count("O") == 3
    ((anchor, shorter, swapped),) = word_order_pairs.triplets(path)
    assert anchor == "the cat sat on mats" and len(shorter.split()) == 4
    kept = iter(anchor.split())
    assert all(word in kept for word in shorter.split())  # in their order
    assert swapped != anchor and sorted(swapped.split()) == sorted(anchor.split())
