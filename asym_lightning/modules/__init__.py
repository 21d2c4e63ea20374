"""Lightning modules, one file a task, on one base."""

from asym_lightning.modules.base import AdapterModule, StepOutput
from asym_lightning.modules.image_classifier import ImageClassifier
from asym_lightning.modules.schedule import WarmupSchedule

__all__ = ["AdapterModule", "ImageClassifier", "StepOutput", "WarmupSchedule"]
