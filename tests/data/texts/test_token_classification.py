"""Words with tags from files of three layouts and from the hub."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from asym_lightning.data import TokenClassificationDataModule
from asym_lightning.data.tables.record_file import RecordFile
from asym_lightning.data.texts.tagged_words import text_in_words
from tests.language_models import byte_tokenizer
from tests.text_stand_ins import word_pieces

SENTENCES = "the DT O\ncat NN B-ANIMAL\n\na DT O\n# X O\n"


@pytest.fixture
def data(tmp_path):
    def make(content=SENTENCES, name="train.conll", **options):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
        defaults = {"train": path, "val": path, "tokenizer": word_pieces(), "cache_dir": tmp_path / "cache"}
        return TokenClassificationDataModule(**{**defaults, **options})

    return make


def words_and_tags(module, split="train"):
    """Words of each text, and the tags at their first tokens."""
    module.setup("predict" if split == "predict" else "fit")
    found = []
    for row in map(module.rows[split].__getitem__, range(len(module.rows[split]))):
        at = row["word"] >= 0
        assert row["word"][at].tolist() == list(range(at.sum()))
        assert (row["labels"][~at] == -100).all()
        labels = row["labels"][at].tolist()
        found.append((json.loads(row["words"]), [module.label_names[n] if n >= 0 else None for n in labels]))
    return found


def test_columns_of_conll_are_read_with_their_sentences(data):
    content = "-DOCSTART- -X- O\n\n" + SENTENCES
    assert words_and_tags(data(content)) == [(["the", "cat"], ["O", "B-ANIMAL"]), (["a", "#"], ["O", "O"])]
    assert words_and_tags(data(content, tag_column=1)) == [(["the", "cat"], ["DT", "NN"]), (["a", "#"], ["DT", "X"])]
    assert words_and_tags(data("the\tO\r\na mat\tB-X\r\n", "a.tsv")) == [(["the", "a mat"], ["O", "B-X"])]


def test_conll_u_has_forms_and_parts_of_speech(data):
    lines = ["# text = cats", "1-2\tcat's\t_\t_", "1\tcat\tcat\tNOUN", "2\t's\tbe\tAUX", "2.1\tx\tx\tX", ""]
    assert words_and_tags(data("\n".join(lines), "a.conllu")) == [(["cat", "'s"], ["NOUN", "AUX"])]


def test_records_hold_words_and_tags(data):
    rows = [{"words": ["the", "cat"], "ner": ["O", "B-X"]}, {"words": ["a"], "ner": ["O"]}]
    module = data(rows, "a.jsonl", tokens_column="words", tags_column="ner")
    assert words_and_tags(module) == [(["the", "cat"], ["O", "B-X"]), (["a"], ["O"])]
    assert module.label_names == ["O", "B-X", "I-X"]


def test_spans_become_tags_and_those_within_words_are_widened(data):
    rows = [
        {"text": "The cat sat on a mat.", "spans": [{"start": 4, "end": 11, "label": "X"}, [18, 20, "Y"]]},
        {"text": "a", "spans": []},
    ]
    module = data(rows, "a.jsonl")
    with pytest.warns(UserWarning, match="1 spans of train begin or end within a word"):
        (words, tags), _ = words_and_tags(module)
    assert words == ["The", "cat", "sat", "on", "a", "mat", "."]
    assert tags == ["O", "B-X", "I-X", "O", "O", "B-Y", "O"]
    assert json.loads(module.rows["train"][0]["edges"])[1] == [4, 7]


def test_ideographs_are_words_of_their_own():
    assert text_in_words("東京 is U.S.", [[0, 2, "LOC"]]).words == ["東", "京", "is", "U", ".", "S", "."]


def test_labels_are_at_the_first_token_of_each_word(data):
    content = "unheard O\nof B-X\n"
    with_pieces = data(content, tokenizer=byte_tokenizer(size=320))
    with_pieces.setup("fit")
    row = with_pieces.rows["train"][0]
    assert len(row["input_ids"]) > 4 and (row["word"] >= 0).sum() == 2
    assert row["labels"][row["word"] == 1].tolist() == [1]
    text = with_pieces.tokenizer.decode(row["input_ids"][1:])
    assert text == " unheard of"  # each word as it is within a text


def test_a_batch_is_padded_with_no_words(data):
    module = data()
    module.setup("fit")
    batch = next(iter(module.val_dataloader()[0]))
    assert batch["word"].shape == batch["labels"].shape == batch["input_ids"].shape
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    assert (batch["word"][batch["attention_mask"] == 0] == -1).all()


def test_text_to_predict_needs_no_tags_and_what_was_trained_on_need_not_be_there(data, tmp_path):
    (tmp_path / "new.conll").write_text("the\ncat\n")
    module = data(train=None, val=None, predict=tmp_path / "new.conll", label_names=["O", "B-X"])
    assert words_and_tags(module, "predict") == [(["the", "cat"], [None, None])]


def test_a_data_set_of_the_hub_names_its_tags(tmp_path, monkeypatch):
    asked = []

    def load_dataset(repository, name, split):
        asked.append((repository, name, split))
        features = datasets.Features({
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER"])),
        })  # fmt: skip
        return datasets.Dataset.from_dict({"tokens": [["a", "cat"]], "ner_tags": [[0, 1]]}, features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    module = TokenClassificationDataModule(
        "hf:owner/name:train", tags_column="ner_tags", tokenizer=word_pieces(), cache_dir=tmp_path
    )
    assert words_and_tags(module) == [(["a", "cat"], ["O", "B-PER"])]
    assert set(asked) == {("owner/name", None, "train")}


@pytest.mark.parametrize(
    ("content", "name", "options", "message"),
    [
        ("the O\ncat\n", "a.conll", {}, r"a\.conll, line 2: there are 1 columns where 2 are expected"),
        ("the O\n", "a.conll", {"tag_column": 2}, r"line 1: there are 2 columns, none of `tag_column` 2"),
        ("the O\ncat O\n", "a.conll", {}, r"has no tag but 'O': name all tags by `label_names`"),
        ("the O\n\ncat B-XX\n", "a.conll", {"label_names": ["O", "B-X"]},
         r"a\.conll, line 3: the tag must be one of O, B-X, not 'B-XX': did you mean B-X\?"),
        ("", "a.conll", {}, "is empty: there is nothing to use as train data"),
        ("the\n", "a.conll", {"label_names": ["O", "X"]}, r"line 1: there is nothing under 'tags' to learn"),
        ([{"tokens": ["a"], "tags": ["O", "O"]}], "a.jsonl", {}, r"a\.jsonl, line 1: there are 2 tags for 1 words"),
        ([{"tokens": "a", "tags": ["O"]}], "a.jsonl", {}, r"line 1: 'tokens' must be a list of words, not 'a'"),
        ([{"tokens": [], "tags": []}], "a.jsonl", {}, r"line 1: 'tokens' is empty"),
        ([{"tokens": ["a", "cat"], "tags": ["O", "Y"]}], "a.jsonl", {"label_names": ["O", "X"]},
         r"a\.jsonl, line 1, word 2: the tag must be one of O, X, not 'Y'"),
        ([{"texts": "a"}], "a.jsonl", {}, "line 1: there are neither words under 'tokens' nor a text under 'text'"),
        ([{"text": "a", "spans": [{"start": 0, "end": 2, "label": "X"}]}], "a.jsonl", {},
         r"line 1: the span 0 to 2 \(X\) does not lie within the 1 characters"),
        ([{"text": "a cat", "spans": [[0, 1, "X"], [0, 5, "Y"]]}], "a.jsonl", {}, r"0 to 5 \(Y\) overlaps another"),
        ([{"text": "a  b", "spans": [[1, 3, "X"]]}], "a.jsonl", {}, r"the span 1 to 3 \(X\) holds no word"),
        ([{"text": "a", "spans": [{"begin": 0}]}], "a.jsonl", {}, "a span must have `start`, `end` and `label`"),
        ([{"text": "  ", "spans": []}], "a.jsonl", {}, "line 1: the text holds no word"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_their_line(data, content, name, options, message):
    with pytest.raises(ValueError, match=message):
        data(content, name, **options).setup("fit")


def test_bad_arguments_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="none of the files"):
        TokenClassificationDataModule()
    with pytest.raises(ValueError, match="'hf:train' must be `hf:owner/name:split`"):
        TokenClassificationDataModule("hf:train")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        data(train=tmp_path / "none.conll").setup("fit")
    with pytest.raises(FileNotFoundError, match="there is no file '/dev/zero'"):
        RecordFile(Path("/dev/zero")).read()
    slow = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    slow.__class__ = type("Slow", (type(slow),), {"is_fast": False, "get_vocab": lambda self: {}})
    with pytest.raises(ValueError, match="does not tell which words its tokens are of"):
        data(tokenizer=slow).setup("fit")


def test_num_truncated_is_said(data):
    with pytest.warns(UserWarning, match="1 of the 2 sequences of train are longer than 4 tokens"):
        module = data("the O\ncat X\nsat O\n\na O\n", max_length=4)
        module.setup("fit")
    assert np.isin([0, 1], module.rows["train"][0]["word"]).all()
