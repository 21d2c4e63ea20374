"""SentenceEncoder: its losses against formulas, gradients of chunks, scores, and what it refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers as tf

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import SentenceEncoder
from asym_lightning.modules.texts.contrastive_loss import ContrastiveLoss
from tests.adapters.models import perturb
from tests.text_stand_ins import tiny_bert_config

ADAPTER = AdapterConfig(rank=2, targets="all-linear")


def encoder(**options):
    torch.manual_seed(0)
    module = SentenceEncoder(tf.BertModel(tiny_bert_config()), ADAPTER, **options)
    module.configure_model()
    perturb(module.backbone)
    return module.eval()


def side(num_texts, length, seed):
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 19, (num_texts, length), generator=random)
    mask = (torch.arange(length) < torch.randint(2, length + 1, (num_texts, 1), generator=random)).long()
    return ids * mask, mask


def batch(num_pairs=5, sides=("anchor", "positive"), **more):
    found = {}
    for number, name in enumerate(sides):
        found[f"{name}_input_ids"], found[f"{name}_attention_mask"] = side(num_pairs, 6 + number, number)
    return {**found, **more}


TRIPLETS = ("anchor", "positive", "negative")


def vectors(module, given, name):
    """Mean over the tokens of each text by itself, without padding."""
    rows = []
    for ids, mask in zip(given[f"{name}_input_ids"], given[f"{name}_attention_mask"], strict=True):
        rows.append(module.backbone(input_ids=ids[mask.bool()][None]).last_hidden_state[0].mean(dim=0))
    return F.normalize(torch.stack(rows), dim=1)


@pytest.mark.parametrize("sides", [TRIPLETS[:2], TRIPLETS])
def test_the_loss_takes_all_other_texts_of_the_batch_as_negatives(sides):
    module, given = encoder(), batch(sides=sides)
    anchors, *others = (vectors(module, given, name) for name in sides)
    expected = []
    for i, anchor in enumerate(anchors):
        scores = torch.stack([anchor @ other for of_side in others for other in of_side]) / 0.05
        expected.append(scores.logsumexp(dim=0) - anchor @ others[0][i] / 0.05)
    output = module.step(given)
    torch.testing.assert_close(output.loss, torch.stack(expected).mean(), rtol=1e-5, atol=1e-5)
    assert output.predictions.shape == (5, len(sides), 16) and not output.predictions.requires_grad


def test_the_loss_of_triplets_is_that_of_torch():
    module, given = encoder(loss=ContrastiveLoss("triplet", margin=0.3)), batch(sides=TRIPLETS)
    found = [vectors(module, given, name) for name in TRIPLETS]
    distance = lambda one, other: 1 - F.cosine_similarity(one, other)  # noqa: E731
    expected = F.triplet_margin_with_distance_loss(*found, distance_function=distance, margin=0.3)
    torch.testing.assert_close(module.step(given).loss, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"`loss\.name: triplet` needs a negative of each pair"):
        module.step(batch())


def test_the_loss_of_scored_pairs_is_the_error_of_their_cosines():
    given = batch(scores=torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0]))
    module = encoder(evaluation="similarity")
    cosines = (vectors(module, given, "anchor") * vectors(module, given, "positive")).sum(dim=1)
    output = module.step(given)
    torch.testing.assert_close(output.predictions, cosines, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.loss, ((cosines - given["scores"]) ** 2).mean(), rtol=1e-5, atol=1e-5)
    metrics = module.build_metrics()
    metrics.update(output.predictions, output.targets)
    ranks = [values.argsort().argsort().double() for values in (output.predictions, output.targets)]
    expected = torch.corrcoef(torch.stack(ranks))[0, 1]
    assert float(metrics.compute()["spearman"]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("sides", [TRIPLETS[:2], TRIPLETS])
def test_chunks_of_any_size_give_the_gradients_of_the_whole_batch(sides):
    whole, given = encoder().double(), batch(12, sides)
    found = {}
    for size in (None, 1, 5):
        module = copy.deepcopy(whole)
        module.chunk_size = size
        output = module.step(given)
        output.loss.backward()
        found[size] = (output.loss.detach(), {n: p.grad for n, p in module.named_parameters() if p.requires_grad})
    loss, gradients = found.pop(None)
    assert len(gradients) == 12 and all(gradient.any() for gradient in gradients.values())
    for of_chunks, by_name in found.values():
        torch.testing.assert_close(of_chunks, loss, rtol=0, atol=1e-12)
        for name, gradient in by_name.items():
            torch.testing.assert_close(gradient, gradients[name], rtol=1e-10, atol=1e-10)


def test_a_chunk_is_computed_again_with_the_same_dropout():
    module = encoder(chunk_size=2).train()
    torch.manual_seed(3)
    with torch.no_grad():
        states = [module.embed(*side(6, 7, 0)) for _ in range(2)]
    assert not torch.equal(*states)
    torch.manual_seed(3)
    vectors = module.embed(*side(6, 7, 0))
    vectors.sum().backward()
    expected = [p.grad.clone() for p in module.parameters() if p.requires_grad]
    module.zero_grad()
    torch.manual_seed(3)
    parts = [module.embed(*(part[i : i + 2] for part in side(6, 7, 0))) for i in (0, 2, 4)]
    module.chunk_size = None
    torch.cat(parts).sum().backward()
    assert torch.equal(torch.cat(parts), vectors)
    for ours, whole in zip((p.grad for p in module.parameters() if p.requires_grad), expected, strict=True):
        torch.testing.assert_close(ours, whole)


def test_chunks_keep_less_for_the_backward_pass():
    kept = {}
    for size in (None, 2):
        module, saved = encoder(chunk_size=size), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):
            module.step(batch(32))
        kept[size] = sum(saved)
    assert kept[2] < kept[None] / 5


def test_nothing_is_built_that_would_not_be_read():
    module = encoder()
    assert module.backbone.pooler is None
    assert all("pooler" not in layer.layer for layer in module.injection_report.layers)
    module.step(batch()).loss.backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


def test_sets_of_another_kind_than_the_evaluation_are_refused():
    scored = batch(scores=torch.ones(5))
    with pytest.raises(ValueError, match=r"`evaluation: retrieval` does not suit .*: set it to similarity\."):
        encoder().step(scored)
    with pytest.raises(ValueError, match=r"`evaluation: similarity` does not suit .*: set it to retrieval\."):
        encoder(evaluation="similarity").step(batch())
    assert encoder().train().step(scored).loss.requires_grad  # what is trained on may be of another kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": {"name": "in_bach"}},
            "`name` must be one of in_batch, triplet, not 'in_bach': did you mean in_batch",
        ),
        ({"loss": {"temperature": 0.0}}, "`temperature` must be positive"),
        ({"evaluation": "recall"}, "`evaluation` must be one of retrieval, similarity"),
        ({"pooling": "max"}, "`pooling` must be one of mean, cls, last or null, not 'max'"),
        ({"recall_at": [0]}, r"`recall_at\[0\]` must be at least 1, not 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        encoder(**options)
