"""What is said where a package of an extra is missing."""

import sys

import pytest

from asym_lightning.core.extras import check_installed, extra_named


def test_a_package_that_is_there_passes():
    check_installed("timm", "ImageClassifier")


@pytest.mark.parametrize(
    ("package", "end"),
    [("timm", "needs timm: pip install 'asym-lightning[vision]'."),
     ("rouge_score", "needs rouge-score: pip install 'asym-lightning[text]'.")],
)  # fmt: skip
def test_a_package_that_is_missing_is_named_with_what_to_install(monkeypatch, package, end):
    monkeypatch.setitem(sys.modules, package, None)
    for attempt in (lambda: check_installed(package, "Thing"), lambda: __import__(f"{package}.part")):
        with pytest.raises(ModuleNotFoundError) as caught, extra_named("Thing"):
            attempt()
        assert str(caught.value) == f"`Thing` {end}"


def test_another_module_that_is_missing_is_left_alone():
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"), extra_named("Thing"):
        import no_such_module  # noqa: F401
