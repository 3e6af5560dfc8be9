"""How a command runs: its arguments, its messages and its exit status.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

import argparse
import logging
import os
import sys
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from bt_multimodal.commands.config_errors import explain, last_line
from bt_multimodal.commands.config_files import check_configs, with_config_paths, with_own_config
from bt_multimodal.commands.extras import missing_extra
from bt_multimodal.commands.help_page import page
from bt_multimodal.commands.import_order import working_folder_last
from bt_multimodal.commands.keys import Keys, make_parser
from bt_multimodal.commands.near_keys import check_words, unknown
from bt_multimodal.commands.run_folder import check_encoder
from bt_multimodal.commands.training_run import is_started_by_rank_0
from bt_multimodal.errors import Stopped, TrainingFailedError, one_line
from bt_multimodal.launchers import is_first_rank
from bt_multimodal.stop_signals import stop_signals

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

USAGE, FAILED = 2, 1  # exit statuses
TRACEBACK = "--traceback"
_traced = False  # whether the command was given it
_LONGEST = 1000  # characters of a message


def fail(message: str, status: int = USAGE) -> int:
    """Print one line on standard error and return the exit status."""
    text = " ".join(message.split()).encode(errors="backslashreplace").decode()  # names are any bytes
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    print(f"error: {text}", file=sys.stderr)
    return status


def arguments_of(argv: Sequence[str] | None) -> list[str]:
    """The arguments of a command, without the word ``fit``, which is optional before them.

    ``--traceback``, anywhere among them, is taken out; `guarded` obeys it.

    Args:
        argv: those of the process if ``None``.
    """
    global _traced
    argv = list(sys.argv[1:] if argv is None else argv)
    if TRACEBACK in argv:
        _traced, argv = True, [word for word in argv if word != TRACEBACK]
    return argv[1:] if argv[:1] == ["fit"] else argv


def plain_parser(doc: str) -> argparse.ArgumentParser:
    """An argparse parser whose help begins with ``doc`` as it is written; names are not abbreviated."""
    return _PlainParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust``, of every command that loads an encoder from a file."""
    parser.add_argument(
        "--trust",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help="packages whose code the encoder's file may use",
    )


