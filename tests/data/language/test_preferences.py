"""Pairs of answers from records of every form, in every template."""

import re

import pytest

from asym_lightning.data import PreferenceDataModule
from asym_lightning.data.language.prompts import alpaca_prompt
from tests.language_models import byte_tokenizer, write_jsonl

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.fixture
def data(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE

    def make(records, **options):
        path = write_jsonl(tmp_path / "pairs.jsonl", records)
        defaults = {"train": path, "tokenizer": tokenizer, "cache_dir": tmp_path / "cache"}
        return PreferenceDataModule(**{**defaults, **options})

    return make


def texts(module, row=0, split="train"):
    """Prompt and answer of both sides, as their tokens say."""
    found = []
    for side in ("chosen", "rejected"):
        item = module.rows[split][row]
        ids, labels = item[f"{side}_input_ids"], item[f"{side}_labels"]
        learnt = labels != -100
        assert (ids[learnt] == labels[learnt]).all() and learnt[learnt.argmax() :].all()
        found += [module.tokenizer.decode(ids[part]) for part in (~learnt, learnt)]
    return found


ASKED = "<|user|>Hi?</s><|assistant|>"
FORMS = {
    "texts": {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."},
    "instruction": {"instruction": "Hi?", "input": "", "chosen": "Yes.", "rejected": "No."},
    "messages and texts": {"messages": [user("Hi?")], "chosen": "Yes.", "rejected": "No."},
    "messages": {"prompt": [user("Hi?")], "chosen": [assistant("Yes.")], "rejected": [assistant("No.")]},
    "whole conversations": {"chosen": [user("Hi?"), assistant("Yes.")], "rejected": [user("Hi?"), assistant("No.")]},
    "conversations and a prompt": {
        "prompt": "Hi?", "chosen": [user("Hi?"), assistant("Yes.")], "rejected": [user("Hi?"), assistant("No.")]
    },
    "answers and a prompt": {"prompt": "Hi?", "chosen": [assistant("Yes.")], "rejected": [assistant("No.")]},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_one_prompt_and_two_answers(data, form):
    module = data([FORMS[form]])
    module.setup("fit")
    assert texts(module) == [ASKED, "Yes.</s>", ASKED, "No.</s>"]


def test_of_a_conversation_what_differs_is_learnt(data):
    shared = [user("a"), assistant("b"), user("c")]
    module = data([{"chosen": [*shared, assistant("d")], "rejected": [*shared, assistant("e")]}])
    module.setup("fit")
    before = "<|user|>a</s><|assistant|>b</s><|user|>c</s><|assistant|>"
    assert texts(module) == [before, "d</s>", before, "e</s>"]


@pytest.mark.parametrize(("template", "prompt"), [("none", "Hi?"), ("alpaca", alpaca_prompt("Hi?"))])
def test_other_templates_end_answers_themselves(data, template, prompt):
    module = data([FORMS["texts"]], template=template)
    module.setup("fit")
    assert texts(module) == [f"<s>{prompt}", "Yes.</s>", f"<s>{prompt}", "No.</s>"]


def test_batches_hold_masks_of_both_sides(data):
    module = data([FORMS["texts"], {**FORMS["texts"], "chosen": "Yes, and more than that."}])
    module.setup("fit")
    (batch,) = module.train_dataloader()
    for side in ("chosen", "rejected"):
        mask = batch[f"{side}_attention_mask"].bool()
        assert mask.shape == batch[f"{side}_input_ids"].shape == batch[f"{side}_labels"].shape
        assert (batch[f"{side}_labels"][~mask] == -100).all() and (batch[f"{side}_input_ids"][~mask] == 0).all()
        assert mask.sum().item() == sum(len(module.rows["train"][row][f"{side}_input_ids"]) for row in range(2))


def test_what_teaches_nothing_is_left_out_and_counted(data):
    equal = {**FORMS["texts"], "rejected": "Yes."}
    long = {**FORMS["texts"], "prompt": "Hi? " * 20}
    cut = {**FORMS["texts"], "rejected": "No, no, no, no, no, no, no, no, no."}
    module = data([equal, long, cut, FORMS["texts"]], max_length=45)
    with pytest.warns(UserWarning) as warned:
        module.setup("fit")
    said = " ".join(str(warning.message) for warning in warned)
    left_out = "1 pairs of train were left out:"
    for part in (
        f"{left_out} as far as",
        f"{left_out} their prompts",
        "1 of the 2 sequences of train are longer than 45",
    ):
        assert part in said
    assert len(module.rows["train"]) == 2
    with pytest.raises(ValueError, match=r"each of the 1 pairs has two equal answers, or a prompt that fills"):
        data([equal]).setup("fit")


def test_validation_pairs_are_set_apart(data):
    records = [{**FORMS["texts"], "prompt": f"{i}?"} for i in range(6)]
    module = data(records, num_val=2)
    module.setup("fit")
    prompts = {split: {texts(module, row, split)[0] for row in range(len(module.rows[split]))} for split in module.rows}
    assert len(prompts["train"]) == 4 and len(prompts["val"]) == 2 and not prompts["train"] & prompts["val"]


@pytest.mark.parametrize(
    ("record", "options", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, {}, "line 1: `rejected` must be a text or a list of messages, not null"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, {}, "`chosen` must be a text or a list of messages, not 3"),
        ({"chosen": "b", "rejected": "c"}, {}, "there is none of `prompt`, `instruction` and `messages`"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, {}, "`rejected` must end with an answer of the assistant"),
        ({"prompt": "a", "chosen": [user("b")], "rejected": [user("c")]}, {}, "`chosen` must end with an answer"),
        (
            {"prompt": "a", "chosen": [{"role": "assistant"}], "rejected": []},
            {},
            "must be a list of objects with",
        ),
        ({"prompt": [], "chosen": [assistant("b")], "rejected": [assistant("c")]}, {}, "hold none of the user's"),
        (FORMS["messages"], {"template": "none"}, "`messages` take a template"),
    ],
)
def test_bad_records_are_refused_with_their_line(data, record, options, message):
    with pytest.raises(ValueError, match=rf"pairs\.jsonl, line 2: .*{re.escape(message.removeprefix('line 1: '))}"):
        data([FORMS["texts"], record], **options).setup("fit")


def test_bad_arguments_are_refused(data):
    with pytest.raises(ValueError, match="`template` must be one of alpaca, chat, none, not 'chats'"):
        data([], template="chats")
    with pytest.raises(ValueError, match="none of the files"):
        PreferenceDataModule()
    module = data([FORMS["texts"]])
    module.tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        module.setup("fit")
