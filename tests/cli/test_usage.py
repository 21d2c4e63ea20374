"""What the tools say of options that they have not."""

import pytest

from asym_lightning.cli import EXIT_USAGE, main
from asym_lightning.cli.commands import TOOLS

REQUIRED = {
    "similarity": ["a"], "export": ["a", "--output", "b"], "merge": ["a", "--output", "b"], "report": ["a"],
    "bounds": ["--num-samples", "3"], "calibrate": ["--out", "b"], "combine": ["a", "--output", "b"],
    "generate": ["a"], "chat": ["a"],
}  # fmt: skip
OF_FIT = ("bounds", "estimate", "calibrate", "advise")
OF_OTHERS = ("lm_eval",)  # another package's program, which says itself what it takes


@pytest.mark.parametrize("tool", sorted({*TOOLS} - {*OF_FIT, *OF_OTHERS}))
def test_an_option_that_a_tool_has_not_is_one_sentence(tool, capsys):
    assert main([tool, *REQUIRED.get(tool, []), "--debugg"]) == EXIT_USAGE
    sentence = f"`asym-lightning {tool}` has no option '--debugg': did you mean --debug?"
    assert capsys.readouterr().err == f"error: {sentence}\n"


@pytest.mark.parametrize("tool", sorted(REQUIRED))
def test_what_a_tool_lacks_is_one_sentence(tool, capsys):
    assert main([tool]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert error.startswith(f"error: `asym-lightning {tool}`: the following arguments are required: ")
    assert error.count("\n") == 1


def test_a_word_too_many_is_named(capsys):
    assert main(["doctor", "now"]) == EXIT_USAGE
    assert capsys.readouterr().err == "error: `asym-lightning doctor` does not know what to do with 'now'.\n"
