"""Names of runs, arms, tasks, labels and scores stay names, whatever they hold."""

import csv
import re

import pytest

from asym_lightning.report.adapter_similarity import LayerSimilarity, PairKind
from asym_lightning.report.formats import csv_table, latex_table, markdown_table
from asym_lightning.report.page import html_page, page_sections
from asym_lightning.report.runs import read_runs
from asym_lightning.report.similarity import similarity_csv, similarity_html, similarity_markdown
from asym_lightning.report.table import results_table

MARKUP = '<script>alert("x")</script>'
HOSTILE = (MARKUP, "a|b\n\n# c", r"\input{/etc/passwd}", "=cmd()", "\x1b[31mred", '" onload="x', "&lt;", "${x}")


@pytest.fixture
def table(write_run, tmp_path):
    """A table in which every name holds markup."""
    for number, name in enumerate(HOSTILE):
        for seed in (0, 1):
            write_run(
                name, seed, 0.5 + number / 100 + seed / 1000, task=f"task {name}", name=f"{number}/{seed} &<i>",
                tests={"test/accuracy": 0.5}, metric="accuracy",
            )  # fmt: skip
    found = read_runs([tmp_path])
    return results_table(found.runs, [*found.notes, f"a note on {MARKUP}\nin two lines"])


def test_a_page_holds_no_markup_of_names(table, tmp_path):
    page = html_page(table, page_sections(table), f"title {MARKUP}", tmp_path)
    assert "<script" not in page and 'onload="x"' not in page and "<i>" not in page
    assert "&lt;script&gt;" in page


def test_markdown_keeps_its_rows(table):
    text = markdown_table(table)
    assert "<script" not in text and "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(HOSTILE)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_latex_runs_no_command_of_a_name(table):
    text = latex_table(table)
    assert r"\input" not in "".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert all(line.startswith("%") or "note on" not in line for line in text.splitlines())
    assert "in two lines" in next(line for line in text.splitlines() if "note on" in line)


def test_a_spreadsheet_finds_no_formula(table):
    cells = [cell for row in csv.reader(csv_table(table).splitlines()) for cell in row]
    assert "'=cmd()" in cells and not any(cell.startswith(("=", "@")) for cell in cells)


@pytest.mark.parametrize("name", HOSTILE)
def test_comparisons_of_adapters_hold_no_markup_of_names(name):
    rows = [LayerSimilarity(PairKind(name, True, True), f"layer {name}", factor, 0.5, 0.1, 1) for factor in "AB"]
    page = similarity_html(rows, [f"note {name}"])
    assert "<script" not in page and 'onload="x"' not in page
    assert "<script" not in similarity_markdown(rows, [])
    assert similarity_csv(rows).count("\n") == 3
