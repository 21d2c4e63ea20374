"""`asym-lightning chat`: a conversation by standard input, on a pipe and on a terminal."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from asym_lightning.cli import main
from tests.cli.writers import CHAT, base_model, random_adapter

NEW = 6
LIMIT = ("--max-new-tokens", str(NEW))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    base_model(folder / "base", CHAT)
    base_model(folder / "silent")
    random_adapter(folder / "first", str(folder / "base"), seed=1)
    return folder


@pytest.fixture(autouse=True)
def working_directory(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture
def chat(monkeypatch, capsys):
    """Has a conversation of lines that are typed, and returns what is on the screen and what is reported."""

    def converse(lines: list[str], *arguments: str) -> tuple[list[str], list[str]]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        capsys.readouterr()
        assert main(["chat", *arguments, *LIMIT]) == 0
        written = capsys.readouterr()
        reports = [line for line in written.err.splitlines() if line.startswith("error: ")]
        return [line.strip() for line in written.out.splitlines()], reports

    return converse


def answer(prompt: str, adapter: str | None = None, special: bool = False) -> str:
    """What transformers alone writes."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained("base").eval(), AutoTokenizer.from_pretrained("base")
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    ids = tokenizer(prompt, add_special_tokens=special, return_tensors="pt")["input_ids"]
    return tokenizer.decode(
        model.generate(input_ids=ids, max_new_tokens=NEW)[0, ids.shape[1] :], skip_special_tokens=True
    ).strip()


def turn(question: str, answer: str = "") -> str:
    return f"<|user|>\n{question}</s>\n<|assistant|>\n" + (f"{answer}</s>\n" if answer else "")


def test_answers_go_by_all_that_was_said_until_it_is_reset(chat):
    first = answer(turn("Hi."))
    second = answer(turn("Hi.", first) + turn("Name 3."))
    fresh = answer(turn("Name 3."))
    assert second != fresh
    assert chat(["Hi.", "", "Name 3.", "/reset", "Name 3.", "/exit", "Hi."], "base") == ([first, second, fresh], [])


def test_another_adapter_and_none_go_on_with_the_conversation(chat):
    own = answer(turn("Hi."), "first")
    without = answer(turn("Hi.", own) + turn("Hi."))
    with_it = answer(turn("Hi.", own) + turn("Hi.", without) + turn("Hi."), "first")
    lines, reports = chat(
        ["Hi.", "/base", "Hi.", "/adapter frist", "/adapter first", "Hi."],
        "base",
        "--adapter",
        "first=first",
        "--use",
        "first",
    )
    assert lines == [own, without, with_it]
    assert reports == ["error: `adapter` must be one of first, base, not 'frist': did you mean first?"]
    assert chat(["Hi.", "/base", "/adapter", "Hi."], "first", "--base", "base")[0][0] == own


def test_the_alpaca_prompt_has_a_form_for_several_turns(chat):
    from asym_lightning.data.language.prompts import ALPACA_NEXT, alpaca_prompt

    prompt = alpaca_prompt("Hi.")
    first = answer(prompt, special=True)
    second = answer(prompt + first + ALPACA_NEXT.replace("{instruction}", "Name 3."), special=True)
    assert chat(["Hi.", "Name 3."], "base", "--template", "alpaca")[0] == [first, second]


def test_what_can_not_be_said_is_reported_and_the_conversation_goes_on(chat):
    long = "word " * 3000
    lines, reports = chat([long, "/reste", "Hi."], "base")
    assert lines == [answer(turn("Hi."))]
    assert "that is more than the 2,048 that the model allows." in reports[0]
    assert reports[1] == "error: there is no command '/reste': did you mean /reset?"


def test_a_tokenizer_without_a_chat_template_is_refused(capsys):
    for arguments, sentence in (
        ((), "a conversation takes a template, and the tokenizer 'silent' has none: give `--template alpaca`."),
        (("--template", "chat"), "the tokenizer 'silent' has no chat template: use the template `alpaca`."),
    ):
        assert main(["chat", "silent", *arguments]) == 1
        assert capsys.readouterr().err.strip().splitlines()[-1] == f"error: {sentence}"
    assert main(["chat", "base", "--template", "none"]) == 2


def test_ctrl_c_stops_an_answer_and_ctrl_d_ends_the_conversation(folder):
    """On a terminal, with an answer that would take long."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    command = [
        sys.executable,
        "-m",
        "asym_lightning",
        "chat",
        "base",
        "--max-new-tokens",
        "1000",
        "--min-new-tokens",
        "1000",
    ]
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=subprocess.DEVNULL, cwd=folder, env=environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    seen = ""

    def wait_for(is_there) -> None:
        nonlocal seen
        end = time.monotonic() + 180
        while not is_there(seen):
            assert time.monotonic() < end, seen
            assert process.poll() is None, seen
            if select.select([controller], [], [], 1)[0]:
                seen += os.read(controller, 4096).decode(errors="replace")

    try:
        for number in (1, 2):  # the second one as well as the first
            wait_for(lambda text, number=number: text.endswith("> " if number == 1 else "\n> "))
            os.write(controller, b"Hi.\n")
            before = len(seen) + 20
            wait_for(lambda text, before=before: len(text) > before)
            process.send_signal(signal.SIGINT)
        wait_for(lambda text: text.endswith("\n> "))
        os.write(controller, b"\x04")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(controller)
