"""Lightning data modules, one file a data set family."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.data.audio.audio_classification import AudioClassificationDataModule
    from asym_lightning.data.audio.speech_recognition import SpeechRecognitionDataModule
    from asym_lightning.data.images.detection import DetectionDataModule
    from asym_lightning.data.images.digits import DigitsDataModule
    from asym_lightning.data.images.domainbed import DomainBedDataModule
    from asym_lightning.data.images.image_folder import ImageFolderDataModule
    from asym_lightning.data.images.image_table import ImageTableDataModule
    from asym_lightning.data.images.segmentation import SegmentationDataModule
    from asym_lightning.data.language.alpaca import AlpacaDataModule
    from asym_lightning.data.language.mmlu import MMLUDataModule
    from asym_lightning.data.language.preferences import PreferenceDataModule
    from asym_lightning.data.language.summarization import SummarizationDataModule
    from asym_lightning.data.language.vision_language import VisionLanguageDataModule
    from asym_lightning.data.loader_options import LoaderOptions
    from asym_lightning.data.texts.glue import GLUEDataModule
    from asym_lightning.data.texts.multi_label_text import MultiLabelTextDataModule
    from asym_lightning.data.texts.question_answering import QuestionAnsweringDataModule
    from asym_lightning.data.texts.sentence_pairs import SentencePairDataModule
    from asym_lightning.data.texts.text_files import TextFilesDataModule
    from asym_lightning.data.texts.token_classification import TokenClassificationDataModule
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = [
    "AlpacaDataModule",
    "AudioClassificationDataModule",
    "DetectionDataModule",
    "DigitsDataModule",
    "DomainBedDataModule",
    "GLUEDataModule",
    "ImageFolderDataModule",
    "ImageTableDataModule",
    "LoaderOptions",
    "MMLUDataModule",
    "MultiLabelTextDataModule",
    "PreferenceDataModule",
    "QuestionAnsweringDataModule",
    "SegmentationDataModule",
    "SentencePairDataModule",
    "SpeechRecognitionDataModule",
    "SummarizationDataModule",
    "TextFilesDataModule",
    "TokenClassificationDataModule",
    "VisionLanguageDataModule",
]
