"""Lightning modules, one file a task, on one base."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.modules.audio.audio_classifier import AudioClassifier
    from asym_lightning.modules.audio.speech_recognizer import SpeechRecognizer
    from asym_lightning.modules.backbone_options import BackboneOptions
    from asym_lightning.modules.base import AdapterModule, StepOutput
    from asym_lightning.modules.images.image_classifier import ImageClassifier
    from asym_lightning.modules.images.image_regressor import ImageRegressor
    from asym_lightning.modules.images.multi_label_image_classifier import MultiLabelImageClassifier
    from asym_lightning.modules.images.object_detector import ObjectDetector
    from asym_lightning.modules.images.segmentation_module import SegmentationModule
    from asym_lightning.modules.language.instruction_tuner import InstructionTuner
    from asym_lightning.modules.language.mmlu_evaluator import MMLUEvaluator
    from asym_lightning.modules.language.preference_tuner import PreferenceTuner
    from asym_lightning.modules.language.summarizer import Summarizer
    from asym_lightning.modules.language.vision_language_tuner import VisionLanguageTuner
    from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule
    from asym_lightning.modules.texts.multi_label_text_classifier import MultiLabelTextClassifier
    from asym_lightning.modules.texts.question_answerer import QuestionAnswerer
    from asym_lightning.modules.texts.sentence_encoder import SentenceEncoder
    from asym_lightning.modules.texts.text_classifier import TextClassifier
    from asym_lightning.modules.texts.token_classifier import TokenClassifier
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
