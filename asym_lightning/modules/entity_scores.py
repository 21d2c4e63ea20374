"""Entities that are marked by the tags of words, and how many of them are found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from asym_lightning.core.tokens import IGNORED

_TAG = re.compile(r"([BIMELSU])-(.+)")
_OUTSIDE, _BEGIN, _INSIDE, _END, _SINGLE = range(5)
# BIO, BIOES, BILOU and BMES in the letters of BIOES.
_PLACES = {"B": _BEGIN, "I": _INSIDE, "M": _INSIDE, "E": _END, "L": _END, "S": _SINGLE, "U": _SINGLE}


class Entities(NamedTuple):
    """Entities in a batch of sentences, in order.

    Attributes:
        rows: Number of the sentence of each.
        starts: Its first word.
        ends: Its last word.
        types: Number of its type in `TagScheme.types`.
    """

    rows: Tensor
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
        >>> scheme.entities(torch.tensor([[1, 2, 0, 2]])).ends.tolist(), scheme.types
        ([1, 3], ['PER'])
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
        edge = tags.new_full((len(tags), 1), -1)
        tags = torch.cat([edge, tags, edge], dim=1)  # so that sentences do not touch when they are laid in a row
        known = tags.clamp(min=0).flatten()
        is_known = (tags >= 0).flatten()
        place = self._places.to(tags.device)[known].where(is_known, _OUTSIDE)
        kind = self._types.to(tags.device)[known].where(is_known, -1)
        before, place_before, kind_before = place[1:], place[:-1], kind[:-1]
        closes = (place_before == _END) | (place_before == _SINGLE)
        opens = (before == _BEGIN) | (before == _SINGLE) | (before == _OUTSIDE)
        is_edge = closes | opens | (kind_before != kind[1:])  # between a word and the next one
        ends = ((place_before != _OUTSIDE) & is_edge).nonzero().flatten()
        starts = ((before != _OUTSIDE) & is_edge).nonzero().flatten() + 1
        width = tags.shape[1]
        return Entities(starts // width, starts % width - 1, ends % width - 1, kind[starts])


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
        at = [torch.full((*known.shape, 2), -1, device=known.device) for _ in range(2)]
        for table, entities in zip(at, (ours, theirs), strict=True):
            table[entities.rows, entities.starts] = torch.stack([entities.ends, entities.types], dim=1)
        self.num_right += ((at[0] == at[1]).all(dim=-1) & (at[0][..., 0] >= 0)).sum()
        self.num_found += len(ours.starts)
        self.num_known += len(theirs.starts)

    def compute(self) -> Tensor:
        """Return the score, 0 where nothing is found; it warns where there is nothing to find."""
        if not self.num_known:
            rank_zero_warn("there is no entity among the labels: precision, recall and F1 are reported as 0.")
        out_of = {"precision": self.num_found, "recall": self.num_known, "f1": (self.num_found + self.num_known) / 2}
        return self.num_right / out_of[self.score].clamp(min=1)
