"""Names of classes: those that are given, or else those of the training data or of the model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence

from asym_lightning.data.base import BatchDataModule
from asym_lightning.data.tables.text_source import ROWS_AT_ONCE, TextSource, in_parts
from asym_lightning.data.tables.text_table import TextTable


class FoundLabelNames(BatchDataModule):
    """The part of a data module of texts that knows its classes by name.

    A subclass sets `given_label_names`, and defines `sources`, `labels_in` and `labels_of`.

    Attributes:
        given_label_names: Names of the classes by number; None finds them.
    """

    given_label_names: Sequence[str] | None = None

    @abstractmethod
    def sources(self) -> Mapping[str, TextSource]:
        """Return where each split comes from."""

    @abstractmethod
    def labels_in(self, table: TextTable) -> Collection[str]:
        """Return the classes in a part of the training data, in any order."""

    @abstractmethod
    def labels_of(self, found: Collection[str], source: str) -> Sequence[str]:
        """Return the classes of the training data, in the order of their numbers.

        Args:
            found: Those that there are.
            source: What to call the data in messages.

        Raises:
            ValueError: If there are too few to learn.
        """

    @property
    def label_names(self) -> list[str]:
        """Names of the classes by number: as given, of the training data, or as the model knows them.

        Raises:
            ValueError: If there is nothing to take them from, or the training data is empty.
        """
        if self.given_label_names is None:
            train, of_model = self.sources().get("train"), self.label_names_of_model
            path = getattr(train, "path", None)
            if of_model is not None and (train is None or (path is not None and not path.exists())):
                return of_model  # and not kept: another model may know others
            if train is None:
                raise ValueError(
                    "`label_names` must be given where there is no training file to take them from, "
                    "and no `--ckpt_path`."
                )
            found: set[str] = set()
            for part in in_parts(train, ROWS_AT_ONCE):
                part.check_not_empty("train")
                found |= {*self.labels_in(part)}
            self.given_label_names = self.labels_of(found, part.source)
        return list(map(str, self.given_label_names))
