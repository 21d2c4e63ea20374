"""MMLU: multiple-choice questions of 57 subjects, from the hub or from files in the original layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, Names, as_names
from asym_lightning.core.messages import check_choice, did_you_mean
from asym_lightning.data.language.mmlu_prompts import LETTERS, PROMPTS, PromptFormat, Question
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.text_source import HubSplit, LocalFile, TextSource
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.tokens.tokenized_rows import Ragged, TokenizedRows
from asym_lightning.data.tokens.tokenized_text import TokenizedTextDataModule

HUB_REPOSITORY = "cais/mmlu"
_HEADER = ("question", *LETTERS, "answer")  # the files have none
_COLUMNS = ("split", "subject", *_HEADER, "place")


class MMLUDataModule(TokenizedTextDataModule):
    """The questions of MMLU (Hendrycks et al. 2021) as prompts, for `MMLUEvaluator`.

    Before each question come the first `num_shots` questions of the subject's `dev` split with their answers. A prompt
    longer than `max_length` loses shots one by one; a question that is too long by itself is left out and counted, in
    a warning and in the results.

    A batch has questions of one subject with the same shots. Tokens that all of its subject's prompts begin with are
    given once, so that the model need read them but once: they are what a prompt mostly consists of.

    Batches hold `prefix` (length of what is common), `input_ids` and `attention_mask` (batch, length of the rest,
    padded on the right), `answer` (batch,), the number of the right letter, `row`, `subject` (a name), `group` (a
    number that changes when `prefix` does), `letter_ids` and `letter_of_id` (tokens that stand for letters, and the
    numbers of the letters) and `is_greedy`, whether the answer is the most likely token of all.

    Args:
        folder: Folder with `dev/<subject>_dev.csv` and `test/<subject>_test.csv`; None takes MMLU from the hub.
        subjects: Subjects to ask; None means all that there are.
        num_shots: Answered questions before each, 0 to 5.
        prompt_format: `hendrycks`, the original's, which scores the letters with a space before them; or `paper_code`,
            that of the paper's released code, which takes the most likely token of all for the answer.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest prompt, in tokens; longer ones lose shots.
        share_prefix: Give what prompts have in common once; False gives every prompt in full.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        loader: Sizes of batches, and the processes that prepare them; `eval_batch_size` counts questions.

    Raises:
        ValueError: If a number is out of range or the format is unknown.

    Example:
        >>> MMLUDataModule("mmlu", num_shots=0).num_shots
        0
    """

    encodes_rows_alone = False  # a prompt has questions of its subject's `dev` file

    def __init__(
        self,
        folder: str | Path | None = None,
        subjects: Names | None = None,
        num_shots: int = 5,
        prompt_format: PromptFormat = "hendrycks",
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = 2048,
        share_prefix: bool = True,
        cache_dir: str | Path | None = None,
        loader: LoaderOptions = LoaderOptions(eval_batch_size=16),
    ) -> None:
        super().__init__(tokenizer=tokenizer, max_length=max_length, cache_dir=cache_dir, loader=loader)
        if not 0 <= num_shots <= 5:
            raise ValueError(f"`num_shots` must be between 0 and 5, the questions of a `dev` file, not {num_shots}.")
        check_choice("prompt_format", prompt_format, get_args(PromptFormat))
        self.folder = None if folder is None else Path(folder).expanduser()
        self.subjects = None if subjects is None else as_names(subjects)
        self.num_shots = num_shots
        self.prompt_format: PromptFormat = prompt_format
        self.share_prefix = share_prefix

    def sources(self) -> Mapping[str, TextSource]:
        """Return the questions, as the one split `test`."""
        if self.folder is None:
            return {"test": HubQuestions(self.subjects)}
        return {"test": QuestionFiles(self.folder, self.subjects)}

    def encoding(self, split: str) -> str:
        """Return how prompts are written."""
        return f"{self.prompt_format} {self.num_shots}"

    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Write and tokenise the prompts.

        Raises:
            ValueError: If an answer is not a letter from A to D, a subject has too few shots, or the tokenizer does
                not tell the letters apart.
        """
        questions = _questions(table)
        subjects = sorted(questions["test"])
        letters = self._letter_tokens()
        ids: list[list[int]] = []
        numbers: dict[str, list[int]] = {"subject": [], "num_shots": [], "answer": []}
        num_dropped = dict.fromkeys(subjects, 0)
        for number, subject in enumerate(subjects):
            shots = questions["dev"].get(subject, [])[: self.num_shots]
            if len(shots) < self.num_shots:
                raise ValueError(
                    f"{table.source}: {subject} has {len(shots)} questions in `dev`, fewer than `num_shots` "
                    f"({self.num_shots})."
                )
            asked = questions["test"][subject]
            for question, (prompt, num_shots) in zip(asked, self._prompts(subject, shots, asked), strict=True):
                if num_shots is None:
                    num_dropped[subject] += 1
                    continue
                ids.append(prompt)
                for name, value in zip(numbers, (number, num_shots, LETTERS.index(question.answer)), strict=True):
                    numbers[name].append(value)
        if not ids:
            raise ValueError(
                f"{table.source}: every question alone is longer than `max_length` ({self.longest} tokens)."
            )
        facts = {
            "subjects": subjects,
            "letter_tokens": letters,
            "is_greedy": self.prompt_format == "paper_code",
            "num_dropped": num_dropped,
        }
        return TokenizedRows(
            {"input_ids": Ragged.of(ids)}, {name: np.array(values) for name, values in numbers.items()}, facts=facts
        )

    def _prompts(
        self, subject: str, shots: Sequence[Question], questions: Sequence[Question]
    ) -> list[tuple[list[int], int | None]]:
        """Return for each question its prompt's tokens and the number of shots in it, None where it does not fit."""
        write = PROMPTS[self.prompt_format]()
        fitting = [(tokens, len(shots)) for tokens in self._tokens([write(subject, shots, q) for q in questions])]
        result: list[tuple[list[int], int | None]] = []
        for question, (tokens, _) in zip(questions, fitting, strict=True):
            left: Sequence[Question] = shots
            while len(tokens) > self.longest and left:
                left = write.without_a_shot(left)
                (tokens,) = self._tokens([write(subject, left, question)])
            result.append((tokens, len(left)) if len(tokens) <= self.longest else ([], None))
        return result

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = self.tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
        eos = self.tokenizer.eos_token_id
        # A prompt goes on: the end that some tokenizers put there must not be read.
        return [ids[:-1] if ids and ids[-1] == eos else ids for ids in encoded]

    def _letter_tokens(self) -> list[tuple[int, int]]:
        """Tokens that stand for letters, with the letters' numbers."""
        if self.prompt_format == "paper_code":
            # The helper compares what the most likely token says, case and spaces aside.
            said = {token: str(self.tokenizer.decode([token])).strip().upper() for token in range(len(self.tokenizer))}
            tokens = [(token, LETTERS.index(text)) for token, text in said.items() if text in LETTERS]
            if len({number for _, number in tokens}) < len(LETTERS):
                raise ValueError(f"the tokenizer {self.tokenizer.name_or_path!r} has no token for each of {LETTERS}.")
            return tokens
        prompt, *answered = self._tokens(["Answer:", *(f"Answer: {letter}" for letter in LETTERS)])
        last = [ids[-1] for ids in answered]
        is_distinct = len(set(last)) == len(LETTERS) and self.tokenizer.unk_token_id not in last
        if not is_distinct or any(ids[:-1] != prompt for ids in answered):
            raise ValueError(
                f"the tokenizer {self.tokenizer.name_or_path!r} does not tell the letters A to D after 'Answer:' apart "
                f"by one token each (it gives {answered} after {prompt}): multiple choice cannot be scored with it."
            )
        return [(token, number) for number, token in enumerate(last)]

    def setup(self, stage: str) -> None:
        """Read the questions, and say how many do not fit."""
        if stage in ("fit", "validate", "predict"):
            raise ValueError(f"MMLU is for `test` only: there is nothing to {stage} in it.")
        super().setup(stage)
        if dropped := sum(self.num_dropped.values()):
            rank_zero_warn(
                f"{dropped} questions are longer than {self.longest} tokens without any shot; they were left out."
            )

    @property
    def num_dropped(self) -> dict[str, int]:
        """Number of questions by subject that do not fit into `max_length` and are not asked."""
        return dict(self.rows["test"].facts["num_dropped"])

    def test_dataloader(self) -> list[DataLoader]:
        """Batches of questions of one subject; the distributed sampler shares out whole batches."""
        batches = SharedPrefixBatches(self._rows("test"), self.eval_batch_size, self.pad_token_id, self.share_prefix)
        return [self.data_loader(batches, batch_size=None)]


