import pytest

from asym_lightning.lifecycle.label_names import LABELS_FILE, save_label_names, saved_label_names


def test_names_are_read_as_they_were_written(tmp_path):
    (tmp_path / "adapter_config.json").touch()
    assert saved_label_names(tmp_path) is None
    save_label_names(None, tmp_path)
    assert saved_label_names(tmp_path) is None
    save_label_names(("ant", "bée"), tmp_path)
    assert saved_label_names(tmp_path) == ["ant", "bée"]


@pytest.mark.parametrize("text", ["[1, 2]", '{"a": 1}', '"ab"'])
def test_what_is_no_list_of_names_is_refused(tmp_path, text):
    (tmp_path / "adapter_config.json").touch()
    (tmp_path / LABELS_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"label_names\.json` holds no names of classes: `label_names"):
        saved_label_names(tmp_path)
