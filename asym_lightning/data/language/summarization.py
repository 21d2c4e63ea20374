"""Documents and their summaries: XSum, CNN/DailyMail, or the user's own files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, Seed
from asym_lightning.core.messages import check_choice
from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import HubSplit, TextSource
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.tokens.tokenized_rows import Ragged, Texts, TokenizedRows
from asym_lightning.data.tokens.tokenized_text import TokenizedTextDataModule, as_texts

HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}


class SummarizationSet(NamedTuple):
    """Where a data set is on the hub, and which columns hold what."""

    repository: str
    name: str | None
    document: str
    summary: str


SUMMARIZATION_SETS: Mapping[str, SummarizationSet] = {
    "xsum": SummarizationSet("EdinburghNLP/xsum", None, "document", "summary"),
    "cnn_dailymail": SummarizationSet("abisee/cnn_dailymail", "3.0.0", "article", "highlights"),
}


class SummarizationDataModule(TokenizedTextDataModule):
    """Documents with summaries for `Summarizer`.

    A pair with an empty side teaches nothing and is left out, counted in a warning. Documents and summaries that are
    too long are cut; scores are of the whole summaries in any case.

    Batches hold `input_ids`, `attention_mask`, `labels` (the summary, -100 where there is padding) and `row`; those
    of evaluation also the texts `source` and `reference`.

    Args:
        dataset: `xsum` or `cnn_dailymail`, from the hub, for the splits that are not given; None reads the files.
        train: Training file, `.json` (an array), `.jsonl`, csv, tsv or parquet, or `hf:owner/name:split`.
        val: Validation file; None trains without validation.
        test: Test file.
        predict: File of documents to summarise, with or without summaries; None means the test data.
        document_column: Column of the documents in files.
        summary_column: Column of the summaries in files.
        prefix: What to put before each document, such as `"summarize: "` for T5.
        max_source_length: Longest document, in tokens; None means what the tokenizer's model allows.
        max_target_length: Longest summary to learn, in tokens.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If the data set is unknown, there is neither it nor a file, or a number is out of range.

    Example:
        >>> list(SummarizationDataModule(predict="news.jsonl").sources())
        ['predict']
    """

    def __init__(
        self,
        dataset: str | None = None,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        document_column: str = "document",
        summary_column: str = "summary",
        prefix: str = "",
        max_source_length: Count | None = 1024,
        max_target_length: Count = 128,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        loader: LoaderOptions = LoaderOptions(batch_size=8),
    ) -> None:
        super().__init__(
            tokenizer=tokenizer, max_length=max_source_length, cache_dir=cache_dir, seed=seed, loader=loader
        )
        if dataset is None and (train, val, test, predict) == (None,) * 4:
            raise ValueError("neither `dataset` nor one of the files `train`, `val`, `test` and `predict` is given.")
        if dataset is not None:
            check_choice("dataset", dataset, SUMMARIZATION_SETS)
        self.hub_set = None if dataset is None else SUMMARIZATION_SETS[dataset]
        self._sources = split_sources(train, val, test, predict, otherwise=_hub_splits(self.hub_set))
        self.document_column = document_column
        self.summary_column = summary_column
        self.prefix = prefix
        self.max_target_length = max_target_length

    def sources(self) -> Mapping[str, TextSource]:
        """Return the hub's splits, a file where one is given in place of it."""
        return self._sources

    def columns_of(self, split: str) -> tuple[str, str]:
        """Return the columns of documents and summaries in a split."""
        source = self._sources[split]
        if self.hub_set is not None and isinstance(source, HubSplit) and source.repository == self.hub_set.repository:
            return self.hub_set.document, self.hub_set.summary
        return self.document_column, self.summary_column

    def encoding(self, split: str) -> str:
        """Return columns, prefix and length of summaries, whether there must be some, and whether texts are kept."""
        kept = (split != "predict", split != "train")
        return repr((self.columns_of(split), self.prefix, self.max_target_length, *kept))

    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise documents and summaries; where they are not to train on, also keep their texts.

        Raises:
            ValueError: If a column or a text is missing.
        """
        documents, summaries = self._texts(split, table)
        rows = [
            row
            for row, document in enumerate(documents)
            if document.strip() and (summaries is None or summaries[row].strip())
        ]
        documents = [documents[row] for row in rows]
        summaries = None if summaries is None else [summaries[row] for row in rows]
        sequences, num_truncated = self.encode_texts([self.prefix + document for document in documents])
        facts = {"num_truncated": num_truncated, "num_dropped": len(table) - len(rows)}
        if summaries is not None:
            targets = (
                self.tokenizer(text_target=summaries, truncation=False, verbose=False)["input_ids"] if rows else []
            )
            facts["num_cut_summaries"] = sum(len(ids) > self.max_target_length for ids in targets)
            if facts["num_cut_summaries"]:  # truncation keeps the tokens that end a text
                targets = self.tokenizer(text_target=summaries, truncation=True, max_length=self.max_target_length)[
                    "input_ids"
                ]
            sequences["labels"] = Ragged.of(targets)
        sequences.pop("token_type_ids", None)
        texts = {"source": documents, "reference": summaries or [""] * len(rows)} if split != "train" else {}
        return TokenizedRows(sequences, texts={name: Texts.of(kept) for name, kept in texts.items()}, facts=facts)

    def nothing_left(self, num_rows: int) -> str:
        """Say that texts are empty."""
        return f"each of the {num_rows} pairs has an empty side: there is nothing to use."

    def _texts(self, split: str, table: TextTable) -> tuple[list[str], list[str] | None]:
        document, summary = self.columns_of(split)
        documents = as_texts(table.column(document), table)
        if split == "predict" and summary not in table.columns:
            return documents, None
        return documents, as_texts(table.column(summary), table)

    def remarks(self, split: str, rows: TokenizedRows) -> Iterator[str]:
        """Say what was cut and what was left out."""
        yield from super().remarks(split, rows)
        if dropped := rows.facts.get("num_dropped"):
            yield f"{dropped} pairs of {split} were left out: their document or summary is empty."
        if cut := rows.facts.get("num_cut_summaries"):
            yield (
                f"{cut} of the {len(rows)} summaries of {split} are longer than the {self.max_target_length} tokens of "
                "`max_target_length`; the loss takes their beginnings, scores take all of them."
            )

    def pad_values(self) -> dict[str, int]:
        """Pad labels with what the loss leaves out."""
        return {"labels": IGNORED}


def _hub_splits(hub_set: SummarizationSet | None) -> dict[str, TextSource]:
    if hub_set is None:
        return {}
    return {split: HubSplit(hub_set.repository, hub_set.name, name) for split, name in HUB_SPLITS.items()}
