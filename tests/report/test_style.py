"""Title, order, names and colours of arms: the user's, and the same in every report."""

import pytest

from asym_lightning.report.chart import COLOURS
from asym_lightning.report.runs import read_runs
from asym_lightning.report.style import SHIPPED, ReportStyle, read_style
from asym_lightning.report.table import results_table


def test_an_arm_looks_alike_beside_whatever_others():
    alone = ReportStyle().looks(["lora_r8"])["lora_r8"]
    for others in (["full", "lora_r8"], ["zebra", "lora_r8", "apple"], list(reversed(SHIPPED))):
        assert ReportStyle().looks(others)["lora_r8"] == alone
    mine = ReportStyle().looks(["mine"])["mine"]
    assert ReportStyle().looks(["lora_r8", "mine", "full"])["mine"].number in (mine.number, (mine.number + 1) % 8)


@pytest.mark.parametrize("arms", [SHIPPED, [f"arm {number}" for number in range(8)]])
def test_eight_arms_differ(arms):
    assert {look.colour for look in ReportStyle().looks(arms).values()} == set(COLOURS)


def test_more_arms_than_looks_have_looks(arms=tuple(f"arm {number}" for number in range(20))):
    assert len(ReportStyle().looks(arms)) == 20


def test_a_colour_of_the_users_is_no_other_arms():
    looks = ReportStyle(colours={"mine": COLOURS[0]}).looks(["b_only_r8", "mine"])
    assert looks["mine"].colour == COLOURS[0] != looks["b_only_r8"].colour


def test_names_and_order_are_those_of_the_file(write_run, tmp_path):
    for arm in ("b_only_r8", "full", "lora_r8"):
        write_run(arm)
    file = tmp_path / "style.yaml"
    file.write_text('title: T\narms:\n  lora_r8: {name: LoRA, colour: "#C2410C"}\n  other: {}\n  b_only_r8:\n')
    style = read_style(file)
    found = read_runs([tmp_path])
    table = results_table(found.runs, found.notes, style)
    assert style.title == "T"
    assert list(table.arms) == ["LoRA", "b_only_r8", "full"]
    assert table.looks["LoRA"].colour == "#c2410c"
    assert {arm for arm, _ in table.cells} == set(table.arms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm: {}", "unknown key 'arm': did you mean arms"),
        ("arms: [a]", "`arms` must be"),
        ("arms: {a: {color: '#000000'}}", "unknown key 'color': did you mean colour"),
        ("arms: {a: {colour: red}}", r"`arms.a.colour` must be as \"#0b3866\", not 'red'"),
        ("arms: {a: {name: x}, b: {name: x}}", "two arms have the name 'x'"),
        ("arms: {a: {name: b}, b: {}}", "two arms have the name 'b'"),
        ("title: 3", "`title` must be text"),
    ],
)
def test_what_is_no_style_is_refused_by_file(tmp_path, text, message):
    file = tmp_path / "style.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        read_style(file)
    assert str(file) in str(raised.value)
