"""What is seen, and what rests, while torch and Lightning are imported."""

import atexit
import gc
import io
import sys

import pytest
import torch

from asym_lightning.cli.starting import starting


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminal_shows_that_the_program_starts_and_no_more_when_it_has(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with starting():
        assert sys.stderr.getvalue() == "starting ...\r"
    assert sys.stderr.getvalue().endswith(f"\r{' ' * len('starting ...')}\r")


def test_files_and_other_processes_are_told_nothing(monkeypatch, capsys):
    with starting():
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("RANK", "1")
    with starting():
        assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("is_on", [True, False])
def test_garbage_collector_rests_and_is_as_before_afterwards(is_on, monkeypatch):
    (gc.enable if is_on else gc.disable)()
    try:
        with pytest.raises(ImportError), starting():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is is_on
    finally:
        gc.enable()


@pytest.mark.parametrize("was_there", [True, False])
def test_what_is_imported_is_never_looked_at_again_but_where_torch_was_there_before(was_there, monkeypatch):
    (monkeypatch.setitem if was_there else monkeypatch.delitem)(sys.modules, "torch", *[torch] * was_there)
    before, at_exit = gc.get_freeze_count(), []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    try:
        with starting():
            pass
        assert (gc.get_freeze_count() == before) is was_there
        assert at_exit == [gc.unfreeze] * (not was_there)  # what is not looked at when a program ends counts as leaked
    finally:
        gc.unfreeze()
