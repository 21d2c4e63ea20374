"""Methods by what their code names, however they are defined."""

import functools

import torch
from torch import nn

from asym_lightning.core.sources import methods_naming


def wrapped(method):
    @functools.wraps(method)
    def call(*args):
        return method(*args)

    return call


def outside(self):
    return self.wanted


class Base(nn.Module):
    def inherited(self):
        return self.wanted


class Host(Base):
    def plain(self):
        """Has a line that is not indented:
        and is read all the same.
        """
        return self.wanted

    def other(self):
        return self.unwanted

    @property
    def read(self):
        return self.wanted

    @staticmethod
    def static(host):
        return host.wanted

    @wrapped
    @torch.no_grad()
    def wrapped(self):
        return (lambda: self.wanted)()

    borrowed = outside


def test_all_methods_that_name_it_are_found_and_no_others():
    found = sorted(method.name for method in methods_naming(Host, "wanted"))
    assert found == ["inherited", "outside", "plain", "read", "static", "wrapped"]


def test_a_class_that_was_made_at_run_time_has_none():
    namespace: dict = {"nn": nn}
    exec("class Made(nn.Module):\n    def forward(self):\n        return self.wanted\n", namespace)
    assert not list(methods_naming(namespace["Made"], "wanted"))
