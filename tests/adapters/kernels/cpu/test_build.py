"""The shared library is built once, found again, rebuilt where it has to be, and a kill leaves nothing behind."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from asym_lightning.adapters.kernels.cpu import build
from asym_lightning.adapters.kernels.cpu.build import shared_library
from asym_lightning.adapters.kernels.cpu.library import SOURCES

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look for processes in")

PROGRAM = """
import pathlib, sys
from asym_lightning.adapters.kernels.cpu.build import shared_library
assert "torch" not in sys.modules  # or each kill below would take seconds to come to the point
*sources, folder = map(pathlib.Path, sys.argv[1:])
print(shared_library(sources, folder), flush=True)
"""
# Starts a process of its own, as compilers do, and both write files where such things are written to.
SLOW_COMPILER = """#!/bin/sh
echo > "$TMPDIR/driver.o"
sh -c 'echo $$ > "$0"; echo > "$TMPDIR/part.o"; while :; do echo >> "$TMPDIR/part.o"; sleep 0.01; done' "$PIDS/inner" &
echo $$ > "$PIDS/outer"
wait
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "seven.c"
    path.write_text("int seven(void) { return 7; }\n")
    return path


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that keeps count of what it is asked for."""
    path = tmp_path / "counting-cc"
    path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "calls"}\nexec {COMPILER} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    return path


def num_calls(tmp_path):
    return len((tmp_path / "calls").read_text().splitlines())


def seven(path):
    return ctypes.CDLL(str(path)).seven()


def start(*sources_and_folder, **variables):
    command = [sys.executable, "-c", PROGRAM, *map(str, sources_and_folder)]
    # A shell lets what runs in its background ignore an interrupt, and children inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    environment = {**os.environ, **variables}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=heed)


def test_is_built_once_and_found_again(source, compiler, tmp_path):
    folder = tmp_path / "a" / "b"
    path = shared_library([source], folder)
    assert seven(path) == 7
    assert shared_library([source], folder) == path
    assert list(folder.iterdir()) == [path]
    assert num_calls(tmp_path) == 1


def test_many_processes_at_once_build_once(source, compiler, tmp_path):
    processes = [start(source, tmp_path / "kept") for _ in range(8)]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 8
    assert [str(path) for path in (tmp_path / "kept").iterdir()] == list(paths)
    assert num_calls(tmp_path) == 1


def test_without_locks_each_process_builds_its_own_and_one_stays(source, compiler, tmp_path, monkeypatch):
    def no_locks(*args):
        raise OSError("No locks available")

    monkeypatch.setattr(build.fcntl, "flock", no_locks)
    others = tmp_path / "kept" / ".library.another.saving"
    others.mkdir(parents=True)
    path = shared_library([source], tmp_path / "kept")
    assert seven(path) == 7
    assert others.is_dir()


def test_another_source_compiler_processor_or_set_of_flags_is_another_library(source, compiler, tmp_path, monkeypatch):
    header = tmp_path / "eight.h"
    header.write_text("/* nothing */\n")
    folder = tmp_path / "kept"
    paths = [shared_library([source], folder), shared_library([source, header], folder)]
    header.write_text("/* something */\n")
    paths.append(shared_library([source, header], folder))
    compiler.write_text(compiler.read_text() + "# of another version\n")
    paths.append(shared_library([source, header], folder))
    monkeypatch.setenv("CC", f"{compiler} -DEIGHT")
    paths.append(shared_library([source, header], folder))
    monkeypatch.setattr(build, "_processor", lambda: ("another",))
    paths.append(shared_library([source, header], folder))
    monkeypatch.setattr(build, "FLAGS", ((),))
    paths.append(shared_library([source, header], folder))
    assert len(set(paths)) == len(paths) == num_calls(tmp_path)
    assert {seven(path) for path in paths} == {7}


@pytest.mark.parametrize("damage", ["cut short", "changed", "emptied"])
def test_a_damaged_library_is_built_anew(source, compiler, tmp_path, damage):
    folder = tmp_path / "kept"
    path = shared_library([source], folder)
    data = path.read_bytes()
    path.write_bytes({"cut short": data[: len(data) // 2], "changed": data[:-1] + b"?", "emptied": b""}[damage])
    again = shared_library([source], folder)
    assert seven(again) == 7
    assert list(folder.iterdir()) == [again]
    assert num_calls(tmp_path) == 2


def test_a_folder_to_read_from_alone_serves_what_it_has_and_takes_nothing_new(source, compiler, tmp_path, monkeypatch):
    path = shared_library([source], tmp_path / "kept")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    assert shared_library([source], tmp_path / "kept") == path
    path.unlink()
    with pytest.raises(PermissionError, match="kept` can't be written to"):
        shared_library([source], tmp_path / "kept")


def test_flags_that_a_compiler_refuses_are_left_out(source, compiler, tmp_path):
    compiler.write_text(compiler.read_text().replace("exec", 'case "$*" in *-fopenmp*) exit 1;; esac\nexec'))
    path = shared_library([source], tmp_path / "kept")
    assert seven(path) == 7
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ["-fopenmp" in call for call in calls] == [True, False]
    assert list((tmp_path / "kept").iterdir()) == [path]


def test_the_next_build_takes_away_what_an_unfinished_one_left(source, compiler, tmp_path):
    left = tmp_path / "kept" / ".library.0.saving"
    left.mkdir(parents=True)
    (left / "library.so").touch()
    path = shared_library([source], tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == [path]


@needs_proc
def test_a_compiler_that_does_not_end_is_ended(source, tmp_path, monkeypatch):
    pids = slow_compiler(tmp_path, monkeypatch)
    monkeypatch.setattr(build, "MAX_SECONDS", 1.0)
    with pytest.raises(RuntimeError, match="had not finished after 1 seconds"):
        shared_library([source], tmp_path / "kept")
    assert_nothing_is_left(pids, tmp_path / "kept")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_kill_leaves_neither_compilers_nor_files(source, tmp_path, monkeypatch, number):
    pids = slow_compiler(tmp_path, monkeypatch)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = start(source, tmp_path / "kept", TMPDIR=str(temporary))
    wait_until(lambda: len(running(pids)) == 2)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert_nothing_is_left(pids, tmp_path / "kept")
    assert list(temporary.iterdir()) == []


@needs_proc
@pytest.mark.slow
def test_no_kill_at_any_instant_of_a_real_build_leaves_anything(tmp_path):
    """Of the kernels themselves, which take a compiler a second or so."""
    folder, temporary = tmp_path / "kept", tmp_path / "tmp"
    temporary.mkdir()
    num_built = 0
    for i in range(50):
        process = start(*SOURCES, folder, TMPDIR=str(temporary))
        time.sleep(0.06 * i)
        process.kill()
        process.communicate()
        wait_until(lambda: not is_named_in_a_command_line(folder))
        assert list(temporary.iterdir()) == []
        for path in folder.glob("*"):
            assert path.suffix == ".so" and ctypes.CDLL(str(path)).dot
            path.unlink()
            num_built += 1
    assert 0 < num_built < 50


def slow_compiler(tmp_path, monkeypatch):
    path = tmp_path / "slow-cc"
    path.write_text(SLOW_COMPILER)
    path.chmod(0o755)
    pids = tmp_path / "pids"
    pids.mkdir()
    monkeypatch.setenv("CC", str(path))
    monkeypatch.setenv("PIDS", str(pids))
    return pids


def running(pids):
    """Processes of the slow compiler that are still there."""
    return [path for path in pids.iterdir() if (pid := path.read_text().strip()) and is_alive(int(pid))]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_named_in_a_command_line(path):
    """Whether a process other than this one has it among its arguments."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.name != str(os.getpid()) and str(path).encode() in (process / "cmdline").read_bytes():
                return True
    return False


def assert_nothing_is_left(pids, folder):
    assert len(list(pids.iterdir())) == 2
    wait_until(lambda: not running(pids))
    wait_until(lambda: not list(folder.iterdir()))


def wait_until(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
