"""InstructionTuner: its loss against transformers' own, packing, and what it generates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf

from asym_lightning.adapters import AdapterConfig, adapter_layers
from asym_lightning.data.language.packing import PackedRows
from asym_lightning.data.tokens.padding import PadBatch
from asym_lightning.data.tokens.tokenized_rows import Ragged, TokenizedRows
from asym_lightning.modules import BackboneOptions, InstructionTuner
from asym_lightning.modules.language.packed_attention import packed_inputs
from tests.adapters.models import perturb
from tests.language_models import tiny_llama

VOCABULARY = 50
PAD = PadBatch({"labels": -100}, multiple=1)


@pytest.fixture
def rows() -> TokenizedRows:
    """Nine examples of different lengths, the first tokens of each a prompt."""
    random = np.random.default_rng(0)
    ids = [random.integers(3, VOCABULARY, size).tolist() for size in (5, 9, 3, 12, 7, 4, 10, 6, 8)]
    prompts = [random.integers(1, len(i) - 1) for i in ids]
    labels = [[-100] * n + i[n:] for i, n in zip(ids, prompts, strict=True)]
    return TokenizedRows({"input_ids": Ragged.of(ids), "labels": Ragged.of(labels)})


def tuner(model=None, **arguments) -> InstructionTuner:
    module = InstructionTuner(
        model or tiny_llama(VOCABULARY, initializer_range=0.2), AdapterConfig(rank=4, targets=["q", "v"]), **arguments
    )
    module.configure_model()
    perturb(module.backbone)
    return module.eval()


def transformers_loss(model: torch.nn.Module, row: dict) -> torch.Tensor:
    """The summed loss of one example by itself, by the model's own formula."""
    ids, labels = (torch.from_numpy(row[name]).long()[None] for name in ("input_ids", "labels"))
    return model(input_ids=ids, labels=labels).loss * (labels[:, 1:] != -100).sum()


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 1024])
def test_loss_of_a_padded_batch_is_the_sum_of_its_examples(rows, chunk_size) -> None:
    module = tuner(chunk_size=chunk_size)
    loss, likely, targets = module.summed_loss(PAD([rows[i] for i in range(len(rows))]))
    expected = sum(transformers_loss(module.backbone, rows[i]) for i in range(len(rows)))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert (
        len(likely)
        == len(targets)
        == sum(int((row["labels"] != -100).sum()) for row in map(rows.__getitem__, range(9)))
    )


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_labels_that_are_found_before_the_step_change_nothing(rows, chunk_size) -> None:
    module = tuner(chunk_size=chunk_size)
    batch = PAD([rows[i] for i in range(4)])
    batch["labels"][1, 0] = 5  # nothing comes before it to tell it from
    prepared = module.on_before_batch_transfer(batch, 0)
    assert prepared.keys() - batch.keys() == {"label_positions"}
    for ours, plain in zip(module.summed_loss(prepared), module.summed_loss(batch), strict=True):
        assert torch.equal(ours, plain)
    assert len(prepared["label_positions"]) == int((batch["labels"][:, 1:] != -100).sum())


def test_a_batch_without_labels_is_left_alone() -> None:
    batch = {"input_ids": torch.ones(1, 2)}
    assert tuner().on_before_batch_transfer(batch, 0) is batch


