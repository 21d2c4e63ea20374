"""The notebook: its cells run in their order, and it is stored without what they printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

PATH = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"
NOTEBOOK = json.loads(PATH.read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_outputs_are_stripped_and_cells_have_names_of_their_own():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CODE)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)


def test_cells_run_and_say_what_their_texts_promise(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(CODE):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
    said = capsys.readouterr().out
    both = re.search(r"B alone (0\.\d+), LoRA (0\.\d+)", said)
    assert both is not None
    assert all(float(score) > 0.75 for score in both.groups())
    change, merging = (float(re.search(rf"{text} (\S+)", said)[1]) for text in ("the logits by", "changes them by"))
    assert change > 0.1 > 1e-4 > merging
    assert (tmp_path / "digits_adapter" / "adapter_config.json").is_file()
