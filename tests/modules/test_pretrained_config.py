"""Models of others: none of their code is run, and there is no option that would let it."""

import re
from pathlib import Path

import pytest
from transformers import BertConfig

import asym_lightning
from asym_lightning.modules.pretrained_config import pretrained_config

SOURCES = sorted(Path(asym_lightning.__path__[0]).rglob("*.py"))


def test_no_option_lets_code_of_a_repository_run(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`model_args` 'trust_remote_code' is no field of the config"):
        pretrained_config(str(tmp_path), {"trust_remote_code": True})


def test_all_that_could_run_code_of_a_repository_is_told_not_to():
    """So no record has to say that it was."""
    texts = {path: path.read_text() for path in SOURCES}
    given = {path.name: re.findall(r"trust_remote_code\b[^,)]*", text) for path, text in texts.items()}
    assert {said.strip() for found in given.values() for said in found} == {"trust_remote_code=False"}
    reading = re.compile(r"Auto\w+\.from_pretrained\((?P<given>(?:[^()]|\([^()]*\))*)\)")
    calls = [match["given"] for text in texts.values() for match in reading.finditer(text)]
    assert calls
    assert [call for call in calls if "trust_remote_code=False" not in call] == []
