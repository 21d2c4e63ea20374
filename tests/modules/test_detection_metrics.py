import importlib.util

import pytest

from asym_lightning.modules.detection_metrics import DetectionPrecision


def test_what_counts_boxes_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    needs = r"`ObjectDetector` needs pycocotools: pip install 'asym-lightning\[detection\]'"
    with pytest.raises(ModuleNotFoundError, match=needs):
        DetectionPrecision()
