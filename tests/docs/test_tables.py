"""Tables of the documentation that say what the code knows."""

import re
from pathlib import Path

import pytest

import asym_lightning
from asym_lightning.adapters.init.rule import init_names, init_rule
from benchmarks.coverage.__main__ import RESULTS, read_rows
from benchmarks.coverage.page import PAGE, write_page

ROOT = Path(__file__).parents[2]
# When tests are collected: later others may register rules of their own.
ORTHONORMAL = [name for name in init_names("A") if init_rule(name).is_orthonormal]


def rows(page: str, first_cell: str) -> list[list[str]]:
    """The cells of the page's table whose head begins so."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_cell} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return found
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_the_table_of_frozen_As_has_every_rule_what_it_needs_and_how_it_is_stored():
    table = {name: row for row in rows("frozen_a.md", "rule") for name in re.findall(r"`(\w+)`", row[0])}
    assert sorted(table) == sorted(ORTHONORMAL)
    for name, (_, _, needs, stored) in table.items():
        rule = init_rule(name)
        assert needs == ("data" if rule.needs_data else "the weight" if rule.needs_weight else "nothing")
        assert stored == ("seed" if rule.is_redrawn else "A itself")


@pytest.mark.parametrize("row", rows("add_your_own.md", "to add"), ids=lambda row: row[0])
def test_what_one_adds_to_lies_where_the_page_says(row):
    for place in re.findall(r"`([\w/]+(?:/|\.py))`", row[3]):
        assert (Path(asym_lightning.__file__).parent / place.replace("asym_lightning/", "")).exists(), place


def test_the_page_of_coverage_says_what_the_results_say(tmp_path):
    pytest.importorskip("transformers.models.uvdoc", reason="types of a later transformers are among the results")
    write_page(read_rows(ROOT / RESULTS), tmp_path / "coverage.md")
    assert (ROOT / PAGE).read_text() == (tmp_path / "coverage.md").read_text()
