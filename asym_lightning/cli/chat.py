"""`asym-lightning chat`: a conversation on the terminal with what a run, an adapter or a model has become."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from asym_lightning.cli.errors import one_sentence
from asym_lightning.cli.interrupts import interruptible_again
from asym_lightning.cli.starting import starting
from asym_lightning.cli.writing.options import BASE, adapter_names, source_parser
from asym_lightning.core.messages import did_you_mean

if TYPE_CHECKING:
    from asym_lightning.cli.writing.writer import Writer

DESCRIPTION = """Talk with what a run trained, with an adapter, or with a model as it is. Type /reset to begin anew,
/adapter NAME or /base to go on with another adapter or with none, /exit or Ctrl-D to end; Ctrl-C stops an answer. One
has at most 256 tokens, unless --max-new-tokens says otherwise."""
COMMANDS = ("/reset", "/adapter", "/base", "/exit")
MAX_NEW_TOKENS = 256


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = source_parser("chat", DESCRIPTION, templates=("alpaca", "chat"))
    parser.set_defaults(max_new_tokens=MAX_NEW_TOKENS)
    options = parser.parse_args(arguments)
    adapter_names(options)  # which says what is wrong with them before anything is built
    with starting():
        from asym_lightning.cli.writing.writer import Writer

    with suppress(ImportError):  # not on every system; with it lines can be edited
        import readline  # noqa: F401
    writer = Writer.of(options)
    writer.check_conversation()
    with Chat(writer) as chat, interruptible_again():
        chat.use(options.use)
        while (line := _next_line()) is not None:
            if line and not chat.take(line):
                break
    return 0


def _next_line() -> str | None:
    """What is typed next, without spaces around; None at the end."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        print("\n/exit or Ctrl-D ends the conversation.", file=sys.stderr)
        return ""


class Chat:
    """A conversation.

    Args:
        writer: Writes the answers.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.messages: list[dict[str, str]] = []
        self._name: str | None = None
        self._adapter = ExitStack()

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self._adapter.close()

    def use(self, name: str | None) -> None:
        """Go on with another adapter; the conversation so far stays.

        Raises:
            ValueError: There is none of that name.
        """
        self.writer.adapters.check(name)
        self._adapter.close()
        try:
            self._adapter.enter_context(self.writer.adapters.using(name))
        except BaseException:
            self._adapter.enter_context(self.writer.adapters.using(self._name))
            raise
        self._name = name

    def take(self, line: str) -> bool:
        """Do or answer what was typed, or say in a sentence what is wrong; return whether the conversation goes on."""
        try:
            if line.startswith("/"):
                return self._obey(line)
            self.answer(line)
        except KeyboardInterrupt:
            print()
        except (OSError, RuntimeError, ValueError) as error:
            print(f"error: {one_sentence(error)}", file=sys.stderr)
        return True

    def answer(self, question: str) -> None:
        """Answer on the screen; of an answer that is interrupted what was written so far is kept.

        Raises:
            ValueError: If the conversation does not fit.
        """
        from asym_lightning.cli.writing.writer import Screen  # transformers, which a help text does without

        asked = [*self.messages, {"role": "user", "content": question}]
        prompt = self.writer.tokens({"messages": asked})
        screen = Screen(self.writer)
        try:
            self.writer.stream(prompt, screen)
        except KeyboardInterrupt:
            print()
        self.messages = [*asked, {"role": "assistant", "content": screen.text.strip()}]

    def _obey(self, line: str) -> bool:
        command, _, name = line.partition(" ")
        if command not in COMMANDS:
            raise ValueError(f"there is no command {command!r}{did_you_mean(command, COMMANDS)}")
        if command == "/exit":
            return False
        if command == "/reset":
            self.messages = []
        else:
            self.use(BASE if command == "/base" else name.strip() or None)
        return True
