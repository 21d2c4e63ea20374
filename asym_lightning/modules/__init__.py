"""Lightning modules, one file a task, on one base."""

from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import AdapterModule, StepOutput
from asym_lightning.modules.image_classifier import ImageClassifier
from asym_lightning.modules.instruction_tuner import InstructionTuner
from asym_lightning.modules.mmlu_evaluator import MMLUEvaluator
from asym_lightning.modules.schedule import WarmupSchedule
from asym_lightning.modules.summarizer import Summarizer
from asym_lightning.modules.text_classifier import TextClassifier

__all__ = [
    "AdapterModule",
    "BackboneOptions",
    "ImageClassifier",
    "InstructionTuner",
    "MMLUEvaluator",
    "StepOutput",
    "Summarizer",
    "TextClassifier",
    "WarmupSchedule",
]
