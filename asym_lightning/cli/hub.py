"""Folders that appear whole, and their way to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asym_lightning.core.files import atomic_directory


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a folder to write to, which gets its name when everything is written, or vanishes if something fails.

    Raises:
        FileExistsError: If the folder exists and is not empty.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{str(path)!r} exists and is not an empty folder: choose another `--output`.")
    with atomic_directory(path) as staging:
        yield staging


def check_login() -> None:
    """Check, before the work is done, that there is a token to upload with.

    Raises:
        PermissionError: If there is none.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise PermissionError("`--push-to-hub` needs a login: run `hf auth login`, or set HF_TOKEN.")


def push_folder(folder: str | Path, repository: str, private: bool) -> str:
    """Upload a folder to a repository of the hub, which is created if need be; return its address."""
    from huggingface_hub import HfApi

    api = HfApi()
    created = api.create_repo(repository, private=private, exist_ok=True)
    api.upload_folder(repo_id=created.repo_id, folder_path=str(folder), commit_message="Upload with asym-lightning")
    return str(created)
