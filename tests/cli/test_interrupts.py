"""Signals at any instant: one ends the command, more of them change nothing."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import asym_lightning.cli as cli
from asym_lightning.cli.interrupts import heard, interruptible, leaving_termination_to_trainer
from tests.lifecycle.kill_programs import SETTINGS
from tests.lifecycle.killed_run import Run, timed

NUM_SIGNALS = int(os.environ.get("ASYM_SIGNALS", "4"))


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_raised_and_further_ones_are_not(number):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            interrupt(number)
        for _ in range(5):
            interrupt(number)
            interrupt(signal.SIGINT)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == handlers


def test_one_that_was_dropped_comes_again(monkeypatch):
    monkeypatch.setattr("asym_lightning.cli.interrupts._REMINDER", 0.05)
    with pytest.raises(KeyboardInterrupt), interruptible():
        with suppress(KeyboardInterrupt):  # as a destructor does
            interrupt()
        time.sleep(1)


def test_one_that_was_heard_does_not_come_again(monkeypatch):
    monkeypatch.setattr("asym_lightning.cli.interrupts._REMINDER", 0.05)
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        heard()
        time.sleep(0.2)


def test_while_lightning_ends_a_run_nobody_is_reminded(monkeypatch):
    monkeypatch.setattr("asym_lightning.cli.interrupts._REMINDER", 0.05)
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(0.2)
        heard()
        signal.signal(signal.SIGINT, ours)


def test_the_trainer_finds_no_handler_of_termination():
    with interruptible():
        with leaving_termination_to_trainer():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_a_command_that_is_interrupted_says_so(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run", lambda arguments: interrupt())
    assert cli.main(["fit"]) == cli.EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_one_that_comes_while_an_error_is_reported_ends_the_command_too(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run", lambda arguments: 1 / 0)
    monkeypatch.setattr(cli, "report_error", lambda message: interrupt())
    assert cli.main(["fit"]) == cli.EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_ends_with_one_line_however_many_come(number, tmp_path):
    command = [sys.executable, "-m", "asym_lightning", "fit", "--config", "quickstart", "--trainer.max_epochs", "1000"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    time.sleep(1.5)
    for _ in range(5):
        process.send_signal(number)
        time.sleep(0.02)
    _, printed = process.communicate(timeout=60)
    # Python ends itself by SIGINT, of which a shell says 130 too, where the interrupt was raised while a string was
    # executed, as dataclasses do. Before the program's own first line the signal ends it.
    assert process.returncode in (cli.EXIT_INTERRUPTED, -signal.SIGINT, -number)
    assert "Traceback" not in printed or process.returncode == -number


@pytest.mark.slow
def test_at_any_instant_two_signals_end_a_run_with_one_line_and_it_can_go_on(tmp_path):
    """At instants spread over the whole of a run; ASYM_SIGNALS says at how many."""
    whole = Run(SETTINGS["quickstart"], tmp_path / "whole")
    took = sum(timed(whole)[part] for part in ("start-up", "end")) + 0.5
    for number in range(NUM_SIGNALS):
        run = Run(SETTINGS["quickstart"], tmp_path / str(number))
        sent = (signal.SIGINT, signal.SIGTERM)[number % 2]
        processes = run.start()
        while not run.printed.exists():  # before that it is multiprocessing's
            time.sleep(0.01)
        time.sleep(took * (number + 0.5) / NUM_SIGNALS)
        for _ in range(2):
            with suppress(ProcessLookupError):
                os.kill(processes[0].pid or 0, sent)
            time.sleep(0.02)
        codes = run.ended(processes)
        printed = run.printed.read_text() if run.printed.exists() else ""
        print(f"{number:>3} {sent.name}: exit code {codes}, {run.whole()[:1]}", flush=True)
        # -SIGINT as above; before the program's first line Python ends it.
        assert codes[0] in (0, cli.EXIT_INTERRUPTED, -signal.SIGINT, -sent), printed
        assert "Traceback" not in printed or codes[0] == -sent, printed
        ends = sum(line.startswith(("interrupted", "error")) for line in printed.splitlines())
        assert ends == (codes[0] == cli.EXIT_INTERRUPTED) or (ends == 1 and codes[0] == -signal.SIGINT)
        assert run.unfinished() == []
        run.complete()
