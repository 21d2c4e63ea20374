"""Pairs of texts, triplets and scored pairs."""

import json

import pytest

from asym_lightning.data import LoaderOptions, SentencePairDataModule
from tests.text_stand_ins import word_pieces

PAIRS = [{"anchor": "the cat", "positive": "a cat"}, {"anchor": "a dog ran far", "positive": "the dog ran"}]
TRIPLETS = [{**pair, "negative": "mat"} for pair in PAIRS]
SCORED = [
    {"sentence1": "the cat", "sentence2": "a mat", "score": 2.5},
    {"sentence1": "a", "sentence2": "a", "score": 5},
]


@pytest.fixture
def data(tmp_path):
    def make(content=PAIRS, name="train.jsonl", **options):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
        defaults = {"train": path, "tokenizer": word_pieces(), "cache_dir": tmp_path / "cache"}
        return SentencePairDataModule(**{**defaults, **options})

    return make


def texts(module, name, split="train"):
    return [module.tokenizer.decode(row[name], skip_special_tokens=True) for row in module.rows[split]]


def ready(module, stage="fit"):
    module.setup(stage)
    return module


def test_pairs_and_triplets_are_told_by_their_columns(data):
    module = ready(data())
    assert texts(module, "anchor_input_ids") == ["the cat", "a dog ran far"]
    (batch,) = module.train_dataloader()
    assert {"anchor_input_ids", "anchor_attention_mask", "positive_input_ids"} < set(batch)
    assert "negative_input_ids" not in batch and "scores" not in batch
    assert texts(ready(data(TRIPLETS, "triplets.jsonl")), "negative_input_ids") == ["mat", "mat"]
    csv = "query,answer\nthe cat,a cat\n"
    module = ready(data(csv, "pairs.csv", pair_columns=["query", "answer"]))
    assert texts(module, "positive_input_ids") == ["a cat"]


def test_scores_are_divided_by_the_largest(data, tmp_path):
    module = ready(data(SCORED, largest_score=5.0))
    assert [row["scores"] for row in module.rows["train"]] == [0.5, 1.0]
    assert texts(module, "positive_input_ids") == ["a mat", "a"]
    (tmp_path / "val.tsv").write_text("sentence1\tsentence2\tscore\nthe cat\ta mat\t-0.25\n")
    module = ready(data(val=tmp_path / "val.tsv"))  # what is trained on has no scores
    assert module.rows["val"][0]["scores"] == -0.25 and "scores" not in module.rows["train"][0]


def test_single_texts_are_embedded_or_the_first_of_each_row(data, tmp_path):
    (tmp_path / "new.csv").write_text("text,key\na dog,k\n")
    module = ready(data(train=None, predict=tmp_path / "new.csv", id_column="key"), "predict")
    assert texts(module, "input_ids", "predict") == ["a dog"] and module.rows["predict"][0]["ids"] == "k"
    for content in (PAIRS, SCORED):
        module = ready(data(content, "test.jsonl", train=None, test=tmp_path / "test.jsonl"), "predict")
        assert texts(module, "input_ids", "predict")[0] == "the cat"
        assert "scores" not in module.rows["predict"][0]


def test_long_texts_are_cut_with_a_warning(data):
    with pytest.warns(UserWarning, match="1 of"):
        module = ready(data(max_length=5))
    assert len(module.rows["train"][1]["anchor_input_ids"]) == 5


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            [{**PAIRS[0], "anchor": " "}],
            {},
            r"train\.jsonl, line 1: `anchor` must be a text that is not empty, not ' '",
        ),
        ([PAIRS[0], {"anchor": "a", "positive": None}], {}, "line 2: `positive` must be a text .*, not null"),
        ([*TRIPLETS, PAIRS[0]], {}, "line 3: `negative` must be a text"),
        ([{"anchor": "a", "positives": "b"}], {}, r"no column 'positive': did you mean positives\?"),
        ([{**SCORED[0], "score": "x"}], {}, "line 1: the score 'x' is not a number"),
        ([SCORED[1]], {}, "line 1: the score 5 is larger than `largest_score`, 1"),
        ([{**SCORED[0], "score": True}], {}, "line 1: the score nan is not in"),
        ([{**SCORED[0], "score": 1e300}], {}, "line 1: the score 1e\\+300 is not in"),
        (PAIRS, {"pair_columns": "anchor"}, r"`pair_columns` must name two columns, not \['anchor'\]"),
        (PAIRS, {"largest_score": 0.0}, "`largest_score` must be positive"),
    ],
)
def test_bad_input_is_refused_with_its_line(data, content, options, message):
    with pytest.raises(ValueError, match=message):
        data(content, **options).setup("fit")


def test_a_pair_alone_has_nothing_to_be_told_from(data):
    single = LoaderOptions(batch_size=1)
    with pytest.raises(ValueError, match=r"`loader\.batch_size` must be at least 2"):
        ready(data(loader=single)).train_dataloader()
    assert len(ready(data(TRIPLETS, loader=single)).train_dataloader()) == 2
    assert len(ready(data(SCORED, largest_score=5.0, loader=single)).train_dataloader()) == 2
