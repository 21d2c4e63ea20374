"""What all data modules have in common: their loaders, and that Lightning can predict from and resize their batches."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.callbacks import BatchSizeFinder, Callback
from torch.utils.data import TensorDataset
from transformers import BartConfig, BartForConditionalGeneration, YolosConfig, YolosForObjectDetection

import asym_lightning.data
from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import (
    AlpacaDataModule,
    AudioClassificationDataModule,
    DetectionDataModule,
    DigitsDataModule,
    DomainBedDataModule,
    GLUEDataModule,
    ImageFolderDataModule,
    ImageTableDataModule,
    LoaderOptions,
    MMLUDataModule,
    MultiLabelTextDataModule,
    PreferenceDataModule,
    QuestionAnsweringDataModule,
    SegmentationDataModule,
    SentencePairDataModule,
    SpeechRecognitionDataModule,
    SummarizationDataModule,
    TextFilesDataModule,
    TokenClassificationDataModule,
    VisionLanguageDataModule,
)
from asym_lightning.data.base import BatchDataModule
from asym_lightning.modules import (
    AudioClassifier,
    ImageClassifier,
    ImageRegressor,
    InstructionTuner,
    MultiLabelTextClassifier,
    ObjectDetector,
    PreferenceTuner,
    QuestionAnswerer,
    SegmentationModule,
    SentenceEncoder,
    SpeechRecognizer,
    Summarizer,
    TextClassifier,
    TokenClassifier,
    VisionLanguageTuner,
)
from asym_lightning.modules.decoding import Decoding
from tests.audio_stand_ins import TONES, write_speech, write_tiny_ctc, write_tiny_wav2vec2, write_tones
from tests.image_stand_ins import write_boxed_images, write_images, write_masked_images
from tests.language_models import byte_tokenizer, tiny_llama, write_jsonl
from tests.picture_stand_ins import llava_processor, tiny_llava, write_questions
from tests.text_stand_ins import SENTENCES, write_glue_task, write_tiny_bert

RECORDS = [
    {
        "instruction": text,
        "output": "a",
        "text": text,
        "label": "x",
        "document": text,
        "summary": "a",
        "tokens": text.split(),
        "prompt": text,
        "chosen": "a",
        "rejected": "b",
        "question": "a",
        "context": text,
    }
    for text in SENTENCES
]
SHORT = Decoding(max_new_tokens=2)


def trainer(folder, *callbacks, **options):
    defaults = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **defaults, **options)


class Numbers(BatchDataModule):
    def train_dataloader(self):
        return self.data_loader(TensorDataset(torch.arange(40)), is_training=True, shuffle=True)

    def val_dataloader(self):
        return self.data_loader(TensorDataset(torch.arange(40)))


def test_loader_is_made_as_the_options_say():
    data = Numbers(LoaderOptions(batch_size=4, num_workers=1, prefetch_factor=3))
    loader = data.train_dataloader()
    assert (loader.batch_size, loader.num_workers, loader.persistent_workers, loader.prefetch_factor) == (4, 1, True, 3)
    assert data.val_dataloader().batch_size == 8


@pytest.mark.parametrize(("accelerator", "is_pinned"), [(CUDAAccelerator, True), (CPUAccelerator, False)])
def test_batches_are_pinned_where_the_trainer_has_a_gpu(accelerator, is_pinned):
    data = Numbers(LoaderOptions())
    assert data.train_dataloader().pin_memory is False
    data.trainer = SimpleNamespace(accelerator=accelerator())
    assert data.train_dataloader().pin_memory is is_pinned


def test_sizes_can_be_set_and_the_other_options_stay():
    data = Numbers(LoaderOptions(batch_size=4, persistent_workers=False))
    data.batch_size = 6
    assert data.loader == LoaderOptions(batch_size=6, persistent_workers=False)
    assert (data.batch_size, data.eval_batch_size) == (6, 12)
    data.eval_batch_size = 5
    assert (data.train_dataloader().batch_size, data.val_dataloader().batch_size) == (6, 5)
    with pytest.raises(ValueError, match=r"`batch_size` must be at least 1, not 0\."):
        data.batch_size = 0


def test_options_come_back_from_a_mapping():
    assert Numbers({"batch_size": 3}).loader == LoaderOptions(batch_size=3)


# Lightning's own features


class BatchSizes(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(len(batch[0]) if isinstance(batch, (list, tuple)) else len(batch["input_ids"]))


@pytest.mark.parametrize("mode", ["power", "binsearch"])
def test_batch_size_finder_sets_the_size_that_the_run_goes_on_with(tmp_path, mode):
    data = DigitsDataModule(num_train=200, loader=LoaderOptions(batch_size=10))
    module = ImageClassifier("vit_digits", 10, AdapterConfig(rank=2))
    sizes = BatchSizes()
    finder = BatchSizeFinder(mode=mode, steps_per_trial=1, init_val=4, max_trials=4, margin=0.0)
    trainer(tmp_path, finder, sizes, max_epochs=1, enable_checkpointing=False).fit(module, data)
    assert finder.optimal_batch_size == data.batch_size == data.loader.batch_size == 32
    assert sizes.seen == [32] * 6 + [8]


def test_batch_size_finder_resizes_batches_of_like_length(tmp_path):
    bert = str(write_tiny_bert(tmp_path / "bert"))
    rows = write_glue_task(tmp_path / "glue", "rte")
    data = GLUEDataModule("rte", rows, cache_dir=tmp_path / "cache", loader=LoaderOptions(batch_size=3))
    sizes = BatchSizes()
    finder = BatchSizeFinder(steps_per_trial=1, init_val=2, max_trials=2)
    run = trainer(tmp_path, finder, sizes, max_epochs=1, enable_checkpointing=False)
    run.fit(TextClassifier(bert, "rte"), data)
    assert finder.optimal_batch_size == data.batch_size == 4
    assert sizes.seen == [4] * 3
    assert run.train_dataloader.sampler.batch_size == 4


def digits(folder):
    return ImageClassifier("vit_digits", 10), DigitsDataModule(), 400


def image_folder(folder):
    for split in ("train", "test"):
        write_images(folder / split, ["ant", "bee"], per_class=5)
    data = ImageFolderDataModule(folder, image_size=8, mean=[0.5], std=[0.5], loader=LoaderOptions(2, 4))
    return ImageClassifier("vit_digits", 2), data, 10


def image_folder_with_workers(folder):
    module, data, num_rows = image_folder(folder)
    data.loader = LoaderOptions(2, 4, num_workers=1)
    return module, data, num_rows


def image_table(folder):
    write_images(folder, ["ant", "bee"], per_class=5)
    rows = [{"file": f"{name}/{number}.png", "value": number} for name in ("ant", "bee") for number in range(5)]
    data = ImageTableDataModule(
        predict=write_jsonl(folder / "rows.jsonl", rows), target="value", image_size=8, mean=[0.5], std=[0.5],
        loader=LoaderOptions(2, 4),
    )  # fmt: skip
    return ImageRegressor("vit_digits"), data, 10


def masked_images(folder):
    data = SegmentationDataModule(
        predict=write_masked_images(folder, count=5, size=12), label_names=["a", "b", "c"], image_size=8, mean=[0.5],
        std=[0.5], loader=LoaderOptions(2, 4),
    )  # fmt: skip
    return SegmentationModule("vit_digits", decoder_width=4), data, 5


def boxed_images(folder):
    config = YolosConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=[8, 8], patch_size=4,
        num_detection_tokens=2, num_labels=2,
    )  # fmt: skip
    file = write_boxed_images(folder / "boxes", count=5)
    data = DetectionDataModule(predict=file, label_names=["red", "blue"], image_size=8, loader=LoaderOptions(2, 4))
    return ObjectDetector(YolosForObjectDetection(config)), data, 5


def domainbed(folder):
    data = DomainBedDataModule("RotatedDigits", test_environments=["15", "75"], loader=LoaderOptions())
    return ImageClassifier("vit_digits", 10), data, 300 + 299


def glue(folder):
    bert, rows = str(write_tiny_bert(folder / "bert")), write_glue_task(folder / "glue", "mnli", count=9)
    return TextClassifier(bert, "mnli"), GLUEDataModule("mnli", rows, cache_dir=folder, loader=LoaderOptions(2)), 18


def text_files(folder):
    file = write_jsonl(folder / "rows.jsonl", RECORDS)
    data = TextFilesDataModule(predict=file, label_names=["x", "y"], cache_dir=folder, loader=LoaderOptions(2, 3))
    return TextClassifier(str(write_tiny_bert(folder / "bert"))), data, len(RECORDS)


def label_sets(folder):
    bert = str(write_tiny_bert(folder / "bert"))
    data = MultiLabelTextDataModule(
        predict=write_jsonl(folder / "rows.jsonl", RECORDS), label_names=["x", "y"], tokenizer=bert,
        cache_dir=folder, loader=LoaderOptions(2, 3),
    )  # fmt: skip
    return MultiLabelTextClassifier(bert), data, len(RECORDS)


def summarization(folder):
    tokenizer = byte_tokenizer()
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
        encoder_attention_heads=2, decoder_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=2,
    )  # fmt: skip
    file = write_jsonl(folder / "rows.jsonl", RECORDS)
    data = SummarizationDataModule(predict=file, tokenizer=tokenizer, cache_dir=folder, loader=LoaderOptions(2, 3))
    return Summarizer(BartForConditionalGeneration(config), AdapterConfig(rank=2), decoding=SHORT), data, len(RECORDS)


def alpaca(folder):
    tokenizer = byte_tokenizer()
    file = write_jsonl(folder / "rows.jsonl", RECORDS)
    data = AlpacaDataModule(predict=file, tokenizer=tokenizer, cache_dir=folder, loader=LoaderOptions(2, 3))
    model = tiny_llama(len(tokenizer), layers=1)
    return InstructionTuner(model, AdapterConfig(rank=2, targets=["q"]), decoding=SHORT), data, len(RECORDS)


def words(folder):
    bert = str(write_tiny_bert(folder / "bert"))
    data = TokenClassificationDataModule(
        predict=write_jsonl(folder / "rows.jsonl", RECORDS), label_names=["O", "B-X"], tokenizer=bert,
        cache_dir=folder, loader=LoaderOptions(2, 3),
    )  # fmt: skip
    return TokenClassifier(bert), data, len(RECORDS)


def questions(folder):
    bert = str(write_tiny_bert(folder / "bert"))
    file = write_jsonl(folder / "rows.jsonl", RECORDS)
    data = QuestionAnsweringDataModule(
        predict=file, tokenizer=bert, stride=4, cache_dir=folder, loader=LoaderOptions(2, 3)
    )
    return QuestionAnswerer(bert), data, len(RECORDS)


def sounds(folder):
    files = write_tones(folder / "sounds", 2)
    loader = LoaderOptions(2, 4)
    data = AudioClassificationDataModule(predict=files, label_names=sorted(TONES), loader=loader)
    return AudioClassifier(str(write_tiny_wav2vec2(folder / "encoder"))), data, 2 * len(TONES)


def speech(folder):
    data = SpeechRecognitionDataModule(predict=write_speech(folder / "test.csv", 5), loader=LoaderOptions(2, 3))
    return SpeechRecognizer(str(write_tiny_ctc(folder / "encoder")), AdapterConfig(rank=2)), data, 5


def embeddings(folder):
    bert = str(write_tiny_bert(folder / "bert"))
    file = write_jsonl(folder / "rows.jsonl", RECORDS)
    data = SentencePairDataModule(predict=file, tokenizer=bert, cache_dir=folder, loader=LoaderOptions(2, 3))
    return SentenceEncoder(bert, AdapterConfig(rank=2)), data, len(RECORDS)


def pictures(folder):
    processor, loader = llava_processor(), LoaderOptions(2, 3)
    data = VisionLanguageDataModule(predict=write_questions(folder / "p.jsonl", 5), processor=processor, loader=loader)
    return VisionLanguageTuner(tiny_llava(processor.tokenizer), AdapterConfig(rank=2), decoding=SHORT), data, 5


def preferences(folder):
    tokenizer = byte_tokenizer()
    file = write_jsonl(folder / "rows.jsonl", RECORDS)
    data = PreferenceDataModule(
        predict=file, template="alpaca", tokenizer=tokenizer, cache_dir=folder, loader=LoaderOptions(2, 3)
    )
    model = tiny_llama(len(tokenizer), layers=1)
    return PreferenceTuner(model, AdapterConfig(rank=2, targets=["q"])), data, len(RECORDS)


CASES = [
    digits, image_folder, image_folder_with_workers, image_table, masked_images, boxed_images, domainbed, glue,
    text_files, label_sets, words, questions, embeddings, summarization, alpaca, preferences, sounds, speech, pictures,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_row_is_predicted_once(tmp_path, case):
    if case is boxed_images:
        pytest.importorskip("pycocotools")
    module, data, num_rows = case(tmp_path)
    predicted = trainer(tmp_path).predict(module, data)
    loaders = predicted if isinstance(predicted[0], list) and isinstance(predicted[0][0], torch.Tensor) else [predicted]
    assert sum(len(batch) for batches in loaders for batch in batches) == num_rows


def test_every_data_module_predicts_or_says_why_not(tmp_path):
    modules = {name for name in asym_lightning.data.__all__ if name.endswith("DataModule")}
    for case in CASES:
        (tmp_path / case.__name__).mkdir()
        modules.discard(type(case(tmp_path / case.__name__)[1]).__name__)
    assert modules == {"MMLUDataModule"}
    with pytest.raises(ValueError, match="MMLU is for `test` only: there is nothing to predict in it"):
        MMLUDataModule(tmp_path).setup("predict")
