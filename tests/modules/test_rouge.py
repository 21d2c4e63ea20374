"""ROUGE and its stemmer against `rouge-score` and NLTK, on English that comes with Python and its packages."""

import importlib.metadata
import itertools
import random
import re

import pytest
import torch

from asym_lightning.modules.porter_stemmer import stem
from asym_lightning.modules.rouge import ROUGE_NAMES, Rouge, rouge_scores, split_sentences

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """Sentences of the descriptions that Python packages ship."""
    texts = [dist.metadata.get_payload() or "" for dist in importlib.metadata.distributions()]
    found = re.findall(r"[A-Z][^.!?\n`<>]{30,200}[.!?]", "\n".join(map(str, texts)))
    assert len(found) > 500
    return sorted(set(found))


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_scores_equal_rouge_score_on_real_text(sentences: list[str], use_stemmer: bool) -> None:
    reference_scorer = rouge_scorer.RougeScorer(list(ROUGE_NAMES), use_stemmer=use_stemmer)
    draw = random.Random(0)
    for _ in range(120):
        reference = draw.sample(sentences, draw.randint(1, 4))
        # Some sentences in common, some words swapped, some sentences of others: overlaps of every kind.
        prediction = [" ".join(draw.sample(s.split(), len(s.split()))) for s in reference[:2]]
        prediction += draw.sample(reference, 1) + draw.sample(sentences, draw.randint(0, 2))
        draw.shuffle(prediction)
        ours = rouge_scores("\n".join(prediction), "\n".join(reference), use_stemmer)
        theirs = reference_scorer.score("\n".join(reference), "\n".join(prediction))
        for name in ROUGE_NAMES:
            expected = (theirs[name].precision, theirs[name].recall, theirs[name].fmeasure)
            assert ours[name] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("prediction", "reference"), [*itertools.product(["", "!?", "one", "\n\none\n"], repeat=2)])
def test_scores_of_empty_texts_equal_rouge_score(prediction: str, reference: str) -> None:
    theirs = rouge_scorer.RougeScorer(list(ROUGE_NAMES)).score(reference, prediction)
    ours = rouge_scores(prediction, reference, use_stemmer=False)
    assert {name: score.f1 for name, score in ours.items()} == {name: theirs[name].fmeasure for name in ROUGE_NAMES}


def test_stems_equal_those_of_nltk(sentences: list[str]) -> None:
    porter = pytest.importorskip("nltk.stem.porter").PorterStemmer()
    words = {word for sentence in sentences for word in re.findall(r"[a-z0-9]+", sentence.lower())}
    endings = "s es ies sses ed ied eed ing y ational tional enci izer bli alli fulli logi ness ful icate ement ion ll"
    words |= {
        f"{start}{end}" for start in ("", "t", "tr", "hop", "fizz", "yyy", "relat", "skies") for end in endings.split()
    }
    words |= {"sky", "skies", "dying", "news", "succeed", "enjoy", "dies", "flies", "innings", "geologi", "y", "by"}
    assert len(words) > 3000
    assert {word: stem(word) for word in words} == {word: porter.stem(word) for word in words}


def test_metric_is_the_mean_and_counts_empty_summaries() -> None:
    rouge = Rouge()
    rouge.update(["The cat sat. It purred."], ["It purred. The cat sat."])
    rouge.update([" "], ["Nothing came."])
    scores = rouge.compute()
    assert scores["rougeLsum"] == 0.5  # by sentence the order does not count
    assert scores["rougeL"] < 0.5
    assert (int(rouge.num_empty), int(rouge.num_texts)) == (1, 2)
    assert not torch.isnan(torch.stack(list(Rouge().compute().values()))).any()


def test_lines_are_sentences_where_there_are_lines() -> None:
    assert split_sentences("One. Two.\nThree.") == "One. Two.\nThree."
    assert split_sentences("At 3.5 km J. Smith won! Why? No.") == "At 3.5 km J. Smith won!\nWhy?\nNo."
