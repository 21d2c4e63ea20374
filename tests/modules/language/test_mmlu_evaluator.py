"""MMLU: prompts byte for byte, scores equal to one prompt at a time, and what happens to bad input."""

import csv
import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from lightning.pytorch import Trainer

from asym_lightning.adapters import AdapterConfig, inject_adapters, save_adapters
from asym_lightning.data import LoaderOptions, MMLUDataModule
from asym_lightning.data.language.mmlu_prompts import HendrycksPrompt, PaperCodePrompt, Question
from asym_lightning.modules.language.mmlu_evaluator import MMLUEvaluator
from asym_lightning.modules.language.mmlu_report import CATEGORIES
from tests.adapters.models import perturb
from tests.language_models import byte_tokenizer, saved, tiny_llama, word_tokenizer

SUBJECTS = ("abstract_algebra", "philosophy", "sociology")


def write_questions(folder: Path, num_questions: int = 7, changed: dict | None = None) -> Path:
    """Files in the original layout; cells of all the kinds that spreadsheets mistake."""
    generator = torch.Generator().manual_seed(0)
    cells = ["None", "NA", "nan", "1,000", 'say "so"', "null", "x" * 30, "Two\nlines"]
    for split, count in {"dev": 5, "test": num_questions}.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for subject in SUBJECTS:
            draw = torch.randint(0, 8, (count, 5), generator=generator).tolist()
            rows = [[f"What is {cells[a]}, case {i}?", *(cells[x] for x in rest), "ABCD"[sum(rest) % 4]]
                    for i, (a, *rest) in enumerate(draw)]  # fmt: skip
            for (name, row, column), value in (changed or {}).items():
                if name == f"{subject}_{split}":
                    rows[row][column] = value
            with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_questions(tmp_path_factory.mktemp("mmlu"))


@pytest.fixture(scope="module")
def tokenizer() -> tf.PreTrainedTokenizerFast:
    return byte_tokenizer()


def run(model, data: MMLUDataModule, tmp_path: Path, **arguments) -> tuple[MMLUEvaluator, dict]:
    module = MMLUEvaluator(model, **arguments)
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu", enable_progress_bar=False)
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)
    return module.eval(), metrics


def data_module(folder: Path, tokenizer, tmp_path: Path, **arguments) -> MMLUDataModule:
    return MMLUDataModule(folder, tokenizer=tokenizer, cache_dir=tmp_path / "cache", **arguments)


def direct_log_probs(model, tokenizer, prompt: str) -> torch.Tensor:
    """The slow way: the whole prompt, alone, without a cache."""
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        return model(ids, use_cache=False).logits[0, -1].float().log_softmax(-1)


def read_direct(folder: Path, split: str, subject: str) -> list[Question]:
    with (folder / split / f"{subject}_{split}.csv").open(newline="") as file:
        return [Question(row[0], tuple(row[1:5]), row[5]) for row in csv.reader(file)]


def test_hendrycks_prompt_is_the_original_byte_for_byte() -> None:
    # Written out by hand from evaluate.py: `format_subject` leaves a space, so that there are two before the subject.
    shot = Question("Is it?", ("yes", "no", "None", "NA"), "C")
    asked = Question("And\nnow?", ("1", "2", "3", "4"), "A")
    assert HendrycksPrompt()("us_foreign_policy", [shot], asked) == (
        "The following are multiple choice questions (with answers) about  us foreign policy.\n\n"
        "Is it?\nA. yes\nB. no\nC. None\nD. NA\nAnswer: C\n\n"
        "And\nnow?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    )


def test_paper_code_prompt_is_that_of_the_released_helper() -> None:
    shot = Question("Is it?", ("yes", "no", "None", "NA"), "C")
    asked = Question("Now?", ("1", "2", "3", "4"), "A")
    assert PaperCodePrompt()("astronomy", [shot], asked) == (
        "Question: Is it?\nA. yes\nB. no\nC. None\nD. NA\nAnswer:C\n\n\n\n"
        "Question: Now?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    )
    assert PaperCodePrompt()("astronomy", [], asked).startswith("Question: Now?")
    assert PaperCodePrompt().without_a_shot([1, 2, 3]) == [1, 3]


def test_there_are_57_subjects_in_four_categories() -> None:
    assert {name: len(subjects) for name, subjects in CATEGORIES.items()} == {
        "stem": 18, "humanities": 13, "social_sciences": 12, "other": 14
    }  # fmt: skip
    assert len({subject for subjects in CATEGORIES.values() for subject in subjects}) == 57


FAMILIES = {
    "llama": tf.LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
                            num_key_value_heads=2, max_position_embeddings=2048, initializer_range=0.3),
    "gpt2": tf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=2048, initializer_range=0.3),
    "mistral": tf.MistralConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
                                num_key_value_heads=2, sliding_window=64, initializer_range=0.3),
    "bloom": tf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_shots", [0, 5])
