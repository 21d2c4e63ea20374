"""What is asked of clients, asked of a small project of our own; `python -m tests.foreign` asks those of others."""

from __future__ import annotations

import pytest

from tests.callbacks.foreign import Foreign, loader
from tests.foreign.__main__ import HERE, REQUIREMENTS
from tests.foreign.life import Project, resumed, whole


class Client(Project):
    backbone = "net"
    heads = ("head",)
    adapter = {"targets": ["first", "second"]}

    def __init__(self, num_rows=40):
        self.num_rows = num_rows

    def module(self):
        return Foreign()

    def train_data(self):
        return loader(self.num_rows, shuffle=True)

    def other_data(self):
        return loader()


def test_a_client_lives_its_life(tmp_path):
    assert whole(Client(), tmp_path)["adapters"] == 2
    facts = resumed(Client(), tmp_path)
    assert facts["resumed_off"] == facts["ckpt_off"] == facts["adapter_off"] == 0.0


def test_a_client_whose_data_are_others_in_a_resumed_run_is_found_out(tmp_path):
    whole(Client(), tmp_path)
    with pytest.raises(AssertionError, match="resumed_off is"):
        resumed(Client(num_rows=80), tmp_path)


def test_every_project_has_a_client():
    assert sorted(REQUIREMENTS) == sorted(path.stem for path in (HERE / "projects").glob("*.py"))
