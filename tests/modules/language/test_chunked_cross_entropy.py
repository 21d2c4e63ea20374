"""Chunked cross-entropy against the plain formula."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers as tf

from asym_lightning.modules.language.chunked_cross_entropy import chunked_cross_entropy
from asym_lightning.modules.language.language_model import check_output_layer, last_hidden_states, output_layer


@pytest.fixture
def case() -> SimpleNamespace:
    torch.manual_seed(0)
    labels = torch.randint(0, 50, (37,))
    labels[::3] = -100
    return SimpleNamespace(hidden=torch.randn(37, 8), labels=labels, kept=labels != -100, head=torch.nn.Linear(8, 50))


@pytest.mark.parametrize("chunk_size", [1, 5, 25, 1000, None])
@pytest.mark.parametrize("trains_head", [False, True])
def test_loss_and_gradients_equal_those_of_all_logits_at_once(case, chunk_size, trains_head) -> None:
    case.head.requires_grad_(trains_head)
    ours, plain = (case.hidden.clone().requires_grad_() for _ in range(2))
    parameters = list(case.head.parameters()) if trains_head else []
    loss, likely = chunked_cross_entropy(ours[case.kept], case.labels[case.kept], case.head, parameters, chunk_size)
    (3 * loss).backward()
    gradients = [p.grad for p in parameters]
    case.head.zero_grad()
    logits = case.head(plain)
    expected = F.cross_entropy(logits, case.labels, reduction="sum")
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, plain.grad)
    assert torch.equal(likely, logits.argmax(-1)[case.labels != -100])
    for gradient, parameter in zip(gradients, parameters, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_no_more_logits_than_a_chunk_exist_at_one_time(case) -> None:
    sizes = []

    def head(hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden))
        return case.head(hidden)

    loss, _ = chunked_cross_entropy(
        case.hidden.requires_grad_()[case.kept], case.labels[case.kept], head, chunk_size=10
    )
    loss.backward()
    assert sizes == [10, 10, 4]  # 24 labelled positions; the 13 others never reach the output layer


def test_nothing_to_predict_is_a_loss_of_zero(case) -> None:
    loss, likely = chunked_cross_entropy(case.hidden.requires_grad_()[:0], case.labels[:0], case.head)
    loss.backward()
    assert (loss.item(), len(likely), case.hidden.grad.abs().sum().item()) == (0.0, 0, 0.0)


def test_works_under_autocast_and_without_gradients(case) -> None:
    expected = F.cross_entropy(case.head(case.hidden), case.labels, reduction="sum")
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = chunked_cross_entropy(case.hidden[case.kept], case.labels[case.kept], case.head)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-2, atol=0.1)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_computed_where_none_is_asked_for(case, mode) -> None:
    expected = F.cross_entropy(case.head(case.hidden), case.labels, reduction="sum")
    with mode():
        loss, _ = chunked_cross_entropy(
            case.hidden[case.kept], case.labels[case.kept], case.head, list(case.head.parameters())
        )
    torch.testing.assert_close(loss, expected.detach())
    assert not loss.requires_grad


SIZES = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = [
    tf.LlamaConfig(**SIZES),
    tf.Gemma2Config(**SIZES, final_logit_softcapping=0.1),
    tf.GraniteConfig(**{k: v for k, v in SIZES.items() if k != "head_dim"}, logits_scaling=8.0),
    tf.CohereConfig(**{k: v for k, v in SIZES.items() if k != "head_dim"}, logit_scale=0.25),
    tf.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2),
]


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_output_layer_gives_the_model_s_own_logits(config) -> None:
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(0, 40, (1, 6))
    check_output_layer(model, ids)
    hidden = last_hidden_states(model, input_ids=ids).last_hidden_state
    torch.testing.assert_close(output_layer(model)(hidden), model(ids).logits)


def test_an_unknown_change_of_logits_is_refused() -> None:
    class Doubling(tf.GPT2LMHeadModel):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 2
            return output

    model = Doubling(FAMILIES[-1])
    with pytest.raises(ValueError, match="chunk_size: null"):
        check_output_layer(model, torch.tensor([[1, 2, 3]]))
