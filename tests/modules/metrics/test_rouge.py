"""The mean of ROUGE over summaries, on English that comes with Python and its packages."""

import copy
import importlib.metadata
import itertools
import pickle
import random
import re
import sys

import pytest
import torch

from asym_lightning.modules.metrics import rouge as rouge_module
from asym_lightning.modules.metrics.rouge import ROUGE_NAMES, Rouge, split_sentences

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """Sentences of the descriptions that Python packages ship."""
    texts = [dist.metadata.get_payload() or "" for dist in importlib.metadata.distributions()]
    found = re.findall(r"[A-Z][^.!?\n`<>]{30,200}[.!?]", "\n".join(map(str, texts)))
    assert len(found) > 500
    return sorted(set(found))


def scores_of(prediction: str, reference: str, use_stemmer: bool = True) -> dict[str, float]:
    rouge = Rouge(use_stemmer)
    rouge.update([prediction], [reference])
    return {name: float(score) for name, score in rouge.compute().items()}


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
        ours = scores_of("\n".join(prediction), "\n".join(reference), use_stemmer)
        theirs = reference_scorer.score("\n".join(reference), "\n".join(prediction))
        assert ours == pytest.approx({name: theirs[name].fmeasure for name in ROUGE_NAMES}, abs=1e-6)


def test_scores_of_a_pair_that_can_be_counted_by_hand() -> None:
    # "the cat sat" of the summary and "a cat sat down": 2 of 3 and of 4 words, 1 of 2 and of 3 pairs.
    words, pairs = 2 * 2 / (3 + 4), 2 * 1 / (2 + 3)
    expected = {"rouge1": words, "rouge2": pairs, "rougeL": words, "rougeLsum": words}
    assert scores_of("The cats sat.", "A cat sat down.") == pytest.approx(expected)
    without_stems = {"rouge1": 2 / 7, "rouge2": 0, "rougeL": 2 / 7, "rougeLsum": 2 / 7}
    assert scores_of("The cats sat.", "A cat sat down.", use_stemmer=False) == pytest.approx(without_stems)


@pytest.mark.parametrize(("prediction", "reference"), [*itertools.product(["", "!?", "one", "\n\none\n"], repeat=2)])
def test_scores_of_empty_texts_equal_rouge_score(prediction: str, reference: str) -> None:
    theirs = rouge_scorer.RougeScorer(list(ROUGE_NAMES)).score(reference, prediction)
    ours = scores_of(prediction, reference, use_stemmer=False)
    assert ours == {name: theirs[name].fmeasure for name in ROUGE_NAMES}


def test_the_metric_can_be_copied_and_pickled_after_use() -> None:
    rouge = Rouge()
    rouge.update(["The cat sat."], ["The cat sat."])
    for copied in (copy.deepcopy(rouge), pickle.loads(pickle.dumps(rouge))):
        assert copied.compute() == rouge.compute()


def test_without_rouge_score_the_command_to_install_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asym_lightning.modules.metrics.rouge._scorer", rouge_module._scorer.__wrapped__)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ModuleNotFoundError, match=r"`Rouge` needs rouge-score: pip install 'asym-lightning\[text\]'"):
        Rouge().update(["a"], ["b"])


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
