"""The checks that are not about behaviour: lint, format, types, layers of imports, and what the repository promises."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import asym_lightning
import asym_lightning.data
import asym_lightning.modules

ROOT = Path(__file__).parents[1]
CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "import layers": ["importlinter.cli"],
}
NEWEST_ALONE = {"types": pytest.mark.skipif(version("mypy") < "2", reason="its libraries' lowest versions say less")}


@pytest.mark.parametrize("command", [pytest.param(c, id=n, marks=NEWEST_ALONE.get(n, ())) for n, c in CHECKS.items()])
def test_check_passes(command):
    module, *options = command
    code = [sys.executable, "-m", module, *options]
    if module == "importlinter.cli":  # has no `python -m` of its own
        code = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    result = subprocess.run(code, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("package", [asym_lightning.modules, asym_lightning.data], ids=["modules", "data"])
def test_every_public_class_has_an_example(package):
    abstract = {"AdapterModule"}  # whose page shows a whole module
    without = {name for name in package.__all__ if ">>>" not in (getattr(package, name).__doc__ or "")}
    assert without - abstract == set()


def test_readme_starts_with_the_two_commands_that_set_everything_up():
    first_block = re.search(r"```\w*\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert first_block is not None
    assert first_block[1].splitlines() == [
        "pip install -e '.[demo]' && lightning fit --config configs/quickstart.yaml",
        "pip install -e '.[dev]' && pytest -n 2 --dist loadfile",
    ]


def test_continuous_integration_runs_the_readme_command():
    assert "\npip install -e '.[dev]' && pytest -n 2 --dist loadfile\n" in (ROOT / ".ci/run").read_text()


def test_readme_names_only_files_that_exist():
    for path in re.findall(
        r"(?:configs|scripts|benchmarks|asym_lightning)/[\w./-]+\.(?:yaml|py|md)", (ROOT / "README.md").read_text()
    ):
        assert (ROOT / path).is_file(), path


def test_package_ships_its_type_marker_and_version():
    package = Path(asym_lightning.__file__).parent
    assert (package / "py.typed").exists()
    assert f'version = "{asym_lightning.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_importing_the_package_and_the_program_is_light():
    code = "import sys, asym_lightning, asym_lightning.cli; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_adapters_need_neither_lightning_nor_timm_nor_transformers():
    code = (
        "import sys, asym_lightning.adapters\nprint(sorted({'lightning', 'timm', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