MODELS = {
    "llama sdpa": lambda: tiny_llama(VOCABULARY, initializer_range=0.2, attn_implementation="sdpa"),
    "llama eager": lambda: tiny_llama(VOCABULARY, initializer_range=0.2, attn_implementation="eager"),
    "gpt2": lambda: tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2)
    ),
    "qwen2": lambda: tf.Qwen2ForCausalLM(
        tf.Qwen2Config(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_of_a_packed_batch_are_the_sums_of_its_unpacked_examples(name, rows) -> None:
    module = tuner(MODELS[name]())
    packed = PackedRows(rows, capacity=24)
    assert len(packed) == 3  # 64 tokens in rows of 24
    batch = PAD([packed[i] for i in range(len(packed))])
    trained = [p for p in module.parameters() if p.requires_grad]

    loss, _, _ = module.summed_loss(batch)
    gradients = torch.autograd.grad(loss, trained)
    expected = sum(transformers_loss(module.backbone, rows[i]) for i in range(len(rows)))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for gradient, plain in zip(gradients, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(gradient, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max() + 1))


def test_an_example_in_a_pack_does_not_see_its_neighbours(rows) -> None:
    module = tuner()
    batch = PAD([PackedRows(rows, capacity=24)[0]])
    segments = batch["segment_ids"][0]
    inputs = packed_inputs(module.backbone, batch["segment_ids"], batch["position_ids"])
    before = module.backbone(input_ids=batch["input_ids"], **inputs).logits[0]
    changed = batch["input_ids"].clone()
    changed[0, segments == 1] = 7
    after = module.backbone(input_ids=changed, **inputs).logits[0]
    assert torch.equal(before[segments != 1], after[segments != 1])
    assert not torch.equal(before[segments == 1], after[segments == 1])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: tf.BloomForCausalLM(tf.BloomConfig(vocab_size=50, hidden_size=32, n_layer=1)), "position_ids"),
        (lambda: tiny_llama(VOCABULARY, attn_implementation="flex_attention"), "not 'flex_attention'"),
        (
            lambda: tf.MistralForCausalLM(
                tf.MistralConfig(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                                 num_attention_heads=4, num_key_value_heads=2, sliding_window=16)
            ),
            "attention window of 16",
        ),
    ],
    ids=["no positions", "no mask", "window"],
)  # fmt: skip
def test_models_that_cannot_tell_packed_examples_apart_are_refused(model, message, rows) -> None:
    batch = PAD([PackedRows(rows, capacity=24)[0]])
    with pytest.raises(ValueError, match=message):
        packed_inputs(model(), batch["segment_ids"], batch["position_ids"])


def test_gradient_checkpointing_changes_nothing_but_memory(rows) -> None:
    batch = PAD([rows[i] for i in range(4)])
    losses, gradients = [], []
    for flag in (False, True):
        module = tuner(backbone_options=BackboneOptions(gradient_checkpointing=flag)).train()
        losses.append(module.step(batch).loss)
        losses[-1].backward()
        gradients.append([p.grad for p in module.parameters() if p.requires_grad])
        assert module.backbone.is_gradient_checkpointing is flag
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


def test_only_the_adapter_gets_a_gradient(rows) -> None:
    module = tuner()
    module.step(PAD([rows[0], rows[1]])).loss.backward()
    with_gradient = {name for name, p in module.backbone.named_parameters() if p.grad is not None}
    assert with_gradient == {f"{name}.adapters.all.factor_B" for name in adapter_layers(module.backbone)}


def test_the_output_layer_is_trained_in_full_fine_tuning(rows) -> None:
    module = InstructionTuner(tiny_llama(VOCABULARY), adapter=None, train_backbone=True)
    module.configure_model()
    module.step(PAD([rows[0], rows[1]])).loss.backward()
    plain = tiny_llama(VOCABULARY)
    losses = [transformers_loss(plain, rows[i]) for i in (0, 1)]
    (sum(losses) / sum(int((rows[i]["labels"][1:] != -100).sum()) for i in (0, 1))).backward()
    torch.testing.assert_close(module.backbone.lm_head.weight.grad, plain.lm_head.weight.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        module.backbone.model.embed_tokens.weight.grad, plain.model.embed_tokens.weight.grad, rtol=1e-4, atol=1e-6
    )


def test_prompts_are_padded_on_the_left_and_end_before_the_response() -> None:
    module = tuner()
    module.tokenizer = type("Tokenizer", (), {"pad_token_id": 0, "eos_token_id": 2})()
    batch = {
        "input_ids": torch.tensor([[1, 5, 6, 7, 2], [1, 8, 9, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "labels": torch.tensor([[-100, -100, -100, 7, 2], [-100, -100, 9, -100, -100]]),
    }
    ids, mask = module.prompts(batch).values()
    assert ids.tolist() == [[1, 5, 6], [0, 1, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 1, 1]]


def test_bad_arguments_and_too_long_batches_are_refused(rows) -> None:
    with pytest.raises(ValueError, match="`chunk_size` must be at least 1"):
        InstructionTuner("x", chunk_size=0)
    with pytest.raises(ValueError, match="`num_val_samples` must be at least 0 or null"):
        InstructionTuner("x", num_val_samples=-1)
    module = tuner()
    module._longest = 8
    with pytest.raises(ValueError, match="sequences of 12 tokens, but the backbone allows 8"):
        module.step(PAD([rows[3]]))
    packed = PAD([PackedRows(rows, capacity=24)[2]])  # rows longer than 8 of examples that are not
    assert packed["input_ids"].shape[1] > 8
    module.step(packed)
