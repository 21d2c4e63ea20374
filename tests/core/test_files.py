import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from asym_lightning.core.files import (
    SUFFIX,
    atomic_directory,
    atomic_file,
    read_json,
    remove_unfinished,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole_and_its_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "scores.txt"
    with atomic_file(path) as staging:
        staging.write_text("half")
        assert not path.exists()
        assert staging.parent == path.parent
        assert staging.name.startswith(".scores.txt.") and staging.name.endswith(SUFFIX)
    assert path.read_text() == "half"
    assert names(path.parent) == ["scores.txt"]


def test_a_file_that_exists_stays_whole_until_the_new_one_is(tmp_path):
    path = tmp_path / "scores.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as staging:
        staging.write_text("new")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["scores.txt"]


def test_nothing_is_left_where_nothing_was_written(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "x"):
        pass
    assert names(tmp_path) == []


def test_files_have_the_mode_that_the_umask_gives(tmp_path):
    write_text(tmp_path / "x", "")
    (tmp_path / "y").touch()
    with atomic_directory(tmp_path / "d"):
        pass
    (tmp_path / "e").mkdir()
    modes = {name: (tmp_path / name).stat().st_mode for name in "xyde"}
    assert modes["x"] == modes["y"] and modes["d"] == modes["e"]


def test_a_link_stays_and_leads_to_the_new_file(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "x")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "x").read_text() == "new"


def test_a_pipe_is_written_to_itself(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    write_text(pipe, "through\n")
    assert reader.communicate(timeout=20)[0] == b"through\n"
    assert pipe.is_fifo()


def test_two_that_write_one_file_do_not_meet(tmp_path):
    path = tmp_path / "x"
    with atomic_file(path) as first, atomic_file(path) as second:
        first.write_text("1")
        second.write_text("2")
    assert path.read_text() == "1"  # the last to end
    assert names(tmp_path) == ["x"]


def test_a_directory_replaces_all_of_the_one_before(tmp_path):
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "old").touch()
    with atomic_directory(directory) as staging:
        assert names(staging) == []
        (staging / "sub").mkdir()
        (staging / "sub" / "new").write_text("1")
        assert names(directory) == ["old"]
    assert names(directory) == ["sub"] and (directory / "sub" / "new").read_text() == "1"
    assert names(tmp_path) == ["adapter"]


def test_a_directory_that_fails_leaves_the_one_before(tmp_path):
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "old").touch()
    with pytest.raises(ZeroDivisionError), atomic_directory(directory) as staging:
        (staging / "new").touch()
        raise ZeroDivisionError
    assert names(tmp_path) == ["adapter"] and names(directory) == ["old"]


KILLED = """
import os, signal, sys
from asym_lightning.core.files import atomic_directory, atomic_file
with {kind}(sys.argv[1]) as staging:
    (staging / "half").touch() if staging.is_dir() else staging.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["atomic_file", "atomic_directory"])
def test_what_a_killed_process_leaves_is_no_file_and_can_be_removed(kind, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED.format(kind=kind), tmp_path / "x"], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1 and not (tmp_path / "x").exists()
    (tmp_path / ".hidden").touch()
    remove_unfinished(tmp_path, older_than=3600)  # somebody may be at it still
    assert len(names(tmp_path)) == 2
    remove_unfinished(tmp_path)
    assert names(tmp_path) == [".hidden"]


def test_a_folder_that_is_not_there_has_nothing_unfinished(tmp_path):
    remove_unfinished(tmp_path / "none")


def test_json_comes_back_and_what_is_none_is_named(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"rank": 8, "ü": [1.5, None]})
    assert read_json(path) == {"rank": 8, "ü": [1.5, None]}
    for broken in (b'{"rank": 8', b"\xff\xfe\x00"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"record.json` is not valid JSON"):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("has_number", [True, False])
def test_what_keeps_a_system_from_writing_is_named_with_the_folder(tmp_path, monkeypatch, number, has_number):
    """Torch and safetensors have words of their own for it, and no errno."""

    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "scores.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError) as raised, atomic_file(path) as staging:
        staging.write_text("ne")
        raise OSError(number, os.strerror(number), str(staging)) if has_number else RuntimeError("file write failed")
    assert (raised.value.errno, raised.value.filename) == (number, str(tmp_path))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["scores.txt"]


@pytest.mark.parametrize("kind", [atomic_file, atomic_directory])
@pytest.mark.parametrize(("path", "shown"), [("a\0b", r"'a.x00b'"), ("x" * 250, r"'xx.*xx'")])
def test_what_can_be_no_path_is_refused(kind, path, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"{shown} is no path: "), kind(path):
        pass
    assert names(tmp_path) == []


def test_an_error_names_the_file_and_not_what_it_is_called_meanwhile(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, atomic_file(tmp_path / "x"):
        pass
    assert raised.value.filename == str(tmp_path / "x")


def test_an_error_of_another_folder_or_kind_stays_as_it_is(tmp_path):
    for error in (PermissionError(errno.EACCES, "Permission denied", "/elsewhere"), FileNotFoundError(2, "None", "x")):
        with pytest.raises(OSError) as raised, atomic_file(tmp_path / "x") as staging:
            staging.touch()
            raise error
        assert raised.value is error
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "x"):
        raise RuntimeError("no fault of the disk")
    assert names(tmp_path) == []


@pytest.mark.parametrize("can_swap", [True, False])
def test_a_directory_that_can_not_be_put_in_place_leaves_the_one_before(can_swap, tmp_path, monkeypatch):
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "old").touch()
    rename = os.rename

    def refuse(source, target):
        if Path(target) == directory and list(Path(source).glob("new")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    def refuse_to_swap(*arguments):
        ctypes.set_errno(errno.ENOSPC)
        return -1

    system = SimpleNamespace(renameat2=refuse_to_swap) if can_swap else SimpleNamespace()
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **options: system)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="No space left"), atomic_directory(directory) as staging:
        (staging / "new").touch()
    assert names(tmp_path) == ["adapter"] and names(directory) == ["old"]


def test_a_system_that_can_not_swap_replaces_a_directory_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **options: SimpleNamespace())
    for name in ("old", "new"):
        with atomic_directory(tmp_path / "adapter") as staging:
            (staging / name).touch()
    assert names(tmp_path) == ["adapter"] and names(tmp_path / "adapter") == ["new"]


@pytest.mark.parametrize("share", range(0, 100, 5))
def test_what_was_saved_stays_where_the_next_save_is_cut_short(tmp_path, share):
    """At each of 20 points of a file: the system lets no file grow beyond it."""
    path = tmp_path / "tensors.pt"
    old = torch.arange(5000)
    torch.save(old, path)
    size = path.stat().st_size
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * share // 100, limits[1]))
    try:
        with pytest.raises((OSError, RuntimeError)), atomic_file(path) as staging:
            torch.save(old + 1, staging)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert torch.equal(torch.load(path), old) and os.listdir(tmp_path) == ["tensors.pt"]
