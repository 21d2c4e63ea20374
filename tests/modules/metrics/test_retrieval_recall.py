"""Recall in retrieval, against torchmetrics' own."""

import pytest
import torch
from torchmetrics import retrieval

from asym_lightning.modules.metrics import retrieval_recall
from asym_lightning.modules.metrics.retrieval_recall import RetrievalRecall


def of_sets(k, texts, size):
    metric = RetrievalRecall(k)
    for part in texts.split(size):
        metric.update(part, torch.zeros(len(part)))
    return float(metric.compute())


@pytest.mark.parametrize("sides", [2, 3])
@pytest.mark.parametrize("k", [1, 3])
def test_recall_is_that_of_torchmetrics_whatever_the_batches(monkeypatch, sides, k):
    monkeypatch.setattr(retrieval_recall, "ROWS", 4)
    torch.manual_seed(0)
    texts = torch.randn(11, 1, 6) + 0.8 * torch.randn(11, sides, 6)
    queries, candidates = texts[:, 0], texts[:, 1:].transpose(0, 1).flatten(0, 1)
    cosines = torch.cosine_similarity(queries[:, None], candidates[None], dim=-1)
    indexes, columns = torch.meshgrid(torch.arange(11), torch.arange(len(candidates)), indexing="ij")
    theirs = retrieval.RetrievalRecall(top_k=k)(cosines.flatten(), (indexes == columns).flatten(), indexes.flatten())
    assert 0 < theirs < 1
    assert of_sets(k, texts, 11) == of_sets(k, texts, 3) == pytest.approx(float(theirs))


def test_equal_embeddings_are_no_find():
    assert of_sets(1, torch.ones(6, 2, 4), 6) == 0


def test_recall_that_says_nothing_is_reported():
    with pytest.warns(UserWarning, match="all of the 3 texts are among the 5 that are closest: recall is 1"):
        assert of_sets(5, torch.randn(3, 2, 4), 3) == 1