def test_log_probabilities_equal_one_prompt_at_a_time(family, num_shots, folder, tokenizer, tmp_path) -> None:
    torch.manual_seed(0)
    config = FAMILIES[family]
    config.vocab_size = len(tokenizer)
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    data = data_module(
        folder,
        tokenizer,
        tmp_path,
        num_shots=num_shots,
        loader=LoaderOptions(eval_batch_size=4),
        subjects=["sociology"],
    )
    module, _ = run(model, data, tmp_path)
    shots, questions = read_direct(folder, "dev", "sociology"), read_direct(folder, "test", "sociology")
    (loader,) = data.test_dataloader()
    seen = {}
    for batch in loader:
        for row, log_probs in zip(batch["row"].tolist(), module.next_log_probs(batch), strict=True):
            seen[row] = log_probs
    expected = [
        direct_log_probs(model, tokenizer, HendrycksPrompt()("sociology", shots[:num_shots], q)) for q in questions
    ]
    torch.testing.assert_close(torch.stack([seen[i] for i in range(7)]), torch.stack(expected), rtol=0, atol=1e-4)
    assert len(next(iter(loader))["prefix"]) > (300 if num_shots else 5)


@pytest.mark.parametrize("share_prefix", [True, False])
def test_results_by_subject_category_and_overall(share_prefix, folder, tokenizer, tmp_path, capsys) -> None:
    model = tiny_llama(len(tokenizer), initializer_range=0.3)
    data = data_module(folder, tokenizer, tmp_path, loader=LoaderOptions(eval_batch_size=3), share_prefix=share_prefix)
    _, metrics = run(model, data, tmp_path)
    right = {}
    letters = [tokenizer(f"Answer: {letter}")["input_ids"][-1] for letter in "ABCD"]
    for subject in SUBJECTS:
        shots = read_direct(folder, "dev", subject)
        questions = read_direct(folder, "test", subject)
        scores = [direct_log_probs(model, tokenizer, HendrycksPrompt()(subject, shots, q))[letters] for q in questions]
        right[subject] = sum("ABCD"[int(s.argmax())] == q.answer for s, q in zip(scores, questions, strict=True))
    assert metrics["test/accuracy"] == pytest.approx(sum(right.values()) / 21)
    assert metrics["test/sociology/accuracy"] == pytest.approx(right["sociology"] / 7)
    assert metrics["test/stem/accuracy"] == pytest.approx(right["abstract_algebra"] / 7)
    written = json.loads((tmp_path / "mmlu.json").read_text())
    assert written["overall"] == {
        "right": sum(right.values()),
        "questions": 21,
        "accuracy": pytest.approx(sum(right.values()) / 21),
    }
    assert {name: s["right"] for name, s in written["subjects"].items()} == right
    assert "social_sciences" in capsys.readouterr().out


def test_paper_format_takes_the_most_likely_token_of_all(folder, tokenizer, tmp_path) -> None:
    model = tiny_llama(len(tokenizer), initializer_range=0.3)
    data = data_module(folder, tokenizer, tmp_path, prompt_format="paper_code", subjects=["philosophy"])
    module, _ = run(model, data, tmp_path)
    shots, questions = read_direct(folder, "dev", "philosophy"), read_direct(folder, "test", "philosophy")
    for batch in data.test_dataloader()[0]:
        for row, letter in zip(batch["row"].tolist(), module.predicted_letters(batch).tolist(), strict=True):
            prompt = PaperCodePrompt()("philosophy", shots, questions[row])
            said = tokenizer.decode([int(direct_log_probs(model, tokenizer, prompt).argmax())]).strip().upper()
            assert letter == ("ABCD".index(said) if said in tuple("ABCD") else -1)
    biased = dict(batch)
    biased["letter_ids"] = torch.arange(len(tokenizer))
    biased["letter_of_id"] = torch.full((len(tokenizer),), 2)
    assert (module.predicted_letters(biased) == 2).all()  # whatever the model says is then a C


def test_an_adapted_model_is_scored_with_its_adapter(folder, tokenizer, tmp_path) -> None:
    data = data_module(folder, tokenizer, tmp_path, subjects=["sociology"])
    config = AdapterConfig(rank=4, alpha=64, targets=["q", "v"])
    model = tiny_llama(len(tokenizer), initializer_range=0.3)
    inject_adapters(model, config)
    perturb(model)
    save_adapters(model, tmp_path / "adapter")
    adapted, _ = run(
        tiny_llama(len(tokenizer), initializer_range=0.3), data, tmp_path, adapter_directory=tmp_path / "adapter"
    )
    batch = next(iter(data.test_dataloader()[0]))
    ids = torch.cat([batch["prefix"].expand(len(batch["input_ids"]), -1), batch["input_ids"]], 1)[:1]
    length = len(batch["prefix"]) + int(batch["attention_mask"][0].sum())
    with torch.no_grad():
        expected = model.eval()(ids[:, :length]).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(adapted.next_log_probs(batch)[0], expected, rtol=0, atol=1e-4)


