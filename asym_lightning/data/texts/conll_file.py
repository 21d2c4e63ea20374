"""Files of a word a line: the columns of CoNLL, with an empty line between sentences, and CoNLL-U."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asym_lightning.data.tables.text_source import LocalFile
from asym_lightning.data.tables.text_table import TextTable, not_utf8, text_lines

SUFFIXES = (".conll", ".conllu", ".bio", ".iob", ".tsv", ".txt")
_UNIVERSAL = (1, 3)  # of CoNLL-U: FORM and UPOS
WORDS, TAGS, LINES = "tokens", "tags", "lines of words"
"""Names of the columns that are read."""


@dataclass(frozen=True)
class ConllFile:
    """Sentences of a file: the words, their tags, and the line of each word.

    Columns are apart by tabs where the file has some, else by spaces. Lines that begin with `-DOCSTART-` are left out;
    of CoNLL-U also comments, parts of a word that is written as one, and words that are not written.

    Args:
        path: The file.
        word_column: Number of the words' column, from 0, or from the last one by negative numbers; None means the
            first, or the forms of CoNLL-U.
        tag_column: Number of the tags' column; None means the last, or the parts of speech of CoNLL-U. A file of one
            column has no tags.
    """

    path: Path
    word_column: int | None = None
    tag_column: int | None = None

    def fingerprint(self) -> str:
        """Hash the bytes, and name the columns.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        return f"{LocalFile(self.path).fingerprint()} {self.word_column} {self.tag_column}"

    def read(self) -> TextTable:
        """Read the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a line is no UTF-8, has another number of columns than the first, or lacks one that is asked
                for; the message names the line.
        """
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {str(self.path)!r}.")
        is_universal = self.path.suffix == ".conllu"
        first, last = _UNIVERSAL if is_universal else (0, -1)
        word = first if self.word_column is None else self.word_column
        tag = last if self.tag_column is None else self.tag_column
        columns: dict[str, list[list]] = {WORDS: [], TAGS: [], LINES: []}
        num_columns: int | None = None
        in_sentence = False
        for line, cells in self._cells(is_universal):
            if not cells:
                in_sentence = False
                continue
            num_columns = num_columns or len(cells)
            if len(cells) != num_columns:
                raise ValueError(f"{self._at(line)}: there are {len(cells)} columns where {num_columns} are expected.")
            for option, number in (("word_column", word), ("tag_column", tag)):
                if not -num_columns <= number < num_columns:
                    raise ValueError(f"{self._at(line)}: there are {num_columns} columns, none of `{option}` {number}.")
            if not in_sentence:
                in_sentence = True
                for sentences in columns.values():
                    sentences.append([])
            for name, value in ((WORDS, cells[word]), (TAGS, cells[tag]), (LINES, line)):
                columns[name][-1].append(value)
        if num_columns == 1:
            del columns[TAGS]
        return TextTable(str(self.path), columns, [lines[0] for lines in columns[LINES]])

    def _cells(self, is_universal: bool) -> Iterator[tuple[int, list[str]]]:
        """Cells of each line that matters, by its number; none of a line between sentences."""
        for line, text in text_lines(self.path):
            if not isinstance(text, str):
                raise ValueError(f"{self._at(line)}: this cannot be read ({not_utf8(text)}).")
            text = text.rstrip("\r\n")
            cells = text.split("\t") if "\t" in text else text.split()
            if is_universal and (text.startswith("#") or (cells and not cells[0].isdecimal())):
                continue
            yield line, [] if not text.strip() or cells[0].startswith("-DOCSTART-") else cells

    def _at(self, line: int) -> str:
        return f"{self.path}, line {line}"
