"""The way of who writes a paper: sweeps, a table, figures in its type, and links from numbers to runs."""

from __future__ import annotations

import csv
import json
import re
import statistics
from pathlib import Path

import pytest
import yaml
from matplotlib import image

pytestmark = pytest.mark.slow
ARMS, SEEDS = ["b_only_r8", "lora_r8"], ["0", "1"]
NAMES = {"lora_r8": "LoRA", "b_only_r8": "B alone", "head_only": "Head"}
STYLE = {"title": "Digits, turned", "arms": {arm: {"name": name} for arm, name in NAMES.items()}}
STYLE["arms"]["b_only_r8"]["colour"] = "#0f766e"
FIGURES = {
    "learning_curves",
    "choice_of_the_learning_rate",
    "score_against_trained_parameters",
    "spectrum_of_the_update",
}
SHORT = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false"]


def of_arms(arms):
    return [option for arm in arms for option in ("--arm", f"adapters/{arm}")]


def score(folder):
    return json.loads((folder / "record.json").read_text())["metrics"]["test/accuracy"]


def test_table_and_figures_of_two_sweeps(run, tmp_path):
    asked = ["--config", "quickstart", "--seeds", *SEEDS]
    rates = ["--learning-rates", "3e-3", "1e-2"]
    first = run("asym-lightning", "sweep", *asked, *rates, *of_arms(ARMS), "--out", "runs/low_rank", "--", *SHORT)
    of_head = ["--learning-rates", "0.1", *of_arms(["head_only"])]
    run("asym-lightning", "sweep", *asked, *of_head, "--out", "runs/head", "--", *SHORT)
    assert all(arm in first for arm in ARMS)

    (tmp_path / "style.yaml").write_text(yaml.safe_dump(STYLE, sort_keys=False))
    report = ["report", "runs/low_rank", "runs/head", "--style", "style.yaml", "--compare", "LoRA", "B alone"]
    for suffix in ("pdf", "svg", "png"):
        printed = run("asym-lightning", *report, "--figures", suffix, "--out", "paper")
    paper = tmp_path / "paper"
    assert re.search(r"LoRA - B alone on quickstart \(accuracy\): -?0\.\d{3} ± 0\.\d{3} \(2 pairs", printed)

    rows = list(csv.DictReader((paper / "table.csv").open()))
    assert [row["arm"] for row in rows] == list(NAMES.values())
    page = (paper / "report.html").read_text()
    links = [paper / link for link in re.findall(r'href="([^"]+)"', page)]
    assert len(links) == len(NAMES) * len(SEEDS)
    for row, of_arm in zip(rows, (links[0:2], links[2:4], links[4:6]), strict=True):
        assert float(row["test_mean"]) == pytest.approx(statistics.mean(map(score, of_arm)), abs=1e-6)
    latex = (paper / "table.tex").read_text()
    assert [line.split(" & ")[0] for line in latex.splitlines() if " & " in line] == ["arm", *NAMES.values()]

    for name in FIGURES:
        pdf = (paper / f"figures/{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF") and b"STIXGeneral" in pdf and b"/Type3" not in pdf
        assert image.imread(paper / f"figures/{name}.png").shape[1] == pytest.approx(3.25 * 300, abs=1)
    assert "#0f766e" in (paper / "figures/learning_curves.svg").read_text() and "#0f766e" in page

    run("asym-lightning", "report", "runs/low_rank", "--style", "style.yaml")
    assert "#0f766e" in (tmp_path / "runs/low_rank/report.html").read_text()  # an arm keeps its colour


def test_similarity_of_what_a_sweep_learned(run, tmp_path):
    asked = ["--config", "quickstart", "--seeds", *SEEDS, "--learning-rates", "1e-2", *of_arms(["lora_r8"])]
    run("asym-lightning", "sweep", *asked, "--out", "runs", "--", *SHORT)
    similarity = ["similarity", "runs", "--arm", "lora_r8", "--out", "alike", "--figures", "pdf"]
    printed = run("asym-lightning", *similarity)
    assert printed.splitlines()[-1].split() == ["figures", str(Path("alike/figures"))]
    assert all(path.read_bytes().startswith(b"%PDF") for path in (tmp_path / "alike/figures").iterdir())
    assert (tmp_path / "alike/similarity.csv").is_file() and "<svg" in (tmp_path / "alike/similarity.html").read_text()
