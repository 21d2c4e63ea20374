import pytest

from asym_lightning.report.runs import read_runs
from asym_lightning.report.table import results_table


@pytest.fixture
def table_of(tmp_path):
    def read(metrics=()):
        found = read_runs([tmp_path], metrics)
        return results_table(found.runs, found.notes)

    return read


def test_the_rate_is_chosen_on_validation_and_reported_on_test(write_run, table_of):
    for seed in (0, 1):
        write_run(seed=seed, rate=0.01, validation=0.7, test=0.95)  # better on test, must not be chosen
        write_run(seed=seed, rate=0.1, validation=0.9, test=0.85 + 0.02 * seed)
        write_run(seed=seed, rate=1.0, validation=0.6, test=0.5)
    table = table_of()
    cell = table.cells["b_only", ("digits", "accuracy")]
    assert cell.learning_rate == 0.1
    assert cell.score.mean == pytest.approx(0.86)
    assert cell.score.error == pytest.approx(0.01)
    assert cell.scores_by_seed == {0: 0.85, 1: 0.87}
    assert list(cell.rates) == [0.01, 0.1, 1.0]
    assert not table.notes


def test_a_rate_without_all_seeds_is_not_considered(write_run, table_of):
    for seed in (0, 1):
        write_run(seed=seed, rate=0.01, validation=0.7)
    write_run(seed=0, rate=0.1, validation=0.9)
    table = table_of()
    assert table.cells["b_only", ("digits", "accuracy")].learning_rate == 0.01
    assert any("rate 0.1 has 1 of 2 seeds and was not considered" in note for note in table.notes)


def test_a_rate_at_the_edge_is_noted(write_run, table_of):
    for rate, validation in ((0.01, 0.7), (0.1, 0.9)):
        write_run(rate=rate, validation=validation)
        write_run(rate=rate, validation=validation, seed=1)
    assert any("the chosen rate 0.1 is the largest tried" in note for note in table_of().notes)


def test_the_smaller_of_equal_rates_is_chosen(write_run, table_of):
    for rate in (0.001, 0.01, 0.1):
        write_run(rate=rate, validation=0.9)
    assert table_of().cells["b_only", ("digits", "accuracy")].learning_rate == 0.001


def test_best_and_ties_go_by_the_paired_difference(write_run, table_of):
    column = ("digits", "accuracy")
    for seed, level in enumerate((0.70, 0.80, 0.90)):  # seeds differ much, arms little
        write_run("best", seed, level)
        write_run("tied", seed, level - (0.004, -0.005, 0.002)[seed])
        write_run("worse", seed, level - 0.01 - 0.001 * seed)
    table = table_of()
    assert table.best_arm(column) == "best"
    assert {arm: table.cells[arm, column].is_tied for arm in table.arms} == {
        "best": False, "tied": True, "worse": False,
    }  # fmt: skip
    assert table.compare("worse", "best", column).difference.mean == pytest.approx(-0.011)


def test_less_is_better_where_the_mode_says_so(write_run, table_of):
    write_run("low", test=0.1, metric="error", mode="min")
    write_run("high", test=0.2, metric="error", mode="min")
    assert table_of().best_arm(("digits", "error")) == "low"


def test_what_cannot_be_compared_is_noted(write_run, table_of):
    write_run("b_only", 0, task="cola", metric="matthews")
    write_run("b_only", 1, task="cola", metric="accuracy")
    write_run("b_only", 0)
    write_run("b_only", 1)
    write_run("lora", 0, backbone="other")
    write_run("broken", 0, status="failed")
    notes = " ".join(table_of().notes)
    assert "runs on cola were scored by different metrics (accuracy, matthews)" in notes.replace(
        "(matthews, accuracy)", "(accuracy, matthews)"
    )
    assert "arms on digits adapt different backbones: other, vit_digits" in notes
    assert "arms on digits have different numbers of seeds: b_only 2, lora 1" in notes
    assert "arm lora has no finished run on cola" in notes
    assert "broken" in notes


def test_one_data_set_for_validation_and_test_is_noted(write_run, table_of):
    write_run(validation=0.8, test=0.8)
    notes = " ".join(table_of().notes)
    assert "the two data sets are one" in notes
    assert "there is no standard error" in notes


def test_published_numbers_stand_beside_ones_own(write_run, table_of):
    write_run("b_only_r8", task="vlcs", tests={"test/ood_accuracy": 0.7, "test/in_domain_accuracy": 0.8})
    cells = table_of().cells
    published = cells["b_only_r8", ("vlcs", "ood_accuracy")].published
    assert published is not None
    assert published.value == 75.81
    assert cells["b_only_r8", ("vlcs", "in_domain_accuracy")].published is None  # another score


def test_several_test_scores_of_one_choice_are_columns(write_run, table_of):
    for arm, ood, gap in (("b_only", 0.7, 0.1), ("lora", 0.6, 0.05)):
        tests = {"test/ood_accuracy": ood, "test/sketch/accuracy": 0.5, "test/train_gap": gap}
        write_run(arm, test=0.8, tests=tests)
    table = table_of()
    assert table.columns == [("digits", "ood_accuracy")]
    assert not any("different metrics" in note for note in table.notes)
    asked = table_of(metrics=["ood_accuracy", "train_gap"])
    assert asked.columns == [("digits", "ood_accuracy"), ("digits", "train_gap")]
    assert [asked.best_arm(column) for column in asked.columns] == ["b_only", "lora"]  # of a gap, less is better


def test_a_test_score_that_was_not_taken_is_noted_with_those_that_were(write_run):
    directory = write_run()
    notes = read_runs([directory], ["f1"]).notes
    assert "has no test/f1 and is left out; it has accuracy." in notes[0]
    assert notes[1] == "arm b_only has no finished run to report."


def test_nothing_to_report_is_an_error_that_says_what_was_found(write_run, table_of):
    write_run(record=False)
    with pytest.raises(ValueError, match=r"no finished run to report[\s\S]*lacks record.json"):
        table_of()


def test_comparing_an_unknown_arm_is_an_error(write_run, table_of):
    write_run()
    with pytest.raises(ValueError, match="arm 'lora' has no result on digits; those that have: b_only"):
        table_of().compare("lora", "b_only", ("digits", "accuracy"))
