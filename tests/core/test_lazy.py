"""Packages that import what they offer when it is asked for."""

import subprocess
import sys
from importlib import import_module

import pytest

from asym_lightning.core.lazy import imported_names

PACKAGES = [
    f"asym_lightning.{name}"
    for name in ("adapters", "analysis", "callbacks", "data", "modules", "sharding", "strategies")
]


@pytest.mark.parametrize("package", PACKAGES)
def test_lazy_package_offers_what_it_lists(package):
    module = import_module(package)
    assert sorted(module.__all__) == sorted(imported_names(package))
    assert set(module.__all__) <= set(dir(module))
    for name, place in imported_names(package).items():
        assert getattr(module, name) is getattr(import_module(place), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_name_is_an_ordinary_attribute_error(package):
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'Nonsense'"):
        import_module(package).Nonsense  # noqa: B018


def test_package_imports_what_is_asked_for_and_no_more():
    program = """
import sys
import asym_lightning.data
assert not any(name.startswith("asym_lightning.data.") for name in sys.modules)
asym_lightning.data.DigitsDataModule
assert "asym_lightning.data.images.digits" in sys.modules
assert "asym_lightning.data.texts.glue" not in sys.modules
assert "DigitsDataModule" in vars(asym_lightning.data)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
