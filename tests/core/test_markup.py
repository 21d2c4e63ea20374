import pytest

from asym_lightning.core.markup import latex_text, markdown_text, one_line, spreadsheet_text


@pytest.mark.parametrize("as_text", [one_line, markdown_text, latex_text, spreadsheet_text])
def test_a_plain_name_stays_as_it_is(as_text):
    assert as_text("hBzero r8") == "hBzero r8"


def test_every_letter_that_means_something_to_latex_is_escaped():
    assert latex_text(r"\_%&#${}~^") == r"\textbackslash{}\_\%\&\#\$\{\}\textasciitilde{}\textasciicircum{}"


def test_halves_of_surrogate_pairs_can_be_printed():
    assert one_line("a\udce9").encode() == b"a\\udce9"
