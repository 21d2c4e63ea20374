"""Alpaca and chat data: what is learnt, what is left out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import transformers as tf

from asym_lightning.data import AlpacaDataModule, LoaderOptions
from asym_lightning.data.language.prompts import alpaca_prompt
from tests.language_models import byte_tokenizer, word_tokenizer, write_jsonl

RECORDS = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue."},
    {"instruction": "Add the numbers.", "input": "1 and 2", "output": "3,\n\n  of course\n"},
    {"instruction": "Say it in Greek: {input}", "output": "  ναι — yes"},
    {"instruction": "Say nothing.", "input": None, "output": ""},
]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> tf.PreTrainedTokenizerFast:
    return byte_tokenizer([alpaca_prompt("Name a colour.", "blue")], size=400)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps(RECORDS, indent=2, ensure_ascii=False), encoding="utf-8")
    return path


def data_module(file: Path, tokenizer, **arguments) -> AlpacaDataModule:
    return AlpacaDataModule(
        **{"train": file, "num_val": 0, "tokenizer": tokenizer, "cache_dir": file.parent / "cache", **arguments}
    )


def learnt(data: AlpacaDataModule, row: int, split: str = "train") -> tuple[str, str]:
    """The text that is given and the text that is learnt."""
    item = data.rows[split][row]
    is_learnt = item["labels"] != -100
    assert np.array_equal(item["labels"][is_learnt], item["input_ids"][is_learnt])
    decode = data.tokenizer.decode
    return decode(item["input_ids"][~is_learnt]), decode(item["input_ids"][is_learnt])


def test_prompts_are_those_of_stanford_alpaca() -> None:
    assert alpaca_prompt("Do.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nDo.\n\n### Response:"
    )
    assert alpaca_prompt("Do.", "This {instruction}.") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nDo.\n\n### Input:\nThis {instruction}.\n\n### Response:"
    )


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_the_response_and_its_end_are_learnt_and_nothing_else(suffix, file, tokenizer) -> None:
    if suffix == ".jsonl":
        file = write_jsonl(file.with_suffix(suffix), RECORDS)
    data = data_module(file, tokenizer)
    data.setup("fit")
    for row, record in enumerate(RECORDS):
        prompt = "<s>" + alpaca_prompt(record["instruction"], record.get("input") or "")
        assert learnt(data, row) == (prompt, record["output"] + "</s>")


def test_labels_equal_those_of_the_reference_code(file, tokenizer) -> None:
    """Prompt and whole are tokenised separately there, and as many labels masked as the prompt has tokens."""
    data = data_module(file, tokenizer)
    data.setup("fit")
    for row, record in enumerate(RECORDS[:3]):
        prompt = alpaca_prompt(record["instruction"], record.get("input") or "")
        whole = tokenizer(prompt + record["output"] + tokenizer.eos_token)["input_ids"]
        num_given = len(tokenizer(prompt)["input_ids"])
        item = data.rows["train"][row]
        assert item["input_ids"].tolist() == whole
        assert item["labels"].tolist() == [-100] * num_given + whole[num_given:]


def test_every_turn_of_the_assistant_is_learnt_with_a_chat_template(tmp_path, tokenizer) -> None:
    tokenizer = byte_tokenizer(["user assistant"], size=300)
    tokenizer.chat_template = CHAT_TEMPLATE
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "\nHello."},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Ciao."},
    ]
    file = write_jsonl(
        tmp_path / "chat.jsonl", [{"messages": messages}, {"instruction": "A", "input": "B", "output": "C"}]
    )
    data = data_module(file, tokenizer, template="chat")
    data.setup("fit")
    given, said = learnt(data, 0)
    assert said == "\nHello.</s>\nCiao.</s>\n"
    assert given == "<|user|>\nHi</s>\n<|assistant|>\n<|user|>\nBye</s>\n<|assistant|>\n"  # no second <s> in front
    assert learnt(data, 1) == ("<|user|>\nA\n\nB</s>\n<|assistant|>\n", "C</s>\n")


def test_a_prompt_that_fills_the_window_is_dropped_and_counted(file, tokenizer) -> None:
    file = write_jsonl(file.with_suffix(".jsonl"), [*RECORDS, {"instruction": "x" * 400, "output": "y"}])
    data = data_module(file, tokenizer, max_length=100)
    with pytest.warns(UserWarning, match="1 records of train were left out: their prompts alone fill the 100 tokens"):
        data.setup("fit")
    assert len(data.rows["train"]) == 4
    for batch in data.train_dataloader():
        assert (batch["labels"] != -100).any(dim=1).all()


def test_a_long_response_is_cut_and_counted(file, tokenizer) -> None:
    file = write_jsonl(file.with_suffix(".jsonl"), [{"instruction": "Go.", "output": "z" * 400}])
    data = data_module(file, tokenizer, max_length=100)
    with pytest.warns(UserWarning, match="1 of the 1 sequences of train are longer than 100 tokens and were truncated"):
        data.setup("fit")
    assert len(data.rows["train"][0]["input_ids"]) == 100
    assert not learnt(data, 0)[1].endswith("</s>")  # an end that is not there is not learnt


def test_training_on_nothing_is_refused(file, tokenizer) -> None:
    with pytest.raises(ValueError, match="in each of the 4 records the prompt fills the 8 tokens of `max_length`"):
        data_module(file, tokenizer, max_length=8).setup("fit")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"instruction": "Do."}, "the record has no text under `output`"),
        ({"output": "Done."}, "the record has no text under `instruction`"),
        ({"instruction": "Do.", "input": 3, "output": "Done."}, "`input` is not a text"),
        (["Do.", "Done."], "this is not a JSON object"),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_bad_record_is_an_error_with_file_and_line(record, message, suffix, file, tokenizer) -> None:
    file = file.with_suffix(suffix)
    texts = [json.dumps(r) for r in (*RECORDS, record)]
    file.write_text("[\n" + ",\n".join(texts) + "\n]" if suffix == ".json" else "\n" + "\n".join(texts))
    with pytest.raises(ValueError, match=f"alpaca{suffix}, line 6: {message}"):
        data_module(file, tokenizer).setup("fit")


def test_broken_json_is_an_error_with_the_line(file, tokenizer) -> None:
    file.write_text('[{"instruction": "a", "output": "b"},\n{"instruction" "a"}]')
    with pytest.raises(ValueError, match=r"alpaca\.json, line 2: this is not JSON"):
        data_module(file, tokenizer).setup("fit")
    file.write_text('{"instruction": "a"}')
    with pytest.raises(ValueError, match="not a JSON array of records"):
        data_module(file, tokenizer).setup("fit")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "must be a list of objects"),
        ([{"role": "user", "content": "hi"}], "must end with a message of the assistant"),
    ],
)
def test_a_bad_conversation_is_an_error_with_file_and_line(messages, message, tmp_path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    file = write_jsonl(tmp_path / "chat.jsonl", [{"messages": messages}])
    with pytest.raises(ValueError, match=f"line 1: `messages` {message}"):
        data_module(file, tokenizer, template="chat").setup("fit")


def test_a_tokenizer_that_lacks_what_is_needed_is_refused(file) -> None:
    with pytest.raises(ValueError, match="has no chat template: use `template: alpaca`"):
        data_module(file, byte_tokenizer(), template="chat").setup("fit")
    endless = byte_tokenizer()
    endless.eos_token = None
    with pytest.raises(ValueError, match="has no token that ends a text"):
        data_module(file, endless).setup("fit")


def test_without_a_padding_token_the_mask_still_covers_the_learnt_end(file) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    data = data_module(file, tokenizer, loader=LoaderOptions(batch_size=4))
    data.setup("fit")
    (batch,) = data.train_dataloader()
    end = batch["input_ids"] == tokenizer.eos_token_id
    assert (end.sum(dim=1) > 1).any()  # padded with the end of the text
    for ends, mask, labels in zip(end, batch["attention_mask"], batch["labels"], strict=True):
        first = int(ends.int().argmax())
        assert (mask.sum(), labels[first], (labels != -100).nonzero().max()) == (
            first + 1,
            tokenizer.eos_token_id,
            first,
        )


def test_validation_records_are_set_apart_and_the_same_each_time(tmp_path, tokenizer) -> None:
    records = [{"instruction": f"Number {i}?", "output": str(i)} for i in range(20)]
    file = write_jsonl(tmp_path / "a.jsonl", records)
    sets = []
    for _ in range(2):
        data = data_module(file, tokenizer, num_val=5)
        data.setup("fit")
        sets.append([{learnt(data, i, s)[1] for i in range(len(data.rows[s]))} for s in ("train", "val")])
    train, val = sets[0]
    assert sets[0] == sets[1]
    assert (len(train), len(val), len(train | val)) == (15, 5, 20)
    with pytest.raises(ValueError, match="20 rows: 20 cannot be set apart"):
        data_module(file, tokenizer, num_val=20).setup("fit")


def test_records_may_be_a_split_of_the_hub(file, tokenizer, monkeypatch, tmp_path) -> None:
    asked = []

    def load_dataset(repository, name, split):
        asked.append((repository, split))
        return datasets.Dataset.from_list(RECORDS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = data_module(file, tokenizer, train="hf:owner/name:first", test=file, num_val=1)
    data.setup("fit")
    assert (len(data.rows["train"]), len(data.rows["val"])) == (3, 1)
    alpaca = AlpacaDataModule(num_val=1, tokenizer=tokenizer, cache_dir=tmp_path)
    assert list(alpaca.sources()) == ["train", "val", "test", "predict"]
    alpaca.setup("predict")
    assert set(asked) == {("owner/name", "first"), ("tatsu-lab/alpaca", "train")}


def test_packed_rows_hold_every_example_once(tmp_path, tokenizer) -> None:
    records = [{"instruction": f"Number {i}?", "output": "1" * (i % 7)} for i in range(40)]
    data = data_module(
        write_jsonl(tmp_path / "a.jsonl", records),
        tokenizer,
        packing=True,
        max_length=256,
        loader=LoaderOptions(batch_size=2),
    )
    data.setup("fit")
    rows = data.rows["train"]
    loader = data.train_dataloader()
    seen = []
    for batch in loader:
        assert batch["input_ids"].shape[1] <= 256
        for ids, segments, positions in zip(
            batch["input_ids"], batch["segment_ids"], batch["position_ids"], strict=True
        ):
            for segment in range(1, int(segments.max()) + 1):
                seen.append(tuple(ids[segments == segment].tolist()))
                assert positions[segments == segment].tolist() == list(range(len(seen[-1])))
    assert sorted(seen) == sorted(tuple(rows[i]["input_ids"].tolist()) for i in range(40))
    assert len(loader.dataset) < 25


def test_bad_arguments_are_refused(file) -> None:
    with pytest.raises(ValueError, match="`template` must be one of alpaca, chat, not 'alpacca'"):
        data_module(file, word_tokenizer(["a"]), template="alpacca")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        data_module(file.with_name("none.json"), byte_tokenizer()).setup("fit")
