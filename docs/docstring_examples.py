"""Show the doctests of docstrings as code: an extension of griffe, which reads docstrings for the API page."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

HEADING = re.compile(r"^Example:$", re.MULTILINE)
ROLE = re.compile(r":\w+:`~?([^`]+)`")  # of Sphinx, as in :class:`AdapterConfig`
DOCTEST = re.compile(r"^>>> .*(?:\n(?!$).*)*", re.MULTILINE)  # at the margin, up to a blank line


class DocstringExamples(Extension):
    """Rename `Example:` to the heading that griffe knows, fence doctests in the text, and make roles plain code."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite an object's docstring before it is parsed."""
        if obj.docstring:
            text = ROLE.sub(r"`\1`", HEADING.sub("Examples:", obj.docstring.value))
            obj.docstring.value = DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
