"""`asym-lightning generate`: what the module itself predicts, and what plain transformers writes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from asym_lightning.cli import main
from asym_lightning.data.language.prompts import alpaca_prompt
from tests.cli.writers import CHAT, RECORDS, base_model, random_adapter, tuned_run
from tests.language_models import saved, tiny_bart, word_tokenizer, write_jsonl

NEW = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a base model, two adapters of different shapes, and a tuned run."""
    folder = tmp_path_factory.mktemp("writers")
    base = base_model(folder / "base")
    random_adapter(folder / "first", base, seed=1)
    random_adapter(folder / "second", base, seed=2, rank=2, targets="all-linear")
    tuned_run(folder)
    return folder


@pytest.fixture(autouse=True)
def working_directory(folder, tmp_path, monkeypatch) -> None:
    for name in ("base", "first", "second", "run", "llama", "alpaca.json"):
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.chdir(tmp_path)


def generate(*arguments: str) -> list[dict]:
    """The rows that the command writes."""
    assert main(["generate", *arguments, "--out", "out.jsonl"]) == 0
    return [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]


def plain(model, tokenizer, prompt: str, **options) -> str:
    """What transformers alone writes, a prompt at a time."""
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    ids = model.generate(**inputs, **{"max_new_tokens": NEW, **options})
    new = ids if model.config.is_encoder_decoder else ids[:, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(new[0], skip_special_tokens=True).strip()


def with_adapter(name: str | None):
    model = AutoModelForCausalLM.from_pretrained("base")
    return (PeftModel.from_pretrained(model, name) if name else model).eval()


def test_a_run_answers_as_its_module_predicts_and_as_the_merged_model(folder, capsys):
    rows = generate("run/version_0", "--prompts", "alpaca.json", "--batch-size", "5")
    assert [{k: v for k, v in row.items() if k != "response"} for row in rows] == RECORDS

    checkpoint = str(next(Path("run/version_0").glob("**/*.ckpt")))
    assert main(["predict", "--config", str(folder / "config.yaml"), "--ckpt_path", checkpoint]) == 0
    (predicted,) = folder.glob("run/version_*/responses.jsonl")
    expected = [json.loads(line)["response"] for line in predicted.read_text().splitlines()]
    assert [row["response"] for row in rows] == expected
    assert len(set(expected)) > 3  # of them

    assert main(["merge", "run/version_0", "--output", "merged"]) == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained("merged").eval(), AutoTokenizer.from_pretrained("merged")
    for row in rows[:4]:
        assert plain(model, tokenizer, alpaca_prompt(row["instruction"], row.get("input", ""))) == row["response"]
    base = AutoModelForCausalLM.from_pretrained("llama").eval()
    assert plain(base, tokenizer, alpaca_prompt(RECORDS[0]["instruction"])) != expected[0]


def test_one_prompt_is_streamed_to_the_screen(capsys):
    (row,) = generate("run/version_0", "--prompt", "Name 3.")
    capsys.readouterr()
    assert main(["generate", "run/version_0", "--prompt", "Name 3."]) == 0
    assert capsys.readouterr().out.strip() == row["response"] != ""
    assert main(["generate", "run/version_0", "--prompt", "Name 3.", "--num-beams", "2"]) == 0
    beams = capsys.readouterr().out.strip()
    assert beams == generate("run/version_0", "--prompt", "Name 3.", "--num-beams", "2")[0]["response"]


@pytest.mark.parametrize("name", ["first", "second"])
def test_an_adapter_directory_is_laid_over_its_base(name):
    tokenizer = AutoTokenizer.from_pretrained("base")
    (row,) = generate(name, "--base", "base", "--prompt", "Name 3.", "--max-new-tokens", str(NEW))
    expected = plain(with_adapter(name), tokenizer, "Name 3.")
    assert row["response"] == expected != plain(with_adapter(None), tokenizer, "Name 3.")
    assert generate(name, "--prompt", "Name 3.", "--max-new-tokens", str(NEW)) == [row]  # its config names the base


def test_an_adapter_that_peft_wrote_and_its_trained_head_leave_the_base_as_it_was(tmp_path):
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained("base")
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name or "lm_head.modules_to_save" in name:
                parameter.normal_()
    tuned.save_pretrained("of_peft")
    rows = [{"prompt": "Name 3.", "adapter": name} for name in ("base", "peft", "first", "base")]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    limit = ("--max-new-tokens", str(NEW))
    named = ("--adapter", "peft=of_peft", "--adapter", "first=first")
    written = generate("base", *named, "--prompts", "rows.jsonl", *limit)
    tokenizer = AutoTokenizer.from_pretrained("base")
    expected = [plain(with_adapter(name), tokenizer, "Name 3.") for name in (None, "of_peft", "first", None)]
    assert [row["response"] for row in written] == expected
    assert len(set(expected)) == 3


def test_each_row_is_answered_with_the_adapter_that_it_names(tmp_path):
    names = ["second", "", "base", "first", "second"]
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": f"Name {i}.", "adapter": name} for i, name in enumerate(names)])
    options = ("--adapter", "second=second", "--adapter", "first=first", "--max-new-tokens", str(NEW))
    tokenizer = AutoTokenizer.from_pretrained("base")

    def expected(default):
        models = {name: with_adapter({"base": None, "": default}.get(name, name)) for name in names}
        return [plain(models[name], tokenizer, f"Name {i}.") for i, name in enumerate(names)]

    rows = generate("base", "--prompts", "rows.jsonl", *options)
    assert [row["response"] for row in rows] == expected(None)
    rows = generate("base", "--prompts", "rows.jsonl", "--use", "first", *options)
    assert [row["response"] for row in rows] == expected("first")
    rows = generate("first", "--prompts", "rows.jsonl", *options)
    assert [row["response"] for row in rows] == expected("first")


def test_the_adapter_of_a_run_comes_back_after_another(tmp_path):
    other = random_adapter(tmp_path / "other", "llama", seed=3)
    rows = [{"prompt": "Name 3.", "adapter": name} for name in ("other", "base", None)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    written = generate("run/version_0", "--adapter", f"other={other}", "--prompts", "rows.jsonl")
    responses = [row["response"] for row in written]
    assert responses[2:] == [generate("run/version_0", "--prompt", "Name 3.")[0]["response"]]
    alpaca = ("--template", "alpaca", "--max-new-tokens", str(NEW))
    assert responses[1:2] == [generate("llama", "--prompt", "Name 3.", *alpaca)[0]["response"]]
    assert responses[:1] == [generate(other, "--prompt", "Name 3.", *alpaca)[0]["response"]]
    assert len(set(responses)) == 3


def test_the_template_is_the_tokenizers_where_no_run_has_one(tmp_path):
    base_model(tmp_path / "chatty", CHAT)
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}]
    write_jsonl(tmp_path / "rows.jsonl", [
        {"prompt": "Hi."}, {"instruction": "Add.", "input": "1"}, {"messages": [*turns, turns[0]]}, {"messages": turns},
    ])  # fmt: skip
    rows = generate("chatty", "--prompts", "rows.jsonl", "--max-new-tokens", str(NEW))
    model, tokenizer = AutoModelForCausalLM.from_pretrained("chatty").eval(), AutoTokenizer.from_pretrained("chatty")
    texts = [
        "<|user|>\nHi.</s>\n", "<|user|>\nAdd.\n\n1</s>\n",
        "<|user|>\nHi.</s>\n<|assistant|>\nYes?</s>\n<|user|>\nHi.</s>\n", "<|user|>\nHi.</s>\n",
    ]  # fmt: skip
    for row, text in zip(rows, texts, strict=True):
        ids = tokenizer(f"{text}<|assistant|>\n", add_special_tokens=False, return_tensors="pt")["input_ids"]
        new = model.generate(ids, max_new_tokens=NEW)[0, ids.shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == row["response"]


def test_an_encoder_decoder_reads_its_prompts_padded_on_the_right(tmp_path):
    texts = ["one two three four", "five", "six seven"]
    tokenizer = word_tokenizer(texts, encoder_decoder=True)
    saved(tmp_path / "bart", tiny_bart(len(tokenizer), init_std=0.3), tokenizer)
    (tmp_path / "rows.csv").write_text("id,prompt\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    rows = generate("bart", "--prompts", "rows.csv", "--max-new-tokens", str(NEW), "--min-new-tokens", "3")
    model = AutoModelForSeq2SeqLM.from_pretrained("bart").eval()
    assert rows == [
        {"id": str(i), "prompt": text, "response": plain(model, tokenizer, text, min_new_tokens=3)}
        for i, text in enumerate(texts)
    ]


def test_rows_come_from_standard_input_and_go_to_the_screen(monkeypatch, capsys):
    class Input:
        buffer = io.BytesIO(b'{"prompt": "Name 3.", "id": 7}\n')

    monkeypatch.setattr("sys.stdin", Input)
    assert main(["generate", "base", "--prompts", "-", "--max-new-tokens", "3", "--field", "answer"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert list(row) == ["prompt", "id", "answer"]
    assert row["id"] == 7


def test_sampling_goes_by_the_seed_and_weights_by_the_precision(capsys):
    sampled = [
        generate("base", "--prompt", "Name 3.", "--do-sample", "--temperature", "2", "--seed", str(seed))[0]["response"]
        for seed in (0, 0, 1)
    ]
    assert sampled[0] == sampled[1] != sampled[2]
    for source in ("run/version_0", "first"):
        assert main(["generate", source, "--prompt", "Name 3.", "--dtype", "bfloat16", "--device", "cpu"]) == 0


NOT_WRITTEN = {
    "neither prompt nor file": (["base"], 2, "`generate` takes either a `--prompt` or `--prompts`."),
    "both": (["base", "--prompt", "a", "--prompts", "b"], 2, "takes either"),
    "file that there is not": (["base", "--prompts", "no.jsonl"], 1, "there is no file 'no.jsonl'."),
    "suffix": (["base", "--prompts", "base/config.yaml"], 1, "there is no file 'base/config.yaml'."),
    "row that asks nothing": (
        ["base", "--prompts", "nothing.jsonl"], 1,
        "nothing.jsonl, line 2: there is none of `prompt`, `instruction` and `messages`, but `question`, `id`.",
    ),
    "row with an unknown adapter": (
        ["base", "--adapter", "first=first", "--prompts", "unknown.jsonl"], 1,
        "unknown.jsonl, line 1: `adapter` must be one of first, base, not 'frist': did you mean first?",
    ),
    "row that is answered": (["base", "--prompts", "answered.jsonl"], 1, "line 1: there is a `response` already"),
    "empty file": (["base", "--prompts", "empty.jsonl"], 1, "empty.jsonl has no rows."),
    "unknown adapter": (
        ["base", "--adapter", "first=first", "--prompt", "a", "--use", "second"], 1,
        "`--use` must be one of first, base, not 'second'",
    ),
    "adapter without a name": (["base", "--adapter", "first", "--prompt", "a"], 2, "'first' is not NAME=DIR"),
    "adapter by a name that is taken": (
        ["base", "--adapter", "base=first", "--prompt", "a"], 2, "the adapter's name 'base' stands for no adapter",
    ),
    "adapter that is not there": (
        ["base", "--adapter", "x=none", "--prompt", "a"], 1,
        "the adapter 'x' is not there: 'none' holds no adapter_config.json.",
    ),
    "model that is not there": (["none", "--prompt", "a"], 1, "there is no tokenizer in 'none'"),
    "no chat template": (
        ["base", "--prompt", "a", "--template", "chat"], 1, "has no chat template: use the template `alpaca`.",
    ),
    "messages without a template": (
        ["base", "--prompts", "messages.jsonl"], 1, "line 1: `messages` take a template, `chat` or `alpaca`.",
    ),
    "base of a model": (["base", "--base", "base", "--prompt", "a"], 1, "`--base` is for an adapter directory, which"),
    "checkpoint of a model": (["base", "--checkpoint", "x", "--prompt", "a"], 1, "`--checkpoint` is for a run, which"),
    "length": (["base", "--prompt", "a", "--max-new-tokens", "0"], 1, "`--max-new-tokens` must be at least 1, not 0."),
    "batch size": (["base", "--prompt", "a", "--batch-size", "0"], 1, "`--batch-size` must be at least 1, not 0."),
    "prompt that is too long": (
        ["base", "--prompt", "a", "--max-new-tokens", "2047"], 1,
        "the prompt has 2 tokens, and with 2,047 of the answer that is more than the 2,048 that the model allows.",
    ),
    "device": (["base", "--prompt", "a", "--device", "gpu"], 1, "`--device gpu` can't be used: "),
    "option": (["base", "--promt", "a"], 2, "has no option '--promt': did you mean --prompt?"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "sentence"), NOT_WRITTEN.values(), ids=NOT_WRITTEN.keys())
def test_what_is_not_written_is_one_sentence_and_leaves_no_file(arguments, code, sentence, tmp_path, capsys):
    for name, rows in {
        "nothing": [{"prompt": "a"}, {"question": "b", "id": 3}],
        "unknown": [{"prompt": "a", "adapter": "frist"}],
        "answered": [{"prompt": "a", "response": "b"}],
        "messages": [{"messages": [{"role": "user", "content": "a"}]}],
        "empty": [],
    }.items():
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    before = sorted(tmp_path.iterdir())
    assert main(["generate", *arguments, "--out", "out.jsonl"]) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert sentence in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_that_is_no_language_model_is_refused(tmp_path, capsys):
    small = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--test_after_fit=false", "--quiet"]
    assert main(["fit", "--config=quickstart", *small]) == 0
    capsys.readouterr()
    assert main(["generate", "runs/quickstart/version_0", "--prompt", "a"]) == 1
    sentence = "the run 'runs/quickstart/version_0' trained a ImageClassifier, which writes no text."
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"error: {sentence}"