def test_shots_are_dropped_from_prompts_that_are_too_long(folder, tokenizer, tmp_path) -> None:
    data = data_module(folder, tokenizer, tmp_path, max_length=450, subjects=["sociology"])
    data.setup("test")
    shots, questions = read_direct(folder, "dev", "sociology"), read_direct(folder, "test", "sociology")
    kept = data.rows["test"].numbers["num_shots"].tolist()
    assert 0 < min(kept) <= max(kept) < 5
    for row, (question, count) in enumerate(zip(questions, kept, strict=True)):
        prompt = tokenizer(HendrycksPrompt()("sociology", shots[:count], question))["input_ids"]
        longer = tokenizer(HendrycksPrompt()("sociology", shots[: count + 1], question))["input_ids"]
        assert len(prompt) <= 450 < len(longer)
        assert data.rows["test"].sequences["input_ids"][row].tolist() == prompt


def test_a_question_that_fills_the_window_is_left_out_and_reported(tokenizer, tmp_path, capsys) -> None:
    folder = write_questions(tmp_path / "mmlu", changed={("sociology_test", 2, 0): "why? " * 400})
    data = data_module(folder, tokenizer, tmp_path, max_length=700)
    with pytest.warns(UserWarning, match="1 questions are longer than 700 tokens without any shot"):
        _, metrics = run(tiny_llama(len(tokenizer)), data, tmp_path)
    written = json.loads((tmp_path / "mmlu.json").read_text())
    assert written["questions_left_out_as_too_long"] == {"sociology": 1}
    assert written["subjects"]["sociology"]["questions"] == 6
    assert "(1 too long)" in capsys.readouterr().out
    assert all(value == value for value in metrics.values())  # no NaN


def test_every_question_too_long_is_refused(folder, tokenizer, tmp_path) -> None:
    with pytest.raises(ValueError, match="every question alone is longer than `max_length` \\(30 tokens\\)"):
        data_module(folder, tokenizer, tmp_path, max_length=30).setup("test")


def test_an_answer_that_is_no_letter_is_an_error_with_file_and_line(tokenizer, tmp_path) -> None:
    folder = write_questions(tmp_path / "mmlu", changed={("philosophy_test", 0, 5): "E"})
    with pytest.raises(ValueError, match=r"philosophy_test\.csv, line \d+: the answer 'E' is none of A, B, C, D\."):
        data_module(folder, tokenizer, tmp_path).setup("test")


def test_a_missing_cell_is_an_error_with_file_and_line(tokenizer, tmp_path) -> None:
    folder = write_questions(tmp_path / "mmlu")
    (folder / "dev" / "sociology_dev.csv").write_text("Why?,a,b,c,d,A\nWhy?,a,b,c,A\n")
    with pytest.raises(ValueError, match=r"sociology_dev\.csv, line 2: there are 5 cells where 6 are expected"):
        data_module(folder, tokenizer, tmp_path).setup("test")


def test_letters_that_are_not_distinct_are_refused(folder, tmp_path) -> None:
    lower_case_words = word_tokenizer(["answer : a b c"])  # no d, so that it is unknown
    with pytest.raises(ValueError, match="does not tell the letters A to D after 'Answer:' apart"):
        data_module(folder, lower_case_words, tmp_path).setup("test")


def test_other_bad_input(folder, tokenizer, tmp_path) -> None:
    with pytest.raises(ValueError, match="has no subject 'sociologie': did you mean sociology"):
        data_module(folder, tokenizer, tmp_path, subjects=["sociologie"]).setup("test")
    with pytest.raises(FileNotFoundError, match=r"no files test/<subject>_test\.csv"):
        data_module(tmp_path / "nowhere", tokenizer, tmp_path).setup("test")
    with pytest.raises(ValueError, match="`num_shots` must be between 0 and 5"):
        data_module(folder, tokenizer, tmp_path, num_shots=6)
    with pytest.raises(ValueError, match="nothing to fit"):
        data_module(folder, tokenizer, tmp_path).setup("fit")
    with pytest.raises(ValueError, match=r"a prompt has .* tokens, but the backbone allows 64"):
        run(short_llama(tokenizer), data_module(folder, tokenizer, tmp_path), tmp_path)
    with pytest.raises(ValueError, match="two ways to say the same"):
        MMLUEvaluator("x", adapter=AdapterConfig(), adapter_directory="y")


def short_llama(tokenizer) -> tf.LlamaForCausalLM:
    return tf.LlamaForCausalLM(
        tf.LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                       num_attention_heads=2, max_position_embeddings=64)
    )  # fmt: skip


def test_runs_from_the_command_line(folder, tokenizer, tmp_path, monkeypatch, capsys) -> None:
    from asym_lightning.cli import main

    backbone = saved(tmp_path / "model", tiny_llama(len(tokenizer)), tokenizer)
    monkeypatch.chdir(tmp_path)
    config = f"""
model:
  class_path: MMLUEvaluator
  backbone: {backbone}
data:
  class_path: MMLUDataModule
  folder: {folder}
  subjects: [sociology]
  cache_dir: {tmp_path / "cache"}
trainer: {{accelerator: cpu, enable_progress_bar: false}}
"""
    (tmp_path / "mmlu.yaml").write_text(config)
    assert main(["test", "--config", "mmlu.yaml"]) == 0
    assert "sociology" in capsys.readouterr().out
    assert list(tmp_path.glob("runs/mmlu/version_0/mmlu.json"))
