"""PreferenceTuner: its losses against dense formulas and against trl, and its reference."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from asym_lightning.adapters import AdapterConfig, merge_adapters
from asym_lightning.modules import PreferenceTuner
from asym_lightning.modules.language.token_log_probabilities import token_log_probabilities
from asym_lightning.modules.texts.answer_tokens import AnswerTokens
from tests.adapters.models import perturb
from tests.language_models import tiny_llama

LOSSES = ("dpo", "ipo", "kto", "orpo", "simpo")
OPTIONS = {"beta": 0.3, "gamma": 0.7, "desirable_weight": 1.5, "undesirable_weight": 0.5}
ADAPTER = AdapterConfig(rank=2, targets=["q", "v"])


def tuner(loss="dpo", **options):
    module = PreferenceTuner(tiny_llama(40, initializer_range=0.3), **{"adapter": ADAPTER, "loss": loss, **options})
    module.configure_model()
    torch.manual_seed(1)
    perturb(module.backbone)
    return module.eval()


def side(prompts, answers, width):
    """Rows of tokens that are padded at their ends, and their labels."""
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    labels = [[-100] * len(p) + a + [-100] * (width - len(p) - len(a)) for p, a in zip(prompts, answers, strict=True)]
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor(labels)}


PROMPTS = [[1, 7, 8], [1, 9, 5, 6, 4], [1, 3]]
ANSWERS = {"chosen": [[11, 2], [12, 13, 14, 2], [15, 2]], "rejected": [[16, 17, 18, 2], [19, 2], [20, 21, 2]]}
SIDES = {name: side(PROMPTS, answers, width) for (name, answers), width in zip(ANSWERS.items(), (9, 8), strict=True)}
BATCH = {f"{name}_{key}": value for name, values in SIDES.items() for key, value in values.items()}


def log_probabilities(model, ids, labels):
    """Of each label by itself, and their number, of a row without padding."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    found = [logits[i].log_softmax(-1)[token] for i, token in enumerate(labels[1:]) if token >= 0]
    return torch.stack(found)


def by_hand(loss, policy, reference):
    """The loss of the batch by the formulas of the papers, an answer at a time."""

    def of(model, prompt, answer):
        return log_probabilities(model, prompt + answer, [-100] * len(prompt) + answer)

    b, losses = OPTIONS["beta"], []
    others = [p + a for p, a in zip(PROMPTS * 2, [*ANSWERS["chosen"][1:], *ANSWERS["rejected"], ANSWERS["chosen"][0]])]  # noqa: B905
    ratios = []
    for row, prompt in zip(others, PROMPTS * 2, strict=True):
        ratios.append(sum(s * of(m, prompt, row[len(prompt) :]).sum() for s, m in ((1, policy), (-1, reference))))
    z = torch.stack(ratios).mean().clamp(min=0)
    whole = [log_probabilities(policy, p + a, p + a) for p, a in zip(PROMPTS, ANSWERS["chosen"], strict=True)]
    for prompt, chosen, rejected in zip(PROMPTS, ANSWERS["chosen"], ANSWERS["rejected"], strict=True):
        c, r = (of(policy, prompt, answer) for answer in (chosen, rejected))
        ratio_c, ratio_r = (p.sum() - of(reference, prompt, a).sum() for p, a in ((c, chosen), (r, rejected)))
        odds_c, odds_r = (p.mean() - torch.log(1 - p.mean().exp()) for p in (c, r))
        losses.append(
            {
                "dpo": lambda: -F.logsigmoid(b * (ratio_c - ratio_r)),  # noqa: B023
                "ipo": lambda: (ratio_c / len(c) - ratio_r / len(r) - 1 / (2 * b)) ** 2,  # noqa: B023
                "kto": lambda: (1.5 * (1 - torch.sigmoid(b * (ratio_c - z)))  # noqa: B023
                                + 0.5 * (1 - torch.sigmoid(b * (z - ratio_r)))) / 2,  # noqa: B023
                "orpo": lambda: -torch.cat(whole).mean() - b * F.logsigmoid(odds_c - odds_r),  # noqa: B023
                "simpo": lambda: -F.logsigmoid(b * (c.mean() - r.mean()) - 0.7),  # noqa: B023
            }[loss]()
        )  # fmt: skip
    return torch.stack(losses).mean()


