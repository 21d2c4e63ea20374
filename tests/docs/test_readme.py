"""The first page: short, with one picture, two commands to begin with, and links that lead somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_it_has_at_most_nine_hundred_words_and_one_picture():
    assert len(README.split()) <= 900
    assert len(re.findall(r"!\[", README)) == 1


def test_links_and_pictures_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_table_of_arms_is_that_of_the_benchmark():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+ ± [\d.]+) \|$", README, re.MULTILINE))
    table = (ROOT / "benchmarks/results/digits_table.md").read_text()
    found = {arm: score.strip("*") for arm, score in re.findall(r"^\| (\w+) \| (\S+ ± \S+) \|", table, re.MULTILINE)}
    assert rows and all(found[arm] == score for arm, score in rows.items())
