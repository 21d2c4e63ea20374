"""Names, which may come from anybody's files, as a text of some format that they can't turn into another."""

from __future__ import annotations

from asym_lightning.core.messages import printable

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{c: f"\\{c}" for c in "_%&#${}"},
    }
)
_MARKDOWN = str.maketrans({"|": r"\|", "<": "&lt;", ">": "&gt;", "[": r"\["})
_FORMULAS = ("=", "+", "-", "@")


def one_line(name: object) -> str:
    r"""A name without line ends and control characters.

    >>> one_line("a\n\x1b[31mb")
    'a \\x1b[31mb'
    """
    return printable(" ".join(str(name).split()))


def markdown_text(name: object) -> str:
    r"""A name as the text of a cell or an item.

    >>> markdown_text("<script>a|b")
    '&lt;script&gt;a\\|b'
    """
    return one_line(name).translate(_MARKDOWN)


def markdown_sentence(sentence: str) -> str:
    """A sentence with names in it, in which backticks stay what they are."""
    return one_line(sentence).replace("<", "&lt;")


def latex_text(name: object) -> str:
    r"""A name as text.

    >>> latex_text(r"\input{a_b}")
    '\\textbackslash{}input\\{a\\_b\\}'
    """
    return one_line(name).translate(_LATEX)


def spreadsheet_text(name: object) -> str:
    """A name as a cell that no spreadsheet takes for a formula.

    >>> spreadsheet_text("=1+1"), spreadsheet_text("b_only")
    ("'=1+1", 'b_only')
    """
    text = one_line(name)
    return f"'{text}" if text.startswith(_FORMULAS) else text
