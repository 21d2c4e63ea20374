"""Where to keep what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache_dir() -> Path:
    """The folder `asym-lightning` in the user's cache folder: `$XDG_CACHE_HOME`, else `~/.cache`.

    Raises:
        RuntimeError: There is neither `$XDG_CACHE_HOME` nor a home folder.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asym-lightning"
