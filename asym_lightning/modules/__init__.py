"""Lightning modules, one file a task, on one base."""

from asym_lightning.modules.base import AdapterModule, StepOutput
from asym_lightning.modules.image_classifier import ImageClassifier
from asym_lightning.modules.schedule import WarmupSchedule
from asym_lightning.modules.text_classifier import TextClassifier

__all__ = ["AdapterModule", "ImageClassifier", "StepOutput", "TextClassifier", "WarmupSchedule"]
