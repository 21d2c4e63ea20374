import datasets
import numpy as np
import pytest
import torch

from asym_lightning.data import GLUEDataModule, LoaderOptions
from asym_lightning.data.texts.glue import GLUE_TASKS
from asym_lightning.data.tokens.tokenized_rows import TokenizedRows
from tests.text_stand_ins import SENTENCES, word_pieces, write_glue_task, write_tiny_bert


@pytest.fixture
def glue(tmp_path):
    def make(task, **options):
        folder = write_glue_task(tmp_path / "glue", task, test=options.pop("test", False))
        return GLUEDataModule(
            task,
            folder,
            **{"tokenizer": word_pieces(), "cache_dir": tmp_path / "cache", "loader": LoaderOptions(4, 64), **options},
        )

    return make


@pytest.mark.parametrize("task", GLUE_TASKS)
def test_task_reads_its_original_files(glue, task):
    data = glue(task, test=True)
    for stage in ("fit", "test", "predict"):
        data.setup(stage)
    batch = next(iter(data.train_dataloader()))
    is_pair = len(GLUE_TASKS[task].texts) == 2
    assert batch["token_type_ids"].any() == is_pair
    train = data.rows["train"]
    expected = [i % 6 for i in range(12)] if task == "stsb" else [i % (3 if task == "mnli" else 2) for i in range(12)]
    assert train.numbers["labels"].tolist() == expected
    ids = train[0]["input_ids"].tolist()
    assert data.tokenizer.decode(ids, skip_special_tokens=True).startswith(SENTENCES[0])
    unlabelled = data.rows["predict/matched" if task == "mnli" else "predict"].numbers["labels"]
    assert np.isnan(unlabelled).all() if task == "stsb" else (unlabelled == -1).all()


def test_tokens_equal_those_of_the_tokenizers_own_call(glue):
    data = glue("rte", max_length=12)
    data.setup("fit")
    source = data.sources()["train"].read()
    expected = word_pieces()(source.column("sentence1"), source.column("sentence2"), truncation=True, max_length=12)
    for row in range(len(source)):
        assert data.rows["train"][row]["input_ids"].tolist() == expected["input_ids"][row]
        assert data.rows["train"][row]["token_type_ids"].tolist() == expected["token_type_ids"][row]


def test_batches_are_padded_to_a_multiple_of_8_and_masked(glue):
    data = glue("rte")
    data.setup("fit")
    for batch in data.train_dataloader():
        assert batch["input_ids"].shape[1] % 8 == 0
        assert torch.equal(batch["attention_mask"].bool(), batch["input_ids"] != data.pad_token_id)


def test_mnli_has_two_development_sets_and_the_others_one(glue):
    mnli, rte = glue("mnli"), glue("rte")
    assert mnli.evaluation_sets == {name: ["matched", "mismatched"] for name in ("val", "test", "predict")}
    mnli.setup("fit")
    assert len(mnli.val_dataloader()) == 2
    assert rte.evaluation_sets == {}


def test_second_start_reads_the_cache_alone(glue, monkeypatch):
    first, second = glue("rte"), glue("rte")
    first.prepare_data()
    monkeypatch.setattr(GLUEDataModule, "encode", None)  # would fail if it were called
    second.prepare_data()
    second.setup("fit")
    assert len(second.rows["train"]) == 12


@pytest.mark.parametrize("change", ["file", "length", "tokenizer"])
def test_cache_is_not_used_for_something_else(glue, tmp_path, change):
    glue("rte").prepare_data()
    before = set((tmp_path / "cache").iterdir())
    data = glue("rte", max_length=9 if change == "length" else 128)
    if change == "file":
        path = tmp_path / "glue/RTE/train.tsv"
        path.write_text(path.read_text().replace("cat", "dog", 1))
    if change == "tokenizer":
        data.tokenizer.add_tokens(["zebra"])
    data.prepare_data()
    assert set((tmp_path / "cache").iterdir()) - before


def test_damaged_cache_is_made_anew(glue, tmp_path):
    glue("rte").prepare_data()
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    data = glue("rte")
    data.setup("fit")
    assert len(data.rows["train"]) == 12


def test_rows_survive_a_round_trip(tmp_path, glue):
    data = glue("stsb")
    rows = data.load("train")
    rows.save(tmp_path / "rows.npz")
    loaded = TokenizedRows.load(tmp_path / "rows.npz")
    for row in range(len(rows)):
        for name, value in rows[row].items():
            assert np.array_equal(value, loaded[row][name])


