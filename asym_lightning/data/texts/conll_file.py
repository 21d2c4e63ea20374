"""Files of a word a line: the columns of CoNLL, with an empty line between sentences, and CoNLL-U."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        """Read the file; see `parts` for what it raises."""
        (table,) = self.parts(None)
        return table

    def parts(self, num_rows: int | None) -> Iterator[TextTable]:
        """Read the file in parts of as many sentences, None for all of them.

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
        in_sentence, first_row = False, 0
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
                if len(columns[LINES]) == num_rows:
                    yield self._table(columns, num_columns, first_row)
                    columns, first_row = {name: [] for name in columns}, first_row + len(columns[LINES])
                for sentences in columns.values():
                    sentences.append([])
            for name, value in ((WORDS, cells[word]), (TAGS, cells[tag]), (LINES, line)):
                columns[name][-1].append(value)
        yield self._table(columns, num_columns, first_row)

    def _table(self, columns: Mapping[str, list[list]], num_columns: int | None, first_row: int) -> TextTable:
        found = {name: rows for name, rows in columns.items() if name != TAGS or num_columns != 1}
        return TextTable(str(self.path), found, [lines[0] for lines in columns[LINES]], first_row)

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
