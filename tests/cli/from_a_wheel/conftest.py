"""Programs of a wheel, in an environment of its own and in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
EXTRA, BESIDE = "demo", "peft"
"""What README installs, and what the code on a model card asks for."""
FROM_REGISTRY = os.environ.get("ASYM_WHEEL_FROM", "here") == "registry"
"""Whether pip fetches what the wheel asks for; it takes gigabytes, so those that are installed here are linked else."""
PATIENCE = 1800
"""Seconds that a command may take on a machine that is busy with others."""


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """Folder of the programs of an environment that has the wheel, what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment/bin/python"
    install = [*PIP, "--python", str(python), "install"]
    if FROM_REGISTRY:
        subprocess.run([*install, f"{wheel}[{EXTRA}]", BESIDE], check=True)
    else:
        subprocess.run([*install, "--no-deps", str(wheel)], check=True)
        (packages,) = (folder / "environment/lib").glob("python*/site-packages")
        for distribution in asked_for([f"asym-lightning[{EXTRA}]", BESIDE], packages):
            link(distribution, packages)
    return python.parent


@pytest.fixture
def started(programs, tmp_path):
    """Start a program of the environment in an empty folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def _started(program: str, *arguments: str) -> subprocess.Popen[str]:
        command = [str(programs / program), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)

    return _started


@pytest.fixture
def run(started):
    """Run a program of the environment and return what it prints; it may fail only where another code is expected."""

    def _run(program: str, *arguments: str, code: int = 0) -> str:
        with started(program, *arguments) as process:
            try:
                printed, error = process.communicate(timeout=PATIENCE)
            except BaseException:  # not to wait for it where the test is interrupted
                process.kill()
                raise
        assert process.returncode == code, error
        return error if code else printed

    return _run


def asked_for(requirements: list[str], packages: Path) -> Iterator[metadata.Distribution]:
    """Distributions of this environment that requirements ask for, and those that these ask for; not the wheel's own.

    Args:
        requirements: As pip takes them.
        packages: Folder of packages that has the wheel, whose own requirements count.
    """
    installed = {canonicalize_name(one.metadata["Name"]): one for one in metadata.distributions(path=[str(packages)])}
    waiting = [Requirement(one) for one in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        distribution = installed.get(name) or metadata.distribution(name)
        if name not in installed and not any(name == one for one, _ in seen):
            yield distribution
        for extra in {"", *wanted.extras} - {extra for one, extra in seen if one == name}:
            seen.add((name, extra))
            further = map(Requirement, distribution.requires or ())
            waiting += [one for one in further if one.marker is None or one.marker.evaluate({"extra": extra})]


def link(distribution: metadata.Distribution, packages: Path) -> None:
    """Link all files of an installed distribution, but for its programs, into another folder of packages."""
    for file in distribution.files or ():
        target, source = packages / file, Path(str(file.locate()))
        if ".." not in file.parts and source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
