"""The one folder for what can be made again."""

from pathlib import Path

from asym_lightning.core.cache import user_cache_dir
from asym_lightning.data import TextFilesDataModule


def test_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "asym-lightning"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert user_cache_dir() == Path.home() / ".cache" / "asym-lightning"


def test_is_where_tokenised_rows_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert TextFilesDataModule(train="a.csv", tokenizer="t").cache_dir == user_cache_dir()
