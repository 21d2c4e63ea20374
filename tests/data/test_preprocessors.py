"""What makes inputs of texts, sound and pictures, where it can't be loaded."""

import pytest
from transformers import AutoProcessor

from asym_lightning.data.preprocessors import load_preprocessor


def test_a_package_that_a_processor_lacks_is_named(monkeypatch):
    def from_pretrained(source, **options):
        raise ImportError("Package `num2words` is required to run SmolVLM processor.\nMore.")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", from_pretrained)
    with pytest.raises(ImportError, match="the processor of 'smol' lacks a package: Package `num2words` is required"):
        load_preprocessor("processor", "smol")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no feature extractor in '.*', on the hub or as a local folder"):
        load_preprocessor("feature_extractor", str(tmp_path))
