"""The nine tasks of GLUE, from the hub or from files in their original layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, Seed
from asym_lightning.core.messages import check_choice
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.text_source import HubSplit, LocalFile, TextSource, local_file
from asym_lightning.data.texts.labelled_text import LabelledColumns, LabelledTextDataModule

GLUETaskName = Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
HUB_REPOSITORY = "nyu-mll/glue"
_COLA_HEADER = ("source", "label", "note", "sentence")  # the one task whose files have no header


@dataclass(frozen=True)
class GLUETask:
    """One task.

    Args:
        folder: Name of its folder in the original distribution.
        texts: Columns of the one text or the two, on the hub.
        file_texts: The same in the original files.
        file_label: Column of the label in the original files; on the hub it is `label`.
        label_names: Classes in the hub's order; None for regression.
        file_header: Columns of the training and development files where they have no header.
    """

    folder: str
    texts: tuple[str, ...]
    label_names: tuple[str, ...] | None
    file_texts: tuple[str, ...]
    file_label: str = "label"
    file_header: tuple[str, ...] | None = None


_PAIR = ("sentence1", "sentence2")
_QUESTIONS = ("question1", "question2")
_ENTAILMENT = ("entailment", "not_entailment")
GLUE_TASKS: Mapping[str, GLUETask] = {
    "cola": GLUETask("CoLA", ("sentence",), ("unacceptable", "acceptable"), ("sentence",), file_header=_COLA_HEADER),
    "sst2": GLUETask("SST-2", ("sentence",), ("negative", "positive"), ("sentence",)),
    "mrpc": GLUETask("MRPC", _PAIR, ("not_equivalent", "equivalent"), ("#1 String", "#2 String"), "Quality"),
    "qqp": GLUETask("QQP", _QUESTIONS, ("not_duplicate", "duplicate"), _QUESTIONS, "is_duplicate"),
    "stsb": GLUETask("STS-B", _PAIR, None, _PAIR, "score"),
    "mnli": GLUETask(
        "MNLI", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), _PAIR, "gold_label"
    ),
    "qnli": GLUETask("QNLI", ("question", "sentence"), _ENTAILMENT, ("question", "sentence")),
    "rte": GLUETask("RTE", _PAIR, _ENTAILMENT, _PAIR),
    "wnli": GLUETask("WNLI", _PAIR, ("not_entailment", "entailment"), _PAIR),
}


class GLUEDataModule(LabelledTextDataModule):
    """A task of GLUE (Wang et al. 2019).

    The labels of GLUE's test sets are hidden. So `val` and `test` are both the development set, on which scores are
    published, and `predict` is the test set where there is one (always on the hub), else the development set. MNLI
    has two development sets: the metrics of each are named after it, such as `val/matched/accuracy`.

    Args:
        task: One of cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli.
        folder: Folder with the task's files in the original layout (`train.tsv`, `dev.tsv`, `test.tsv`; for MNLI
            `dev_matched.tsv` and so on), or the folder above it; None takes the task from the hub.
        skip_bad_rows: Leave out rows that cannot be read, with a warning that counts them, instead of an error.
            The original training file of QQP has some.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest sequence, in tokens; longer ones are truncated, with one warning that counts them. None
            means what the tokenizer's model allows.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If the task is unknown or a number is out of range.
        FileNotFoundError: When loading, if the folder lacks a file.

    Example:
        >>> GLUEDataModule("rte").label_names
        ('entailment', 'not_entailment')
    """

    def __init__(
        self,
        task: str,
        folder: str | Path | None = None,
        skip_bad_rows: bool = False,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = 128,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(),
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            max_length=max_length,
            cache_dir=cache_dir,
            seed=seed,
            num_train=num_train,
            loader=loader,
        )
        self.task = glue_task(task)
        self.task_name = task
        self.folder = None if folder is None else Path(folder).expanduser()
        self.skip_bad_rows = skip_bad_rows
        self.label_names = self.task.label_names
        self.score_range = (0.0, 5.0) if task == "stsb" else None

    def sources(self) -> Mapping[str, TextSource]:
        """Return where training, development and test set are."""
        return self._hub_sources() if self.folder is None else self._file_sources(self.folder)

    def columns_of(self, split: str) -> LabelledColumns:
        """Return which columns of a split hold what."""
        texts, label = self.task.texts, "label"
        if self.folder is not None:
            texts, label = self.task.file_texts, self.task.file_label
        return LabelledColumns(texts, label, is_label_required=not split.startswith("predict"))

    def _hub_sources(self) -> dict[str, TextSource]:
        sources: dict[str, TextSource] = {"train": HubSplit(HUB_REPOSITORY, self.task_name, "train")}
        for split, name in {"val": "validation", "test": "validation", "predict": "test"}.items():
            for suffix, of_set in self._sets().items():
                sources[f"{split}{of_set}"] = HubSplit(HUB_REPOSITORY, self.task_name, f"{name}{suffix}")
        return sources

    def _file_sources(self, folder: Path) -> dict[str, TextSource]:
        if not (folder / "train.tsv").is_file() and (folder / self.task.folder).is_dir():
            folder = folder / self.task.folder
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r} with the files of {self.task.folder}.")
        header = self.task.file_header
        sources: dict[str, TextSource] = {"train": self._file(folder, "train.tsv", header)}
        for split in ("val", "test"):
            for suffix, of_set in self._sets().items():
                sources[f"{split}{of_set}"] = self._file(folder, f"dev{suffix}.tsv", header)
        for suffix, of_set in self._sets().items():
            has_test = local_file(folder, [f"test{suffix}.tsv"]) is not None
            sources[f"predict{of_set}"] = (
                self._file(folder, f"test{suffix}.tsv", None) if has_test else sources[f"val{of_set}"]
            )
        return sources

    def _file(self, folder: Path, name: str, header: tuple[str, ...] | None) -> LocalFile:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"the folder {str(folder)!r} of {self.task.folder} has no {name}.")
        return LocalFile(folder / name, header, self.skip_bad_rows)

    def _sets(self) -> dict[str, str]:
        """Suffixes of file and split names, and of this module's split names, for each development set."""
        if self.task_name == "mnli":
            return {"_matched": "/matched", "_mismatched": "/mismatched"}
        return {"": ""}


def glue_task(name: str) -> GLUETask:
    """Return a task by name.

    Raises:
        ValueError: If there is none of this name; the message suggests the nearest.

    Example:
        >>> glue_task("rte").label_names
        ('entailment', 'not_entailment')
    """
    check_choice("task", name, GLUE_TASKS)
    return GLUE_TASKS[name]