def merged(module):
    model = copy.deepcopy(module.backbone)
    merge_adapters(model, keep_weights=False)
    return model


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_that_of_the_paper(loss):
    module = tuner(loss, chunk_size=2, **OPTIONS)
    with torch.no_grad():
        expected = by_hand(loss, merged(module), tiny_llama(40, initializer_range=0.3))
    output = module.step(BATCH)
    torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=1e-6)
    assert output.predictions.shape == (3, 2) and not output.predictions.requires_grad
    output.loss.backward()
    gradients = [p.grad for p in module.parameters() if p.requires_grad]
    assert gradients and all(gradient.any() for gradient in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_that_of_trl(loss, tmp_path):
    pytest.importorskip("trl")
    module = tuner(loss, **OPTIONS)
    output = module.step(BATCH)
    expected, rewards = by_trl(loss, merged(module), tiny_llama(40, initializer_range=0.3), tmp_path)
    torch.testing.assert_close(output.loss.detach(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.predictions.mean(dim=0), rewards, rtol=0, atol=1e-5)


def by_trl(loss, policy, reference, folder):
    """The loss that trl's trainer computes of the batch, and its mean rewards."""
    import datasets
    import trl
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    from tests.language_models import byte_tokenizer

    common = {"output_dir": str(folder), "beta": OPTIONS["beta"], "report_to": [], "use_cpu": True, "bf16": False}
    data = {"prompt": ["a", "b"], "chosen": ["c", "d"], "rejected": ["e", "f"]}
    tokens = AnswerTokens.of_pairs(BATCH)
    inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask,
              "completion_mask": (tokens.labels != -100).long()}  # fmt: skip
    weights = {name: OPTIONS[name] for name in ("desirable_weight", "undesirable_weight")}
    single = {"prompt": ["a", "b"], "completion": ["c", "d"], "label": [True, False]}
    kinds = {
        "dpo": (trl.DPOTrainer, trl.DPOConfig, {"loss_type": "sigmoid"}, data),
        "ipo": (trl.DPOTrainer, trl.DPOConfig, {"loss_type": "ipo"}, data),
        "kto": (trl.KTOTrainer, trl.KTOConfig, {**weights, "per_device_train_batch_size": 2}, single),
        "orpo": (ORPOTrainer, ORPOConfig, {}, data),
        "simpo": (
            CPOTrainer,
            CPOConfig,
            {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": OPTIONS["gamma"]},
            data,
        ),
    }
    trainer_class, config, options, examples = kinds[loss]
    models = {"model": policy} if loss in ("orpo", "simpo") else {"model": policy, "ref_model": reference}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trainer_class(
            **models, args=config(**common, **options), train_dataset=datasets.Dataset.from_dict(examples),
            processing_class=byte_tokenizer(),
        )  # fmt: skip
    policy.eval()
    with torch.no_grad():
        if loss in ("orpo", "simpo"):
            found, metrics = trainer.get_batch_loss_metrics(policy, BATCH)
            return found, torch.tensor([float(metrics[f"rewards/{side}"]) for side in ("chosen", "rejected")])
        if loss == "kto":
            other = tokens.answers_of_others()
            inputs |= {"KL_input_ids": other.input_ids, "KL_attention_mask": other.attention_mask,
                       "KL_completion_mask": (other.labels != -100).long(), "label": torch.arange(6) < 3}  # fmt: skip
        found = trainer._compute_loss(policy, inputs, False)
    logged = trainer._metrics["eval"]
    return found, torch.tensor([logged[f"rewards/{side}"][0] for side in ("chosen", "rejected")])


def test_reference_is_the_backbone_to_the_bit_and_without_dropout():
    module = PreferenceTuner(
        tiny_llama(40, attention_dropout=0.5), AdapterConfig(rank=2, targets=["q", "v"], dropout=0.5)
    )
    module.configure_model()
    module.train()
    pairs = module.pairs(BATCH)
    plain = PreferenceTuner(tiny_llama(40), loss="simpo")
    plain.configure_model()
    expected = plain.eval().pairs(BATCH)
    assert torch.equal(pairs.chosen.reference, expected.chosen.sums)
    assert torch.equal(pairs.rejected.reference, expected.rejected.sums)
    assert module.backbone.training and module.backbone.model.layers[0].training


def test_before_the_first_step_no_answer_is_preferred():
    module = PreferenceTuner(tiny_llama(40), ADAPTER)
    module.configure_model()
    output = module.eval().step(BATCH)
    assert output.loss.item() == pytest.approx(0.693147, abs=1e-6)
    metrics = module.build_metrics()
    metrics.update(output.predictions, output.targets)
    assert {name: float(value) for name, value in metrics.compute().items()} == dict.fromkeys(
        ("accuracy", "margin", "chosen_reward", "rejected_reward"), pytest.approx(0, abs=1e-6)
    )


def test_metrics_are_means_over_all_pairs():
    metrics = tuner().build_metrics()
    for rewards in ([[2.0, 1.0], [0.0, 3.0]], [[1.0, 0.0]]):
        metrics.update(torch.tensor(rewards), torch.zeros(len(rewards)))
    found = {name: float(value) for name, value in metrics.compute().items()}
    expected = {"accuracy": 2 / 3, "margin": -1 / 3, "chosen_reward": 1, "rejected_reward": 4 / 3}
    assert found == pytest.approx(expected)


def test_answers_of_others_are_to_other_prompts():
    others = AnswerTokens.of_pairs(BATCH).answers_of_others()
    rows = [row[mask.bool()].tolist() for row, mask in zip(others.input_ids, others.attention_mask, strict=True)]
    answers = [*ANSWERS["chosen"][1:], *ANSWERS["rejected"], ANSWERS["chosen"][0]]
    assert rows == [prompt + answer for prompt, answer in zip(PROMPTS * 2, answers, strict=True)]
    assert [row[row >= 0].tolist() for row in others.labels] == answers


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_log_probabilities_and_gradients_do_not_depend_on_chunks(chunk_size):
    torch.manual_seed(0)
    layer, targets = nn.Linear(4, 7), torch.tensor([[1, -100, 3], [6, 0, -100]])
    results = []
    for chunked in (True, False):
        torch.manual_seed(1)
        hidden = torch.randn(2, 3, 4, requires_grad=True)
        if chunked:
            positions = (targets.flatten() >= 0).nonzero().flatten()
            found = token_log_probabilities(hidden, targets, positions, layer, chunk_size)
        else:
            picked = layer(hidden).log_softmax(-1).gather(2, targets.clamp(min=0)[..., None]).squeeze(-1)
            found = picked.where(targets >= 0, 0.0)
        layer.zero_grad()
        found.square().sum().backward()
        results.append((found.detach(), hidden.grad, layer.weight.grad.clone()))
    for ours, dense in zip(*results, strict=True):
        torch.testing.assert_close(ours, dense)


def test_what_has_no_reference_is_refused():
    for loss in ("dpo", "ipo", "kto"):
        with pytest.raises(ValueError, match=f"`loss: {loss}` needs an `adapter`"):
            PreferenceTuner("x", train_backbone=True, loss=loss)
    head = PreferenceTuner(tiny_llama(40), AdapterConfig(rank=2, targets=["q"], heads=["lm_head"]))
    with pytest.raises(
        ValueError, match=r"compares with the backbone as it was, but `lm_head\.weight` would train too"
    ):
        head.configure_model()
    with pytest.raises(
        ValueError, match="`loss` must be one of dpo, ipo, kto, orpo, simpo, not 'dp0': did you mean dpo"
    ):
        PreferenceTuner("x", loss="dp0")
    with pytest.raises(ValueError, match="`beta` must be positive"):
        PreferenceTuner("x", ADAPTER, beta=0.0)


@pytest.mark.parametrize("side_name", ["chosen", "rejected"])
def test_pairs_without_an_answer_are_refused_before_the_loss_is_nan(side_name):
    labels = BATCH[f"{side_name}_labels"].clone()
    labels[1] = -100
    labels[1, 0] = 7  # nothing comes before the first token that could predict it
    module = tuner("simpo")
    with pytest.raises(ValueError, match=f"^pair 1 of a batch has no {side_name} answer: its `{side_name}_labels` are"):
        module.on_before_batch_transfer({**BATCH, f"{side_name}_labels": labels}, 0)
    assert "answer_tokens" in module.on_before_batch_transfer(BATCH, 0)
