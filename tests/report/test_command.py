"""`asym-lightning report` from the command line to its files."""

import csv
import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, save_adapters
from asym_lightning.cli import main
from asym_lightning.core.norms_file import STATISTICS, NormsFile


@pytest.fixture
def runs(write_run, tmp_path):
    for seed in (0, 1, 2):
        for rate, better in ((0.01, 0.0), (0.1, 0.02), (1.0, -0.3)):
            directory = write_run("b_only_r8", seed, 0.84 + 0.01 * seed + better, rate=rate, trained=14_794)
            add_adapter(directory, seed)
            write_run("head_only", seed, 0.70 + 0.02 * seed + better, rate=rate, trained=970)
    return tmp_path


def add_adapter(directory, seed):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8))
    torch.manual_seed(seed)
    inject_adapters(model, AdapterConfig(rank=4, targets=["0"], seed=seed))
    for adapter in adapters_by_name(model).values():
        nn.init.normal_(adapter.factor_B)
    save_adapters(model, directory / "adapter")
    norms = NormsFile(directory / "b_norms.csv")
    statistics = dict.fromkeys(STATISTICS, 0.5)
    norms.append(10, 0, {"0.all": statistics, "total": statistics}, {"0.all": [0.3]})
    norms.append(20, 1, {"0.all": {**statistics, "B_frobenius": 0.9}}, {"0.all": [0.5, 0.4]})


def test_writes_table_and_page(runs, capsys):
    assert main(["report", str(runs), "--title", "Digits & more", "--compare", "b_only_r8", "head_only"]) == 0
    printed = capsys.readouterr().out
    assert "| b_only_r8 | **0.870 ± 0.006** | 14,794 | 0.1 | 3 |" in printed
    assert (
        "b_only_r8 - head_only on digits (accuracy): 0.130 ± 0.006 (3 pairs, p of the paired t-test 0.002)" in printed
    )
    rows = list(csv.DictReader((runs / "table.csv").open()))
    assert [(row["arm"], row["is_best"]) for row in rows] == [("b_only_r8", "True"), ("head_only", "False")]
    assert float(rows[0]["test_mean"]) == pytest.approx(0.87)
    latex = (runs / "table.tex").read_text()
    assert r"b\_only\_r8 & \textbf{0.870 $\pm$ 0.006} & 14,794 \\" in latex
    assert latex.count("&") == 2 * 3


def test_further_test_scores_share_the_charts_of_their_runs(write_run, tmp_path, capsys):
    for seed in (0, 1):
        write_run("b_only_r8", seed, tests={"test/ood_accuracy": 0.6 + 0.1 * seed, "test/in_domain_accuracy": 0.8})
    assert main(["report", str(tmp_path)]) == 0
    assert "| digits (ood_accuracy) | digits (in_domain_accuracy) |" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert "1 arms on 1 task, 2 runs" in page
    assert page.count(">Learning curves<") == 1
    assert page.count(">Score against trained parameters<") == 2
    assert (
        "arm & digits (ood\\_accuracy) & digits (in\\_domain\\_accuracy) & trained"
        in (tmp_path / "table.tex").read_text()
    )


class Tags(HTMLParser):
    VOID = frozenset({"meta", "br", "link", "img", "rect", "circle", "path", "polyline"})

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_needs_nothing_beside_it_and_is_well_formed(runs):
    assert main(["report", str(runs)]) == 0
    page = (runs / "report.html").read_text()
    assert not re.search(r'src="', page)
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == 2 * 3  # arms by seeds, each to its run
    assert all((runs / link / "config.yaml").is_file() for link in links)
    assert not re.search(r"url\(|@import|<script", page)
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    titles = re.findall(r'class="title">([^<]+)', page)
    assert titles == [
        "Learning curves", "Choice of the learning rate", "Score against trained parameters", "Time of fit, seconds",
        "Kept for the backward pass, MB", "Spectrum of the update", "Norm of B: b_only_r8", "Rank over time",
    ]  # fmt: skip
    assert "viewport" in page


def test_without_a_finished_run_the_command_fails(write_run, tmp_path, capsys):
    write_run(record=False)
    assert main(["report", str(tmp_path)]) == 1
    assert "there is no finished run to report" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
    assert main(["report", str(tmp_path / "missing")]) == 1
    assert "there is no directory" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["pdf", "svg", "png"])
def test_figures_are_files_beside_the_page(runs, suffix, capsys):
    pytest.importorskip("matplotlib")
    assert main(["report", str(runs), "--figures", suffix]) == 0
    assert {path.name for path in (runs / "figures").iterdir()} == {
        f"{name}.{suffix}"
        for name in (
            "learning_curves", "choice_of_the_learning_rate", "score_against_trained_parameters", "time_of_fit_seconds",
            "kept_for_the_backward_pass_mb", "spectrum_of_the_update", "norm_of_b_b_only_r8", "rank_over_time",
        )
    }  # fmt: skip
    assert "figures  " in capsys.readouterr().out


def test_figures_of_several_tasks_are_told_apart(write_run, tmp_path):
    pytest.importorskip("matplotlib")
    for task in ("rte", "mrpc"):
        write_run(task=task)
    assert main(["report", str(tmp_path), "--figures", "svg"]) == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"rte_learning_curves.svg", "mrpc_learning_curves.svg"} <= names


def test_a_style_names_and_orders_arms_everywhere(runs, tmp_path, capsys):
    style = tmp_path / "style.yaml"
    style.write_text(
        'title: Upside down\narms:\n  head_only: {name: Head}\n  b_only_r8: {name: B, colour: "#123456"}\n'
    )
    compare = ["--compare", "b_only_r8", "Head"]
    assert main(["report", str(runs), "--style", str(style), *compare]) == 0
    assert "B - Head on digits" in capsys.readouterr().out
    page = (runs / "report.html").read_text()
    assert "<h1>Upside down</h1>" in page and "b_only_r8" not in page.replace("b_only_r8/lr_", "")
    assert page.index("<td>Head</td>") < page.index("<td>B</td>")
    assert "#123456" in page


def test_maps_side_by_side_have_one_scale(write_run, tmp_path):
    for arm, norm in (("a", 0.5), ("b", 2.0)):
        directory = write_run(arm)
        norms = NormsFile(directory / "b_norms.csv")
        statistics = {**dict.fromkeys(STATISTICS, 0.5), "B_frobenius": norm}
        norms.append(10, 0, {"0.all": statistics, "total": statistics}, {"0.all": [0.3]})
    assert main(["report", str(tmp_path)]) == 0
    maps = re.findall(r"<svg[^>]*Norm of B.*?</svg>", (tmp_path / "report.html").read_text())
    assert len(maps) == 2 and all(">2</text>" in one for one in maps)


def test_seeds_that_do_not_share_A_give_no_soup(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert main(["report", "digits", "--soup", "--out", "out"]) == 1
    error = capsys.readouterr().err
    assert "error: no soup of arm b_only_r8 on digits: " in error
    assert "don't share A of `0` (`seed` is 0 and 1)" in error
    assert not (runs / "out").exists()