class SharedPrefixBatches(Dataset):
    """Batches of prompts with the tokens that they have in common apart.

    Args:
        rows: Prompts, with their subject and number of shots.
        batch_size: Prompts in a batch.
        pad_token_id: What the shorter ones are padded with.
        share_prefix: Look for what is common; False leaves the prefix empty.
    """

    def __init__(self, rows: TokenizedRows, batch_size: int, pad_token_id: int, share_prefix: bool = True) -> None:
        self.rows = rows
        self.pad_token_id = pad_token_id
        tokens, letters = zip(*rows.facts["letter_tokens"], strict=True)
        self.letter_ids, self.letter_of_id = torch.tensor(tokens), torch.tensor(letters)
        self.prefixes: list[np.ndarray] = []
        self.batches: list[tuple[int, np.ndarray]] = []  # group, rows
        for group, members in enumerate(self._groups()):
            prefix = _common_prefix([rows.sequences["input_ids"][row] for row in members])
            self.prefixes.append(prefix if share_prefix else prefix[:0])
            members = members[np.argsort(-rows.lengths()[members], kind="stable")]
            self.batches += [(group, members[i : i + batch_size]) for i in range(0, len(members), batch_size)]

    def _groups(self) -> Iterator[np.ndarray]:
        subjects, shots = self.rows.numbers["subject"], self.rows.numbers["num_shots"]
        for subject in np.unique(subjects):
            for count in np.unique(shots[subjects == subject])[::-1]:
                yield np.flatnonzero((subjects == subject) & (shots == count))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> dict[str, Any]:
        group, rows = self.batches[number]
        prefix = self.prefixes[group]
        rest = [self.rows.sequences["input_ids"][row][len(prefix) :] for row in rows]
        input_ids = torch.full((len(rest), max(map(len, rest))), self.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for line, tokens in enumerate(rest):
            input_ids[line, : len(tokens)] = torch.from_numpy(tokens)
            attention_mask[line, : len(tokens)] = 1
        return {
            "prefix": torch.from_numpy(prefix).long(),
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "answer": torch.from_numpy(self.rows.numbers["answer"][rows]),
            "row": torch.from_numpy(rows),
            "subject": self.rows.facts["subjects"][self.rows.numbers["subject"][rows[0]]],
            "group": group,
            "letter_ids": self.letter_ids,
            "letter_of_id": self.letter_of_id,
            "is_greedy": self.rows.facts["is_greedy"],
        }


@dataclass(frozen=True)
class QuestionFiles:
    """The files of the original layout, dev and test questions in one table."""

    folder: Path
    subjects: tuple[str, ...] | None

    def fingerprint(self) -> str:
        """Hash the names and bytes of all files."""
        digest = hashlib.sha256()
        for _, subject, file in self._files():
            digest.update(f"{subject} {LocalFile(file).fingerprint()}".encode())
        return digest.hexdigest()

    def read(self) -> TextTable:
        """Read all files; cells such as `None` and `NA` are text like any other."""
        rows: list[tuple[Any, ...]] = []
        for split, subject, file in self._files():
            table = LocalFile(file, header=_HEADER).read()
            if not len(table):
                raise ValueError(f"{file} is empty: it should hold a question a line.")
            cells = zip(*(table.columns[name] for name in _HEADER), strict=True)
            rows += [(split, subject, *row, table.where(number)) for number, row in enumerate(cells)]
        return TextTable(str(self.folder), dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))

    def _files(self) -> Iterator[tuple[str, str, Path]]:
        known = sorted(file.name.removesuffix("_test.csv") for file in self.folder.glob("test/*_test.csv"))
        if not known:
            raise FileNotFoundError(f"there are no files test/<subject>_test.csv in the folder {str(self.folder)!r}.")
        for subject in known if self.subjects is None else self.subjects:
            if subject not in known:
                raise ValueError(f"{str(self.folder)!r} has no subject {subject!r}{did_you_mean(subject, known)}")
            for split in ("dev", "test"):
                file = self.folder / split / f"{subject}_{split}.csv"
                if file.is_file() or split == "test":
                    yield split, subject, file


