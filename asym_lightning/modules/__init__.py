"""Lightning modules, one file a task, on one base."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.modules.audio_classifier import AudioClassifier
    from asym_lightning.modules.backbone_options import BackboneOptions
    from asym_lightning.modules.base import AdapterModule, StepOutput
    from asym_lightning.modules.image_classifier import ImageClassifier
    from asym_lightning.modules.image_regressor import ImageRegressor
    from asym_lightning.modules.instruction_tuner import InstructionTuner
    from asym_lightning.modules.mmlu_evaluator import MMLUEvaluator
    from asym_lightning.modules.multi_label_image_classifier import MultiLabelImageClassifier
    from asym_lightning.modules.multi_label_text_classifier import MultiLabelTextClassifier
    from asym_lightning.modules.object_detector import ObjectDetector
    from asym_lightning.modules.preference_tuner import PreferenceTuner
    from asym_lightning.modules.question_answerer import QuestionAnswerer
    from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule
    from asym_lightning.modules.segmentation_module import SegmentationModule
    from asym_lightning.modules.sentence_encoder import SentenceEncoder
    from asym_lightning.modules.speech_recognizer import SpeechRecognizer
    from asym_lightning.modules.summarizer import Summarizer
    from asym_lightning.modules.text_classifier import TextClassifier
    from asym_lightning.modules.token_classifier import TokenClassifier
    from asym_lightning.modules.vision_language_tuner import VisionLanguageTuner
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = [
    "AdapterModule",
    "AudioClassifier",
    "BackboneOptions",
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
    "StepOutput",
    "Summarizer",
    "TextClassifier",
    "TokenClassifier",
    "TorchSchedule",
    "VisionLanguageTuner",
    "WarmupSchedule",
]
