"""Conversations on pictures: which tokens are learnt, where pictures stand, and what is refused."""

import io
import json

import datasets
import numpy as np
import pytest
from PIL import Image

from asym_lightning.data import LoaderOptions, VisionLanguageDataModule
from tests.picture_stand_ins import idefics_processor, llava_processor, qwen_processor, write_pictures

ASKED = {"role": "user", "content": "what colour ?"}
SAID = {"role": "assistant", "content": "red"}


@pytest.fixture
def data(tmp_path):
    write_pictures(tmp_path / "pictures", 3, size=16)

    def make(*rows, processor=None, **options):
        (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = {"processor": processor or llava_processor(), "loader": LoaderOptions(2, 2), **options}
        module = VisionLanguageDataModule(tmp_path / "chats.jsonl", tmp_path / "chats.jsonl", **options)
        module.setup("fit")
        return module

    return make


def learnt(module, row=0):
    item = module.rows["train"][row]
    labels = item["labels"]
    assert (labels[labels >= 0] == item["input_ids"][labels >= 0]).all()
    return module.tokenizer.decode(labels[labels >= 0]).split()


def record(*messages, images=("pictures/0.png",)):
    return {"images": list(images), "messages": list(messages)}


@pytest.mark.parametrize("processor", [llava_processor, qwen_processor, idefics_processor])
def test_answers_are_learnt_and_nothing_else(data, processor):
    other = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "and this ?"}]}
    first = {"role": "user", "content": [{"type": "text", "text": "what colour ?"}, {"type": "image"}]}
    chat = record(first, SAID, other, {"role": "assistant", "content": "blue"}, images=["pictures/0.png"] * 2)
    module = data(chat, processor=processor())
    item = module.rows["train"][0]
    assert learnt(module) == ["red", "</s>", "blue", "</s>"]
    before = module.tokenizer.decode(item["input_ids"][: item["prompt_length"]])
    assert before.split()[-2:] == ["assistant", ":"] and "red" in before and "blue" not in before
    assert item["reference"] == "blue" and item["source"].count(module.processor.image_token) == 2


def test_pictures_stand_where_they_are_marked_or_first(data):
    marked = {"role": "user", "content": "this <image> and <image>"}
    module = data(record(ASKED, SAID), record(marked, SAID, images=["pictures/0.png", "pictures/1.png"]))
    sources = [module.rows["train"][row]["source"] for row in range(2)]
    assert sources[0].startswith("user : <image> what colour ?") and "this  <image>  and  <image>" in sources[1]
    batch = next(iter(module.val_dataloader()[0]))
    assert sorted(len(pictures) for pictures in batch["pixel_values"]) == [1, 2]


def test_instructions_will_do_and_answers_are_not_needed_to_predict(data, tmp_path):
    module = data({"image": "pictures/0.png", "instruction": "what colour ?", "output": "red"})
    assert learnt(module) == ["red", "</s>"]
    (tmp_path / "new.jsonl").write_text(json.dumps({"image": "pictures/0.png", "instruction": "what colour ?"}) + "\n")
    module = VisionLanguageDataModule(predict=tmp_path / "new.jsonl", processor=llava_processor())
    module.setup("predict")
    item = module.rows["predict"][0]
    assert (item["labels"] == -100).all() and item["prompt_length"] == len(item["input_ids"])
    assert item["source"].endswith("assistant : ") and item["reference"] == ""


def test_long_answers_are_cut_and_pictures_are_not(data):
    chat = record(ASKED, {"role": "assistant", "content": "red " * 20})
    module = data(chat, max_length=16)
    assert len(module.rows["train"][0]["labels"]) == 16 and learnt(module)[-1] == "red"
    with pytest.raises(ValueError, match=r"chats\.jsonl, line 1: pictures go beyond the 4 tokens of `max_length`"):
        data(chat, max_length=4).rows["train"][0]
    asked = module.rows["train"][0]["prompt_length"]
    with pytest.raises(ValueError, match=rf"line 1: what is asked fills the {asked} tokens of `max_length`"):
        data(chat, max_length=asked).rows["train"][0]


def test_a_data_set_of_the_hub_holds_the_pictures_themselves(tmp_path, monkeypatch):
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (220, 0, 0)).save(content, "png")

    def load_dataset(repository, name, split):
        rows = {"images": [[{"bytes": content.getvalue(), "path": None}]], "messages": [[ASKED, SAID]]}
        return datasets.Dataset.from_dict(rows).cast_column("images", datasets.List(datasets.Image()))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    module = VisionLanguageDataModule("hf:owner/name:train", processor=llava_processor())
    module.setup("fit")
    assert learnt(module) == ["red", "</s>"] and np.ptp(module.rows["train"][0]["pixel_values"][0, 0].numpy()) < 1e-5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (record(ASKED, SAID, images=["gone.png"]), r"chats\.jsonl, line 1: there is no file '.*gone\.png'"),
        (record(ASKED, SAID, images=["chats.jsonl"]), r"line 1: chats\.jsonl cannot be read as an image"),
        (record(ASKED, SAID, images=[7]), r"line 1: there is no name of a file, but 7"),
        (record(ASKED, SAID, images=[]), r"line 1: there is no picture under `images` or `image`: `InstructionTuner`"),
        (record({"role": "user", "content": "<image><image>"}, SAID), r"line 1: there are 2 places for pictures"),
        (record(ASKED), r"line 1: `messages` must end with a message of the assistant"),
        (record({"role": "user", "content": [{"type": "sound"}]}, SAID), r"line 1: a `content` must be a text"),
        (record(SAID), r"line 1: `messages` hold none of the user's to answer"),
        (record(ASKED, {"role": "assistant", "content": " "}), r"line 1: the last answer is empty"),
        ({"image": "pictures/0.png", "output": "red"}, r"line 1: the record has no text under `instruction`"),
    ],
)  # fmt: skip
def test_a_wrong_record_is_named_by_its_line(data, row, message):
    with pytest.raises(ValueError, match=message):
        data(row)


def test_a_picture_that_is_damaged_further_on_is_named_when_it_is_read(data, tmp_path):
    chats = data(record(ASKED, SAID))
    picture = tmp_path / "pictures" / "0.png"
    picture.write_bytes(picture.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"chats\.jsonl, line 1: pictures/0\.png cannot be read as an image"):
        chats.rows["train"][0]


def test_a_processor_without_a_template_is_refused(data):
    processor = llava_processor()
    processor.chat_template = None
    with pytest.raises(ValueError, match="has no chat template, or no token for pictures"):
        data(record(ASKED, SAID), processor=processor)
