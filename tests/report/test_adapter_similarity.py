"""Pairs of adapters, and `asym-lightning similarity`."""

import csv
import math

import pytest
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, save_adapters
from asym_lightning.adapters.files.factors import Factors
from asym_lightning.analysis import cca_similarity
from asym_lightning.cli import main
from asym_lightning.report.adapter_similarity import LayerSimilarity, PairKind, TrainedAdapter, compare_adapters
from asym_lightning.report.similarity import similarity_figures


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adapter(name, task="t", seed=0, *, arm="lora", dim=16, B=None, layers=("0", "1")):
    number = sum(map(ord, name))
    factors = {
        layer: Factors(randn(4, dim, seed=seed + i), randn(dim, 4, seed=number + i) if B is None else B)
        for i, layer in enumerate(layers)
    }
    return TrainedAdapter(name, task, arm, seed, factors)


def test_pairs_are_kept_apart_by_what_they_have_in_common():
    first, second, third = adapter("a", "x", 0), adapter("b", "x", 1), adapter("c", "y", 0)
    rows, notes = compare_adapters([first, second, third])
    assert not notes
    found = {(row.kind, row.layer, row.factor): row for row in rows}
    same_task = found[PairKind("lora", True, False), "0", "B"]
    assert same_task.similarity == cca_similarity(first.factors["0"].B, second.factors["0"].B)
    assert (same_task.chance, same_task.num_pairs) == (4 / 16, 1)
    assert found[PairKind("lora", False, True), "0", "A"].similarity == pytest.approx(1)
    assert found[PairKind("lora", False, False), "1", "A"].similarity < 1
    assert len(rows) == 3 * 2 * 2


def test_a_zero_factor_is_noted_and_not_averaged():
    zero = adapter("zero", B=torch.zeros(16, 4))
    rows, notes = compare_adapters([adapter("a"), adapter("b"), zero])
    of_B = [row for row in rows if row.factor == "B"]
    assert {row.num_pairs for row in of_B} == {1}
    assert not any(math.isnan(row.similarity) for row in rows)
    assert any("B of 0 is zero or left out of the file in 2 of 3 pairs" in note for note in notes)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (adapter("other", dim=8), "B of 0 has dimensions 16 and 8, so their backbones differ"),
        (adapter("other", layers=("0", "9")), "only one of them adapts 1"),
    ],
)
def test_adapters_of_different_backbones_are_left_out(other, why):
    _, notes = compare_adapters([adapter("a"), adapter("b"), other])
    assert sum(why in note for note in notes) == 2
    with pytest.raises(ValueError, match=why):
        compare_adapters([adapter("a"), other])


def test_arms_are_not_mixed():
    _, notes = compare_adapters([adapter("a"), adapter("b"), adapter("c", arm="b_only")])
    assert "different arms were not compared with each other: lora, b_only" in notes[0]
    with pytest.raises(ValueError, match="it takes two adapters of one arm"):
        compare_adapters([adapter("a"), adapter("c", arm="b_only")])


def save(directory, seed, **options):
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    inject_adapters(model, AdapterConfig(rank=2, targets=["0", "1"], seed=seed))
    torch.manual_seed(10 + seed)
    for one in adapters_by_name(model).values():
        nn.init.normal_(one.factor_B)
    save_adapters(model, directory, **options)
    return str(directory)


def test_the_command_writes_table_and_page(tmp_path, capsys):
    places = [f"x={save(tmp_path / 'a', 0)}", f"x={save(tmp_path / 'b', 1)}", f"y={save(tmp_path / 'c', 0)}"]
    assert main(["similarity", *places, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| hB_zero_A_rand_r2: different tasks, same init | 1 | 1.000 |" in printed
    rows = list(csv.DictReader((tmp_path / "similarity.csv").open()))
    assert {row["layer"] for row in rows} == {"0", "1"}
    page = (tmp_path / "similarity.html").read_text()
    assert page.count("<svg") == 3
    assert page.count(">chance<") == 3


def test_figures_and_names_are_those_of_reports(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    places = [save(tmp_path / name, seed) for seed, name in enumerate("ab")]
    style = tmp_path / "style.yaml"
    style.write_text("title: Alike\narms: {hB_zero_A_rand_r2: {name: B-only}}\n")
    options = ["--out", str(tmp_path), "--style", str(style), "--figures", "svg"]
    assert main(["similarity", *places, *options]) == 0
    assert "| B-only: same task, different init |" in capsys.readouterr().out
    assert "<h1>Alike</h1>" in (tmp_path / "similarity.html").read_text()
    (figure,) = (tmp_path / "figures").iterdir()
    assert figure.name == "similarity_b_only_same_task_different_init.svg"


def test_figures_need_a_place(tmp_path, capsys):
    assert main(["similarity", str(tmp_path), "--figures", "pdf"]) == 2
    assert "`--figures` needs `--out`" in capsys.readouterr().err


def test_the_A_of_compact_adapters_is_known_where_it_is_the_same(tmp_path, capsys):
    same = [save(tmp_path / name, 0, include_frozen=False) for name in "ab"]
    assert main(["similarity", *same]) == 0
    assert "same task, same init | 1 | 1.000 | 1.000" in capsys.readouterr().out
    other = save(tmp_path / "c", 1, include_frozen=False)
    assert main(["similarity", same[0], other]) == 0
    printed = capsys.readouterr().out
    assert "different init | 1 | unknown |" in printed
    assert "A of 0 is zero or left out of the file in 1 of 1 pairs" in printed


def test_bad_input_is_one_sentence(tmp_path, capsys):
    only = save(tmp_path / "a", 0)
    for places, message in (
        ([only], "it takes two adapters of one arm"),
        ([str(tmp_path / "missing"), only], "there is no directory"),
        ([only, only, "--arm", "lora"], "there is no adapter of arm 'lora'; those found are of hB_zero_A_rand_r2"),
    ):
        assert main(["similarity", *places]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_each_factor_is_drawn_with_its_own_chance():
    kind = PairKind("lora", True, True)
    rows = [
        LayerSimilarity(kind, layer, factor, 0.5, chance, 1)
        for factor, chance in (("A", 0.1), ("B", 0.3))
        for layer in "xy"
    ]
    (figure,) = similarity_figures(rows)
    assert [(one.name, one.chance) for one in figure.chart.series] == [("A", 0.1), ("B", 0.3)]
