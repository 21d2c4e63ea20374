"""Classes by their bare names."""

import importlib
import subprocess
import sys

import pytest

from asym_lightning.cli import class_names
from asym_lightning.core.lazy import imported_names


@pytest.mark.parametrize("key", class_names.PLACES)
def test_every_name_leads_to_its_class(key):
    for name in class_names.class_names(key):
        module, _, found = class_names.class_path(key, name).rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), found), type)


def test_tasks_are_what_a_config_can_train():
    assert class_names.class_names("model") == [
        "AudioClassifier",
        "ImageClassifier",
        "ImageRegressor",
        "InstructionTuner",
        "MMLUEvaluator",
        "MultiLabelImageClassifier",
        "MultiLabelTextClassifier",
        "ObjectDetector",
        "PreferenceTuner",
        "QuestionAnswerer",
        "SegmentationModule",
        "SentenceEncoder",
        "SpeechRecognizer",
        "Summarizer",
        "TextClassifier",
        "TokenClassifier",
        "VisionLanguageTuner",
    ]


def test_classes_of_this_package_come_first():
    names = class_names.class_names("trainer.callbacks")
    assert names.index("RunRecord") < names.index("EarlyStopping")


def test_unknown_key_and_unknown_name_have_none():
    assert class_names.class_names("model.backbone") == []
    assert class_names.class_path("model", "Nonsense") is None


@pytest.mark.parametrize("package", ["modules", "data", "callbacks", "strategies"])
def test_every_class_that_a_package_offers_is_imported_when_a_text_names_it(package):
    for name, module in imported_names(f"asym_lightning.{package}").items():
        assert class_names.modules_named(f"x: {{class_path: {name}}}") == [module]


@pytest.mark.parametrize("text", ["", "model: {class_path: my_package.Regressor}", "ImageClassifierX"])
def test_text_that_names_none_imports_none(text):
    assert class_names.modules_named(text) == []


def test_what_a_config_does_not_name_is_not_imported():
    program = """
import sys
from asym_lightning.cli.class_names import import_named
import_named("model: {class_path: ImageClassifier}")
assert "asym_lightning.modules.image_classifier" in sys.modules
assert "asym_lightning.modules.text_classifier" not in sys.modules
assert "asym_lightning.data.glue" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
