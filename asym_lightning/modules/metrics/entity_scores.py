"""Entities that are marked by the tags of words, and how many of them are found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from asym_lightning.core.tokens import IGNORED

_TAG = re.compile(r"([BIMELSU])-(.+)")
_OUTSIDE, _BEGIN, _INSIDE, _END, _SINGLE = range(5)
# BIO, BIOES, BILOU and BMES in the letters of BIOES.
_PLACES = {"B": _BEGIN, "I": _INSIDE, "M": _INSIDE, "E": _END, "L": _END, "S": _SINGLE, "U": _SINGLE}


class Entities(NamedTuple):
    """Entities of sentences, at each word (sentences, words), so that no GPU is asked for their number.

    Attributes:
        starts: Whether an entity starts with the word.
        ends: Of a word with which one starts, the last word.
        types: Of such a word, the number of the entity's type in `TagScheme.types`.
    """

    starts: Tensor
    ends: Tensor
    types: Tensor


class TagScheme:
    """What tags such as `B-PER` say: where in an entity a word is, and of what type the entity is.

    Entities are read as the CoNLL evaluation script reads them: one also begins where its first tag is `I-`.

    Args:
        tags: Names of the tags by number.

    Example:
        >>> scheme = TagScheme(["O", "B-PER", "I-PER"])
        >>> entities = scheme.entities(torch.tensor([[1, 2, 0, 2]]))
        >>> entities.starts.tolist(), entities.ends[entities.starts].tolist(), scheme.types
        ([[True, False, False, True]], [1, 3], ['PER'])
    """

    def __init__(self, tags: Sequence[str]) -> None:
        found = [_TAG.fullmatch(tag) for tag in tags]
        self.types = sorted({match[2] for match in found if match})
        self._places = torch.tensor([_PLACES[match[1]] if match else _OUTSIDE for match in found])
        self._types = torch.tensor([self.types.index(match[2]) if match else -1 for match in found])

    @property
    def marks_entities(self) -> bool:
        """Whether there are such tags; tags of another kind, such as parts of speech, mark none."""
        return bool(self.types)

    def entities(self, tags: Tensor) -> Entities:
        """Read the entities of sentences.

        Args:
            tags: Numbers of tags (sentences, words); negative ones are outside of all.
        """
        self._places, self._types = self._places.to(tags.device), self._types.to(tags.device)
        place = F.pad(self._places[tags.clamp(min=0)].where(tags >= 0, _OUTSIDE), (1, 1), value=_OUTSIDE)
        kind = F.pad(self._types[tags.clamp(min=0)].where(tags >= 0, -1), (1, 1), value=-1)
        left, right = place[:, :-1], place[:, 1:]  # of each gap between words
        closes = (left == _END) | (left == _SINGLE)
        opens = (right == _BEGIN) | (right == _SINGLE) | (right == _OUTSIDE)
        is_edge = closes | opens | (kind[:, :-1] != kind[:, 1:])
        starts = ((right != _OUTSIDE) & is_edge)[:, :-1]
        is_end = ((left != _OUTSIDE) & is_edge)[:, 1:]
        words = torch.arange(tags.shape[1], device=tags.device).expand_as(tags)
        # The first end from a word on.
        ends = words.where(is_end, tags.shape[1]).flip(1).cummin(1).values.flip(1)
        return Entities(starts, ends, kind[:, 1:-1])


class EntityScore(Metric):
    """Precision, recall or F1 of entities: an entity is found where its words and its type are those of a known one.

    Words without a label do not count, as if they were not there; the scores are those of `seqeval`.

    Args:
        score: Which of the three.
        tags: Names of the tags by number.

    Example:
        >>> f1 = EntityScore("f1", ["O", "B-PER", "I-PER"])
        >>> f1.update(torch.tensor([[1, 2, 0, 1]]), torch.tensor([[1, 2, 0, 0]]))
        >>> f1.compute()
        tensor(0.6667)
    """

    full_state_update = False
    num_found: Tensor
    num_known: Tensor
    num_right: Tensor

    def __init__(self, score: Literal["precision", "recall", "f1"], tags: Sequence[str]) -> None:
        super().__init__()
        self.score = score
        self.scheme = TagScheme(tags)
        for name in ("num_found", "num_known", "num_right"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add sentences: numbers of tags (sentences, tokens), of which labels of -100 are no words."""
        order = (labels == IGNORED).int().argsort(dim=1, stable=True)  # words first, as they stand
        known = labels.gather(1, order)
        found = predictions.gather(1, order).where(known != IGNORED, IGNORED)
        ours, theirs = self.scheme.entities(found), self.scheme.entities(known)
        is_same = (ours.ends == theirs.ends) & (ours.types == theirs.types)
        self.num_right += (ours.starts & theirs.starts & is_same).sum()
        self.num_found += ours.starts.sum()
        self.num_known += theirs.starts.sum()

    def compute(self) -> Tensor:
        """Return the score, 0 where nothing is found; it warns where there is nothing to find."""
        if not self.num_known:
            rank_zero_warn("there is no entity among the labels: precision, recall and F1 are reported as 0.")
        out_of = {"precision": self.num_found, "recall": self.num_known, "f1": (self.num_found + self.num_known) / 2}
        return self.num_right / out_of[self.score].clamp(min=1)
