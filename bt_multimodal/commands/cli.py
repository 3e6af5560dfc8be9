"""How a command runs: its arguments, its messages and its exit status.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

import argparse
import logging
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bt_multimodal.commands.config_errors import explain, last_line
from bt_multimodal.commands.config_files import with_config_paths, with_own_config
from bt_multimodal.commands.extras import missing_extra
from bt_multimodal.commands.help_page import page
from bt_multimodal.commands.import_order import working_folder_last
from bt_multimodal.commands.keys import Keys, make_parser
from bt_multimodal.commands.training_run import is_first_rank, is_started_by_rank_0
from bt_multimodal.errors import Stopped, TrainingFailedError
from bt_multimodal.stop_signals import stop_signals

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

USAGE, FAILED = 2, 1  # exit statuses


def fail(message: str, status: int = USAGE) -> int:
    """Print one line on standard error and return the exit status."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return status


def arguments_of(argv: Sequence[str] | None) -> list[str]:
    """The arguments of a command, without the word ``fit``, which is optional before them.

    Args:
        argv: those of the process if ``None``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    return argv[1:] if argv[:1] == ["fit"] else argv


def plain_parser(doc: str) -> argparse.ArgumentParser:
    """An argparse parser whose help begins with ``doc`` as it is written; names are not abbreviated."""
    return argparse.ArgumentParser(
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


def guarded(extra: str, command: Callable[[], int]) -> int:
    """Run a command; what a user can do wrong becomes one line and an exit status.

    Args:
        extra: the extra of this package that brings what the command imports.

    Returns:
        What ``command`` returns; 2 for wrong usage, 1 for training that failed, `Stopped.status` after a
        signal (`stop_signals`).
    """
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
        return fail(str(error), FAILED)
    except ModuleNotFoundError as error:
        message = missing_extra(error, extra)
        if message is None:
            raise
        return fail(message)
    except (ArgumentError, ValueError, OSError) as error:
        return fail(last_line(error))


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
    arguments = parser.parse_args(argv)
    return guarded(extra, lambda: run(arguments))


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
    if argv[0] in ("-h", "--help"):
        return _help(doc, keys, modality, argv[1:])
    if not argv[0].startswith("-"):
        return fail(f"unknown word {argv[0]!r}; keys begin with --, and --help lists them")

    def parse_and_run() -> int:
        warnings.filterwarnings("ignore", module=r"(lightning|jsonargparse|torch)\b.*")
        parser = make_parser(keys)
        from bt_multimodal.commands.memory import keep_freed_memory

        try:
            config = parser.parse_args(with_config_paths(with_own_config(argv)))
        except (ArgumentError, TypeError, ValueError) as error:
            return fail(explain(parser, error))
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
