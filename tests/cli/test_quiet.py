"""What a run does not say, and what it must."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from asym_lightning.cli import main
from asym_lightning.cli.quiet import hush_progress, hushed, show_plain_warnings

QUICKSTART = ["--config", str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")]
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.log_every_n_steps", "null"]
RANK_ZERO = "lightning.pytorch.utilities.rank_zero"
NOISE = [
    "Tip:",
    "TPU",
    "HPU",
    "GPU available",
    "is deprecated",
    "The dirpath has changed",
    "logging interval",
    "to estimate number of stepping batches",
    "stopped: `max_epochs",
    "FLOPs",
    "MetricCollection",
    "exists and is not empty",
]


def give(message, category, module):
    """Give a warning that blames a module."""
    warnings.warn_explicit(message, category, f"{module.replace('.', '/')}.py", 1, module=module)


@pytest.mark.parametrize(
    ("message", "category", "module"),
    [
        ("The dirpath has changed from 'a' to 'b'", UserWarning, "lightning.pytorch.callbacks.model_checkpoint"),
        ("The number of training batches (2) is smaller than the logging interval", UserWarning, "lightning.pytorch.x"),
        ("`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, "lightning.pytorch.utilities._pytree"),
        ("old", DeprecationWarning, "timm.layers"),
    ],
)
def test_noise_of_dependencies_is_left_out(message, category, module):
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        with hushed():
            give(message, category, module)
    assert given == []


@pytest.mark.parametrize(
    ("message", "category", "module"),
    [
        ("The dirpath has changed from 'a' to 'b'", UserWarning, "my_project.module"),
        ("old", DeprecationWarning, "my_project.module"),
        ("old", FutureWarning, "torchy.module"),
        ("does not have many workers", UserWarning, "lightning.pytorch.trainer"),
        ("overflow", RuntimeWarning, "torch.nn.functional"),
    ],
)
def test_every_other_warning_is_shown(message, category, module):
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        with hushed():
            give(message, category, module)
    assert [str(one.message) for one in given] == [message]


def test_lines_are_left_out_by_their_beginning(caplog):
    # Whatever level another test has left Lightning's loggers at.
    with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, RANK_ZERO), hushed():
        logging.getLogger(RANK_ZERO).info("TPU available: False, using: 0 TPU cores")
        logging.getLogger(RANK_ZERO).info("\nDetected KeyboardInterrupt, attempting graceful shutdown ...")
        logging.getLogger(RANK_ZERO).info("GPU available: True (cuda), used: False")
        logging.getLogger("my_project").info("TPU available: False")
    assert caplog.messages == ["GPU available: True (cuda), used: False", "TPU available: False"]


def test_levels_and_filters_are_what_they_were_when_the_context_ends():
    before = logging.getLogger("lightning.pytorch").level, list(warnings.filters)
    with hushed():
        hush_progress()
        assert logging.getLogger(RANK_ZERO).getEffectiveLevel() == logging.WARNING
    assert (logging.getLogger("lightning.pytorch").level, list(warnings.filters)) == before
    assert logging.getLogger(RANK_ZERO).filters == []


def fit(folder, *options):
    """Run the quickstart in a process of its own, as a user does, and return what it printed."""
    command = [sys.executable, "-c", "import sys; from asym_lightning.cli import main; sys.exit(main(sys.argv[1:]))"]
    run = subprocess.run([*command, "fit", *QUICKSTART, *SHORT, *options], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout, run.stderr


def test_run_and_its_resumption_say_nothing_of_other_products_or_deprecations(tmp_path):
    summary = ["--trainer.enable_model_summary", "true"]
    first = fit(tmp_path, *summary)
    checkpoint = "runs/quickstart/version_0/checkpoints/best.ckpt"
    second = fit(tmp_path, *summary, "--trainer.max_epochs", "2", "--ckpt_path", checkpoint)
    for text in (*first, *second):
        assert [noise for noise in NOISE if noise in text] == []
    assert "trains 14,794 of 692,842 parameters (2.14%)" in first[0]
    metrics = (tmp_path / "runs/quickstart/version_0/metrics.csv").read_text()
    assert "train/loss" in metrics.splitlines()[0]  # though an epoch has 2 batches, and the interval is 50


def test_quiet_run_says_what_came_out_and_nothing_else(tmp_path):
    out, err = fit(tmp_path, "--quiet")
    assert err == ""
    names = [line.split()[0] for line in out.splitlines()]
    scores = ["test/accuracy", "test/calibration_error", "test/loss", "test/macro_f1"]
    assert names == [*scores, "time", "trained", "checkpoint", "adapter"]


def test_help_names_the_option(capsys):
    assert main(["fit", "--help"]) == 0
    assert "--quiet" in capsys.readouterr().out


def test_warnings_of_this_package_are_plain_sentences_and_those_of_others_have_their_line():
    before = warnings.formatwarning
    with hushed():
        show_plain_warnings()
        own = warnings.formatwarning("The head is fresh.", UserWarning, sys.modules["asym_lightning"].__file__, 3)
        other = warnings.formatwarning("Mind.", UserWarning, "/home/me/project.py", 3)
    assert own == "warning: The head is fresh.\n" and "project.py:3" in other
    assert warnings.formatwarning is before
