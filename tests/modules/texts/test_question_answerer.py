"""QuestionAnswerer: its loss, its answers over windows, and scores against those of SQuAD's script."""

import re
import string
from collections import Counter

import pytest
import torch
import transformers as tf

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import QuestionAnswerer
from asym_lightning.modules.metrics.answer_scores import AnswerScore
from asym_lightning.modules.texts.answer_spans import best_spans
from tests.adapters.models import perturb
from tests.text_stand_ins import tiny_bert_config

CONTEXT = "the cat sat on a mat ."
BATCH = {
    "input_ids": torch.tensor([[2, 5, 3, 6, 7, 8, 3], [2, 5, 3, 9, 10, 3, 0]]),
    "attention_mask": torch.tensor([[1] * 7, [1] * 6 + [0]]),
    "token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0]]),
    "starts": torch.tensor([[-1, -1, -1, 0, 4, 8, -1], [-1, -1, -1, 12, 15, -1, -1]]),
    "ends": torch.tensor([[-1, -1, -1, 3, 7, 11, -1], [-1, -1, -1, 14, 16, -1, -1]]),
    "start_positions": torch.tensor([4, 0]),
    "end_positions": torch.tensor([5, 0]),
}
QUESTION = {"identifier": "q", "question": "?", "context": CONTEXT, "answers": ["cat sat"], "starts": [4]}
IN_EVALUATION = {**BATCH, "of": torch.tensor([0, 0]), "questions": [QUESTION]}


def made(**options):
    torch.manual_seed(0)
    module = QuestionAnswerer(tf.BertForQuestionAnswering(tiny_bert_config()), AdapterConfig(rank=2), **options)
    module.configure_model()
    perturb(module.backbone)
    return module.eval()


def test_loss_is_the_model_s_own_and_its_head_trains():
    module = made()
    names = ("input_ids", "attention_mask", "token_type_ids", "start_positions", "end_positions")
    output = module.step(BATCH)
    torch.testing.assert_close(output.loss, module.backbone(**{name: BATCH[name] for name in names}).loss)
    assert output.targets.tolist() == [[4, 5], [0, 0]]
    assert module.backbone.qa_outputs.weight.requires_grad


def test_the_best_span_is_that_of_a_search():
    torch.manual_seed(0)
    start, end = torch.randn(5, 9), torch.randn(5, 9)
    starts = torch.arange(9).expand(5, 9).clone()
    starts[torch.rand(5, 9) < 0.3] = -1
    ends = torch.where(starts >= 0, starts + 1, -1)
    found = best_spans(start, end, starts, ends, longest=3)
    for row in range(5):
        scores = {(i, j): float(start[row, i] + end[row, j]) for i in range(9) for j in range(i, min(i + 3, 9))
                  if starts[row, i] >= 0 and starts[row, j] >= 0}  # fmt: skip
        i, j = max(scores, key=scores.get)
        assert (found.starts[row], found.ends[row]) == (i, j + 1)
        assert float(found.scores[row]) == pytest.approx(scores[i, j])


def logits(windows):
    """Start and end logits of two windows."""
    start, end = torch.zeros(2, 7), torch.zeros(2, 7)
    for row, (first, last, score, none) in enumerate(windows):
        start[row, first], end[row, last], start[row, 0] = score, score, none
    return start, end


def test_the_answer_is_the_best_of_all_windows(monkeypatch):
    module = made()
    for windows, answer, start in (
        ([(4, 5, 3.0, 0), (3, 3, 2.0, 0)], "cat sat", 4),
        ([(4, 5, 3.0, 0), (3, 4, 4.0, 9)], "on a", 12),
    ):
        monkeypatch.setattr(module, "_logits", lambda batch, windows=windows: logits(windows))
        (found,) = module.predict_step(IN_EVALUATION, 0)
        assert (found["answer"], found["start"]) == (answer, start)
        (row,) = module.prediction_rows([found], IN_EVALUATION, [])
        assert row["id"] == "q" and row["targets"] == ["cat sat"]
        assert module.step(IN_EVALUATION).predictions == [answer]


def test_below_the_least_score_there_is_no_answer(monkeypatch):
    for least, none, answer in ((0.0, 5.0, "cat sat"), (0.0, 7.0, ""), (None, 7.0, "cat sat"), (2.0, 5.0, "")):
        module = made(least_score=least)
        monkeypatch.setattr(module, "_logits", lambda batch, none=none: logits([(4, 5, 3.0, none), (3, 3, 1.0, none)]))
        assert module.predict_step(IN_EVALUATION, 0)[0]["answer"] == answer


def script(predictions, references):
    """Exact match and F1 as SQuAD's script has them."""

    def words(text):
        text = "".join(character for character in text.lower() if character not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    def f1(one, other):
        if not one or not other:
            return float(one == other)
        shared = sum((Counter(one) & Counter(other)).values())
        return 2 * shared / (len(one) + len(other))

    pairs = [
        (words(p), [words(text) for text in texts or [""]]) for p, texts in zip(predictions, references, strict=True)
    ]
    exact = [max(float(found == known) for known in texts) for found, texts in pairs]
    return sum(exact) / len(exact), sum(max(f1(found, known) for known in texts) for found, texts in pairs) / len(pairs)


def test_scores_are_those_of_the_script():
    predictions = ["The cat.", "a big dog", "", "", "mat", "New York City", "the"]
    references = [["cat", "a dog"], ["dog"], [], ["dog"], [], ["York", "new york city, N.Y."], ["an"]]
    for name, expected in zip(("exact_match", "f1"), script(predictions, references), strict=True):
        metric = AnswerScore(name)
        metric.update(predictions[:3], references[:3])
        metric.update(predictions[3:], references[3:])
        assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)


def test_in_training_tokens_are_compared():
    found, known = torch.tensor([[3, 5], [0, 0], [5, 3], [1, 2]]), torch.tensor([[4, 6], [0, 0], [4, 4], [1, 2]])
    for name, expected in (("exact_match", 0.5), ("f1", (4 / 6 + 1 + 0 + 1) / 4)):
        metric = AnswerScore(name)
        metric.update(found, known)
        assert float(metric.compute()) == pytest.approx(expected)


def test_another_head_is_refused():
    with pytest.raises(ValueError, match="the backbone has 3 outputs, but QuestionAnswerer needs 2"):
        QuestionAnswerer(tf.BertForQuestionAnswering(tiny_bert_config(num_labels=3))).configure_model()
    with pytest.raises(ValueError, match="`longest_answer` must be at least 1"):
        made(longest_answer=0)