def test_long_sequences_are_truncated_with_one_warning_and_a_count(glue):
    data = glue("rte", max_length=10)
    with pytest.warns(UserWarning, match="12 of the 12 sequences of train are longer than 10 tokens") as warnings:
        data.setup("fit")
    assert sum("of train are longer" in str(warning.message) for warning in warnings) == 1
    assert max(data.rows["train"].lengths()) == 10


def test_length_is_what_the_model_beside_the_tokenizer_allows(glue, tmp_path):
    bert = write_tiny_bert(tmp_path / "bert", max_position_embeddings=11)
    data = glue("rte", tokenizer=str(bert))
    assert data.longest == 11
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["input_ids"].shape[1] == 11  # not rounded up to 16


def test_subset_of_the_training_rows_is_fixed(glue):
    chosen = []
    for seed in (0, 1):
        data = glue("rte", num_train=5, seed=seed)
        data.setup("fit")
        chosen.append(sorted(int(row) for batch in data.train_dataloader() for row in batch["row"]))
    assert chosen[0] == chosen[1] and len(chosen[0]) == 5


def test_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"`task` must be one of cola, .*, not 'sst-2': did you mean sst2\?"):
        GLUEDataModule("sst-2")


def test_missing_files_are_named(glue, tmp_path):
    data = glue("rte")
    (tmp_path / "glue/RTE/dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"RTE' of RTE has no dev\.tsv"):
        data.prepare_data()
    with pytest.raises(FileNotFoundError, match=r"there is no folder .* with the files of CoLA"):
        GLUEDataModule("cola", tmp_path / "nowhere", tokenizer=word_pieces()).prepare_data()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "\tentailment",
            "\tentailed",
            r"train\.tsv, line 2: the label must be one of .*, not 'entailed': did you mean entailment",
        ),
        (
            "\tentailment",
            "\t2",
            r"train\.tsv, line 2: the label must be one of entailment, not_entailment, 0 to 1, not '2'",
        ),
        ("sentence2\t", "sentence3\t", r"has no column 'sentence2'"),
        ("0\tthe cat", "0\tthe cat\tsat", r"train\.tsv, line 2: there are 5 cells where 4 are expected"),
    ],
)
def test_bad_row_is_named_by_file_and_line(glue, tmp_path, old, new, message):
    data = glue("rte")
    path = tmp_path / "glue/RTE/train.tsv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        data.load("train")


def test_score_outside_the_range_is_named(glue, tmp_path):
    data = glue("stsb")
    path = tmp_path / "glue/STS-B/train.tsv"
    path.write_text(path.read_text().replace("\t5.000", "\t5.5"))
    with pytest.raises(ValueError, match=r"train\.tsv, line 7: the score 5\.5 is not in \[0\.0, 5\.0\]"):
        data.load("train")


def test_empty_split_is_named(glue, tmp_path):
    data = glue("rte")
    path = tmp_path / "glue/RTE/dev.tsv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"dev\.tsv is empty: there is nothing to use as val data"):
        data.prepare_data()


@pytest.mark.parametrize("task", ["mnli", "stsb"])
def test_task_comes_from_the_hub_where_no_folder_is_given(tmp_path, monkeypatch, task):
    asked = []

    def load_dataset(repository, name, split):
        asked.append((repository, name, split))
        label = -1 if split.startswith("test") else 1
        texts = {column: ["the cat sat .", "a dog ran ."] for column in GLUE_TASKS[name].texts}
        return datasets.Dataset.from_dict({**texts, "label": [label, label], "idx": [0, 1]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = GLUEDataModule(task, tokenizer=word_pieces(), cache_dir=tmp_path)
    data.prepare_data()
    for stage in ("fit", "test", "predict"):
        data.setup(stage)
    sets = ("_matched", "_mismatched") if task == "mnli" else ("",)
    splits = {"train"} | {f"{split}{suffix}" for split in ("validation", "test") for suffix in sets}
    assert set(asked) == {("nyu-mll/glue", task, split) for split in splits}
    assert data.rows["train"].numbers["labels"].tolist() == [1, 1]
    assert data.rows["train"][0]["token_type_ids"].any()
