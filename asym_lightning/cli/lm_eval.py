"""`asym-lightning lm_eval`: the program of lm-evaluation-harness, which knows the model `asym` then."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from asym_lightning.cli.starting import starting
from asym_lightning.core.extras import extra_named


def main(arguments: Sequence[str]) -> int:
    """Run the harness's own program with all that it is given, but for `--debug`, and return its exit code."""
    with starting(), extra_named("lm_eval"):
        from lm_eval.__main__ import cli_evaluate

        import asym_lightning.cli.writing.harness_model  # noqa: F401  # which makes `asym` known
    before = sys.argv  # the harness takes its options from nowhere else
    sys.argv = ["lm_eval", *(argument for argument in arguments if argument != "--debug")]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
    return 0
