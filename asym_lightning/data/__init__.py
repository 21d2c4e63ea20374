"""Lightning data modules, one file a data set family."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.data.alpaca import AlpacaDataModule
    from asym_lightning.data.audio_classification import AudioClassificationDataModule
    from asym_lightning.data.detection import DetectionDataModule
    from asym_lightning.data.digits import DigitsDataModule
    from asym_lightning.data.domainbed import DomainBedDataModule
    from asym_lightning.data.glue import GLUEDataModule
    from asym_lightning.data.image_folder import ImageFolderDataModule
    from asym_lightning.data.image_table import ImageTableDataModule
    from asym_lightning.data.loader_options import LoaderOptions
    from asym_lightning.data.mmlu import MMLUDataModule
    from asym_lightning.data.multi_label_text import MultiLabelTextDataModule
    from asym_lightning.data.preferences import PreferenceDataModule
    from asym_lightning.data.question_answering import QuestionAnsweringDataModule
    from asym_lightning.data.segmentation import SegmentationDataModule
    from asym_lightning.data.sentence_pairs import SentencePairDataModule
    from asym_lightning.data.speech_recognition import SpeechRecognitionDataModule
    from asym_lightning.data.summarization import SummarizationDataModule
    from asym_lightning.data.text_files import TextFilesDataModule
    from asym_lightning.data.token_classification import TokenClassificationDataModule
    from asym_lightning.data.vision_language import VisionLanguageDataModule
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
