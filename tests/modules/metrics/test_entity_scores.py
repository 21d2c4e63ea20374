"""Entities that tags mark, and their scores."""

import itertools
import re

import pytest
import torch

from asym_lightning.modules.metrics.entity_scores import EntityScore, TagScheme

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SCHEMES = {
    "bio": BIO,
    "bioes": ["O", *(f"{place}-{kind}" for kind in ("PER", "LOC") for place in "BIES")],
    "bilou": ["O", *(f"{place}-{kind}" for kind in ("PER", "LOC") for place in "BILU")],
}


def entities(tags):
    """Entities of a list of tags by a walk over it, as the script of CoNLL has them."""
    letters = {"L": "E", "U": "S", "M": "I"}
    cells = [("O", "")] if not tags else [re.fullmatch(r"(?:(\w)-)?(.+)", tag).groups() for tag in tags]
    cells = [(letters.get(place, place), kind) if place else ("O", "") for place, kind in cells]
    found, start = set(), 0
    for i, ((before, kind_before), (place, kind)) in enumerate(itertools.pairwise([("O", ""), *cells, ("O", "")])):
        if before != "O" and (before in "ES" or place in "BSO" or kind != kind_before):
            found.add((start, i - 1, kind_before))
        if place != "O" and (place in "BS" or before in "OES" or kind != kind_before):
            start = i
    return found


def scores(predictions, labels, tags):
    """Precision, recall and F1 of lists of lists of tags."""
    ours, theirs = ({(row, *e) for row, t in enumerate(rows) for e in entities(t)} for rows in (predictions, labels))
    right = len(ours & theirs)
    precision, recall = right / max(len(ours), 1), right / max(len(theirs), 1)
    return {"precision": precision, "recall": recall, "f1": 2 * right / max(len(ours) + len(theirs), 1)}


def computed(predictions, labels, tags):
    found = {}
    for name in ("precision", "recall", "f1"):
        metric = EntityScore(name, tags)
        for part in range(0, len(labels), 8):
            metric.update(predictions[part : part + 8], labels[part : part + 8])
        found[name] = float(metric.compute())
    return found


def random_rows(tags, seed=0):
    """Predictions, labels and tokens that are no words, and the tags of the words."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(tags), (40, 12), generator=generator)
    noise = torch.randint(len(tags), labels.shape, generator=generator)
    predictions = labels.where(torch.rand(labels.shape, generator=generator) < 0.8, noise)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = -100
    of_words = [
        [[tags[tag] for tag in row[known >= 0].tolist()] for row, known in zip(rows, labels, strict=True)]
        for rows in (predictions, labels)
    ]
    return predictions, labels, *of_words


@pytest.mark.parametrize("tags", SCHEMES.values(), ids=SCHEMES)
def test_scores_are_those_of_a_walk_over_the_words(tags):
    predictions, labels, found, known = random_rows(tags)
    assert computed(predictions, labels, tags) == pytest.approx(scores(found, known, tags))


@pytest.mark.slow
@pytest.mark.parametrize("tags", SCHEMES.values(), ids=SCHEMES)
def test_scores_are_those_of_seqeval(tags):
    metrics = pytest.importorskip("seqeval.metrics")
    letters = {"L": "E", "U": "S"}  # seqeval's default reads BIOES alone
    predictions, labels, *both = random_rows(tags)
    found, known = ([[letters.get(t[0], t[0]) + t[1:] for t in row] for row in rows] for rows in both)
    expected = {name: getattr(metrics, f"{name}_score")(known, found) for name in ("precision", "recall", "f1")}
    assert computed(predictions, labels, tags) == pytest.approx(expected)


def test_an_entity_does_not_go_on_in_the_next_sentence():
    starts, ends, types = TagScheme(BIO).entities(torch.tensor([[0, 1], [2, 2], [2, -100]]))
    assert starts.nonzero().tolist() == [[0, 1], [1, 0], [2, 0]]
    assert (ends[starts].tolist(), types[starts].tolist()) == ([1, 1, 0], [1, 1, 1])


def test_other_tags_mark_nothing():
    assert not TagScheme(["NOUN", "B", "-LRB-"]).marks_entities


def test_nothing_to_find_is_said_and_is_no_nan():
    metric = EntityScore("f1", BIO)
    metric.update(torch.tensor([[1]]), torch.tensor([[0]]))
    with pytest.warns(UserWarning, match="there is no entity among the labels"):
        assert metric.compute() == 0