@dataclass(frozen=True)
class HubQuestions:
    """All questions on the hub, dev and test in one table."""

    subjects: tuple[str, ...] | None

    def fingerprint(self) -> str:
        """Return the fingerprints that `datasets` keeps, and the subjects."""
        return " ".join([*(part.fingerprint() for part in self._parts().values()), repr(self.subjects)])

    def read(self) -> TextTable:
        """Download the questions, or take them from the cache of `datasets`."""
        rows: list[tuple[Any, ...]] = []
        for split, part in self._parts().items():
            table = part.read()
            names = ("subject", "question", "choices", "answer")
            for number, cells in enumerate(zip(*(table.column(name) for name in names), strict=True)):
                subject, question, choices, answer = cells
                if self.subjects is None or subject in self.subjects:
                    rows.append((split, subject, question, *choices, LETTERS[answer], table.where(number)))
        missing = set(self.subjects or ()) - {row[1] for row in rows}
        if missing:
            raise ValueError(f"{HUB_REPOSITORY} has no subject {', '.join(sorted(missing))}.")
        return TextTable(HUB_REPOSITORY, dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))

    def _parts(self) -> dict[str, HubSplit]:
        return {split: HubSplit(HUB_REPOSITORY, "all", split) for split in ("dev", "test")}


def _questions(table: TextTable) -> dict[str, dict[str, list[Question]]]:
    """Return questions by split and subject, in the order of the files."""
    found: dict[str, dict[str, list[Question]]] = {"dev": {}, "test": {}}
    for split, subject, text, a, b, c, d, answer, place in zip(
        *(table.columns[name] for name in _COLUMNS), strict=True
    ):
        if answer not in LETTERS:
            raise ValueError(f"{place}: the answer {answer!r} is none of {', '.join(LETTERS)}.")
        found[split].setdefault(subject, []).append(Question(text, (a, b, c, d), answer))
    return found


def _common_prefix(prompts: Sequence[np.ndarray]) -> np.ndarray:
    """Tokens that all prompts begin with, at least one token of each left over.

    >>> _common_prefix([np.array([1, 2, 3, 4]), np.array([1, 2, 3]), np.array([1, 2, 9])])
    array([1, 2])
    """
    shortest = min(map(len, prompts)) - 1
    heads = np.stack([prompt[:shortest] for prompt in prompts])
    differs = (heads != heads[0]).any(axis=0)
    return prompts[0][: int(differs.argmax()) if differs.any() else shortest]
