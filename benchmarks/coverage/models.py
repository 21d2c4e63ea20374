"""Every model of both libraries, by a name such as ``timm:test_vit`` or ``transformers:bert``."""

from __future__ import annotations

from benchmarks.coverage import timm_models, transformers_models
from benchmarks.coverage.subject import Subject, make_generic


def subject(name: str) -> Subject:
    """Build a model with random weights, small, and what it is called with.

    Raises:
        RuntimeError: It could not be built small, or nothing that was tried to call it with works.
    """
    library, _, entry = name.partition(":")
    built = {"timm": timm_models, "transformers": transformers_models}[library].subject(entry)
    make_generic(built.model)
    built.model.train().eval()  # what some kept of the weights that they had
    return Subject(name, built.model, built.calls)
