"""Lightning data modules, one file a data set family."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.data.alpaca import AlpacaDataModule
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
    from asym_lightning.data.summarization import SummarizationDataModule
    from asym_lightning.data.text_files import TextFilesDataModule
    from asym_lightning.data.token_classification import TokenClassificationDataModule
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = [
    "AlpacaDataModule",
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
    "SummarizationDataModule",
    "TextFilesDataModule",
    "TokenClassificationDataModule",
]