class _PlainParser(argparse.ArgumentParser):
    """Whose errors are one line, with the key that was probably meant."""

    def error(self, message: str) -> NoReturn:
        keys = [word[2:] for action in self._actions for word in action.option_strings if word[:2] == "--"]
        _, _, words = message.partition("unrecognized arguments: ")
        if word := next((word for word in words.split() if word.startswith("--")), None):
            message = unknown(word[2:].partition("=")[0], keys)
        raise SystemExit(fail(message))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Unknown keys come before missing ones: one that is misspelt is both."""
        words = [word[2:].partition("=")[0] for word in args or () if word.startswith("--") and word != "--"]
        known = {word for action in self._actions for word in action.option_strings}
        for word in words:
            if f"--{word}" not in known:
                self.error(f"unrecognized arguments: --{word}")
        return super().parse_known_args(args, namespace)


def guarded(extra: str, command: Callable[[], int]) -> int:
    """Run a command; what a user can do wrong becomes one line and an exit status.

    Args:
        extra: the extra of this package that brings what the command imports.

    Returns:
        What ``command`` returns; 2 for wrong usage, 1 for training that failed and for errors that nobody
        has foreseen, `Stopped.status` after a signal (`stop_signals`). ``--traceback`` among the arguments,
        or ``BT_MULTIMODAL_TRACEBACK`` in the environment, shows where an error came from.
    """
    global _traced
    traced, _traced = _traced or bool(os.environ.get("BT_MULTIMODAL_TRACEBACK")), False

    def show() -> None:
        if traced:
            traceback.print_exc()

    working_folder_last()
    try:
        with stop_signals(), _plain_warnings():
            return command()
    except Stopped as error:
        if is_first_rank():
            print(f"\n{error}", file=sys.stderr)
        # Lightning would kill rank 0 for another status of a process that it has started.
        return 0 if is_started_by_rank_0() else error.status
    except TrainingFailedError as error:
        show()
        return fail(str(error), FAILED)
    except ModuleNotFoundError as error:
        show()
        return fail(
            missing_extra(error, extra) or f"{last_line(error)}: install it, or correct what names it"
        )
    except (ArgumentError, ValueError, OSError) as error:
        show()
        return fail(last_line(error))
    except Exception as error:
        show()
        if type(error).__name__ == "MisconfigurationException":  # Lightning's, of the trainer's options
            return fail(last_line(error))
        return fail(f"{_unforeseen(error)}; {TRACEBACK} shows where", FAILED)


def _unforeseen(error: Exception) -> str:
    text = one_line(error)
    # What a loader's worker raised arrives as a whole traceback; its last line is the error.
    if "Traceback (most recent call last)" in text and (lines := str(error).strip().splitlines()):
        text = lines[-1]
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        shown = f" ({text[:150]})" if str(error) else ""
        return f"there is not enough memory{shown}: take a smaller data.batch_size or network"
    return text


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Context in which a warning is one line without the place in the code."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def run_plain(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    run: Callable[[argparse.Namespace], int],
    extra: str,
) -> int:
    """Run a command whose arguments argparse reads; a bare command prints the parser's description.

    Args:
        parser: see `plain_parser`.
        argv: the arguments; those of the process if ``None``.
        run: does the work, and returns the exit status.
        extra: as in `guarded`.
    """
    argv = arguments_of(argv)
    if not argv:
        print((parser.description or "").strip())
        return 0

    def parse_and_run() -> int:
        arguments = parser.parse_args(argv)
        check_encoder(getattr(arguments, "encoder", ""))
        return run(arguments)

    return guarded(extra, parse_and_run)


def run_command(
    doc: str,
    argv: Sequence[str] | None,
    keys: Keys,
    run: "Callable[[ArgumentParser, Namespace], int]",
    modality: str,
) -> int:
    """Run a command whose keys jsonargparse reads: a config file and single keys.

    Args:
        doc: what the command does; a bare command prints it, and the help page begins with it.
        argv: the arguments; those of the process if ``None``.
        keys: the keys.
        run: does the work, and returns the exit status.
        modality: the folder of ``encoders`` whose encoders and augmentation sets the help page lists, and
            the extra that installs what they need.

    Returns:
        The exit status; see `guarded`.
    """
    argv = arguments_of(argv)
    if not argv:
        print(doc.strip())
        return 0
    asked = next((i for i, word in enumerate(argv) if word in ("-h", "--help")), None)
    if asked is not None:
        return _help(doc, keys, modality, argv[asked + 1 :])
    if not argv[0].startswith("-"):
        return fail(f"unknown word {argv[0]!r}; keys begin with --, and --help lists them")

    def parse_and_run() -> int:
        warnings.filterwarnings("ignore", module=r"(lightning|jsonargparse|torch)\b.*")
        parser = make_parser(keys)
        from bt_multimodal.commands.memory import keep_freed_memory
        from bt_multimodal.compat import parser_keys

        known, words = parser_keys(parser), with_config_paths(with_own_config(argv))
        check_words(words, known)
        check_configs(words, known)
        try:
            config = parser.parse_args(words)
        except (ArgumentError, TypeError, ValueError) as error:
            if isinstance(error, ArgumentError) or "Parser key" in str(error):
                raise ValueError(explain(parser, error, modality)) from error
            raise
        check_encoder(config.get("encoder", ""))
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        keep_freed_memory()
        return run(parser, config)

    return guarded(modality, parse_and_run)


def _help(doc: str, keys: Keys, modality: str, names: Sequence[str]) -> int:
    try:
        print(page(doc, keys, modality, *names[:1]))
    except ValueError as error:
        return fail(str(error))
    return 0
