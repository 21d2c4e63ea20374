"""Tokenised rows in flat arrays: a data set that stays on disk and is there in a moment."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from asym_lightning.core.files import atomic_file, remove_unfinished
from asym_lightning.data.tokens.array_file import Array, GrowingArrays, map_arrays

DAY = 24 * 60 * 60.0  # in seconds: longer than another process takes to write its rows


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths, one after another in one array.

    >>> ragged = Ragged.of([[1, 2, 3], [4]])
    >>> ragged.values, ragged.ends, ragged[0]
    (array([1, 2, 3, 4], dtype=int32), array([3, 4]), array([1, 2, 3], dtype=int32))
    """

    values: Array
    ends: Array

    @classmethod
    def of(cls, sequences: Iterable[list[int]], dtype: npt.DTypeLike = np.int32) -> Ragged:
        """Lay sequences out."""
        sequences = list(sequences)
        ends = np.cumsum([len(s) for s in sequences], dtype=np.int64)
        values = np.fromiter((i for s in sequences for i in s), dtype, count=int(ends[-1]) if len(ends) else 0)
        return cls(values, ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Array:
        return self.values[self.ends[index - 1] if index else 0 : self.ends[index]]

    def lengths(self) -> Array:
        """Return the length of every sequence."""
        lengths = np.empty(len(self), np.int32)  # half of what `np.diff` takes, and nothing beside it
        lengths[:1] = self.ends[:1]
        np.subtract(self.ends[1:], self.ends[:-1], out=lengths[1:], casting="same_kind")
        return lengths


@dataclass(frozen=True)
class Texts:
    """Texts of different lengths, one after another in one array: numpy's own take as much for each as the longest.

    >>> Texts.of(["one", "zwölf"])[1]
    'zwölf'
    """

    encoded: Ragged

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Lay texts out."""
        return cls(Ragged.of((list(text.encode("utf-8", "surrogatepass")) for text in texts), np.uint8))

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> str:
        return self.encoded[index].tobytes().decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class TokenizedRows(Dataset):
    """Rows of token sequences, numbers and texts by field name, such as `input_ids`, `labels` and `ids`.

    Args:
        sequences: Token sequences; a batch pads them.
        numbers: One number a row.
        texts: One text a row, such as its identifier; a batch keeps them as a list.
        facts: What else is worth remembering of how the rows were made; fit for JSON.
        file: Where the arrays are mapped from; None where they are in memory.

    Example:
        >>> rows = TokenizedRows({"input_ids": Ragged.of([[5, 6], [7]])}, {"labels": np.array([1, 0])})
        >>> rows[1]
        {'input_ids': array([7], dtype=int32), 'labels': 0, 'row': 1}
    """

    sequences: Mapping[str, Ragged]
    numbers: Mapping[str, Array] = field(default_factory=dict)
    texts: Mapping[str, Texts] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    def __len__(self) -> int:
        return len(next(iter(self.sequences.values())))

    def __getitem__(self, row: int) -> dict[str, Any]:
        item: dict[str, Any] = {name: ragged[row] for name, ragged in self.sequences.items()}
        item |= {name: numbers[row].item() for name, numbers in self.numbers.items()}
        item |= {name: texts[row] for name, texts in self.texts.items()}
        return {**item, "row": row}

    def lengths(self) -> Array:
        """Return for each row the length of its longest sequence."""
        return functools.reduce(np.maximum, (ragged.lengths() for ragged in self.sequences.values()))

    def save(self, path: Path) -> None:
        """Write the rows to one file, which appears only when it is complete."""
        self.write(path, [self])

    @classmethod
    def write(cls, path: Path, parts: Iterable[TokenizedRows]) -> TokenizedRows:
        """Write rows that come in parts, of which one at a time is in memory, to one file, and read them from there.

        Args:
            path: The file, which appears only when it is complete.
            parts: Rows with the same fields; facts of parts are added up.
        """
        remove_unfinished(path.parent, older_than=DAY)
        facts: dict[str, Any] = {}
        with atomic_file(path) as staging, GrowingArrays(staging.parent) as arrays:
            for part in parts:
                for name, ragged in part._ragged().items():
                    arrays.append(f"{name}/ends", ragged.ends + arrays.count(f"{name}/values"))
                    arrays.append(f"{name}/values", ragged.values)
                for name, numbers in part.numbers.items():
                    arrays.append(f"numbers/{name}", numbers)
                for name, fact in part.facts.items():
                    facts[name] = facts[name] + fact if name in facts else fact
            with staging.open("wb") as file:
                arrays.copy_to(file, {"facts": json.dumps(facts)})
        return cls._mapped(path)

    @classmethod
    def load(cls, path: Path) -> TokenizedRows | None:
        """Read rows that were saved; None if there is no such file or it is damaged."""
        try:
            return cls._mapped(path)
        except (OSError, ValueError, KeyError):
            return None

    @classmethod
    def _mapped(cls, path: Path) -> TokenizedRows:
        arrays, metadata = map_arrays(path)
        fields: dict[str, dict[str, Any]] = {"sequences": {}, "numbers": {}, "texts": {}}
        for key, array in arrays.items():
            kind, name, *part = key.split("/")
            if part:
                fields[kind].setdefault(name, {})[part[0]] = array
            else:
                fields[kind][name] = array
        sequences = {name: Ragged(**parts) for name, parts in fields["sequences"].items()}
        texts = {name: Texts(Ragged(**parts)) for name, parts in fields["texts"].items()}
        return TokenizedRows(sequences, fields["numbers"], texts, json.loads(metadata["facts"]), path)

    def _ragged(self) -> dict[str, Ragged]:
        ragged = {f"sequences/{name}": sequences for name, sequences in self.sequences.items()}
        return ragged | {f"texts/{name}": texts.encoded for name, texts in self.texts.items()}

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Go to other processes by name: each maps the file, and no row is sent."""
        return super().__reduce_ex__(protocol) if self.file is None else (TokenizedRows._mapped, (self.file,))
