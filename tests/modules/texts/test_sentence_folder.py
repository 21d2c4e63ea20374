"""Layouts of sentence-transformers: what is written is read, and versions differ."""

import json

import pytest

from asym_lightning.modules.texts.sentence_folder import SentenceLayout, read_layout

TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"path": "2_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"}


def write(folder, modules, pooling=None):
    (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return str(folder)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_what_is_written_is_read(tmp_path, pooling, normalize):
    layout = SentenceLayout(pooling, normalize)
    layout.write(384, tmp_path)
    assert read_layout(str(tmp_path)) == layout
    assert json.loads((tmp_path / "1_Pooling" / "config.json").read_text())["word_embedding_dimension"] == 384


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"embedding_dimension": 8, "pooling_mode": "lasttoken"}, "last"),
        ({"word_embedding_dimension": 8, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
    ],
)
def test_layouts_of_old_and_new_versions_are_read(tmp_path, config, pooling):
    assert read_layout(write(tmp_path, [TRANSFORMER, POOLING], config)) == SentenceLayout(pooling, normalize=False)


def test_what_is_given_wins_and_other_models_have_the_defaults(tmp_path):
    assert SentenceLayout.of(str(tmp_path), None, None) == SentenceLayout.of(None, None, None) == SentenceLayout()
    folder = write(tmp_path, [TRANSFORMER, POOLING], {"pooling_mode": "cls"})
    assert SentenceLayout.of(folder, None, None) == SentenceLayout("cls", normalize=False)
    assert SentenceLayout.of(folder, "last", None) == SentenceLayout("last", normalize=False)
    assert SentenceLayout.of(folder, None, True) == SentenceLayout("cls", normalize=True)


@pytest.mark.parametrize(
    ("modules", "config", "message"),
    [
        ([TRANSFORMER, POOLING, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}],
         {"pooling_mode": "mean"}, "with Dense, which is not known here: a Transformer, Pooling and Normalize are"),
        ([{**TRANSFORMER, "path": "0_Transformer"}, POOLING], {}, "keeps its model in the folder '0_Transformer'"),
        ([TRANSFORMER, POOLING], {"pooling_mode": ["mean", "cls"]}, "by .*; known here are mean, cls, last"),
        ([TRANSFORMER, POOLING], {"pooling_mode_max_tokens": True}, "by 'pooling_mode_max_tokens'; known here are"),
        ({"a": 1}, None, r"`modules\.json` of .* must be a list of mappings"),
        ([TRANSFORMER, POOLING], [3], "must be a mapping"),
    ],
)  # fmt: skip
def test_other_layouts_are_refused(tmp_path, modules, config, message):
    with pytest.raises(ValueError, match=message):
        read_layout(write(tmp_path, modules, config))


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(ValueError, match=r"modules\.json` is not valid JSON"):
        read_layout(str(tmp_path))


def test_a_hub_that_does_not_answer_is_no_model_of_another_kind(monkeypatch):
    def refused(*_):
        raise OSError("no connection") from ConnectionError()

    monkeypatch.setattr("asym_lightning.modules.texts.sentence_folder.cached_file", refused)
    with pytest.raises(ValueError, match="the hub does not answer: say `pooling` and `normalize`"):
        read_layout("owner/name")
