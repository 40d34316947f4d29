"""The command ``raft``: only names and one-line helps here, so that ``raft --help`` imports nothing that is slow.

Each command is a module ``NAME`` with ``USAGE``, ``add_options(parser)`` and ``main(args)``; its docstring is its
help, and what is heavy is imported inside ``main``. ``args.target`` is the word behind the command's name, ``args.settings``
what no option took. A command of ``SUBCOMMANDS`` is a family: `raft reward list` is the module ``reward_list``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

COMMANDS = {
    "align": "align a model: rounds of sample, score, select, train",
    "sft": "fine-tune a language model on responses that are written down",
    "resume": "go on with a run that was stopped",
    "compare": "compare a trained model with its base on prompts of yours",
    "eval": "run lm-eval's benchmarks on a language model, before and after",
    "generate": "generate from a run or a model into a folder",
    "plan": "what a configuration would do, cost and gain",
    "list": "selectors, objectives, rewards, policies, models …",
    "score": "score pictures or texts of your own by a reward",
    "reward": "list rewards, train one, evaluate it, serve it over HTTP",
    "rescore": "score a run's stored samples by another reward",
    "whatif": "what another K or selector would have chosen",
    "report": "write a run's report again",
    "export": "merge a trained model into one file, or put it on the Hub",
    "demo": "compare, align and teach a taste in the browser",
}
SUBCOMMANDS = {
    "reward": {
        "list": "what rewards there are, and what they take",
        "label": "choose the best of several samples, or have a reward choose",
        "train": "learn a reward from preferences",
        "eval": "how well rewards agree with preferences",
        "serve": "put a reward behind HTTP, for other machines' runs",
        "online": "align by labels that are asked for anew as the policy changes",
        "study": "what optimising a learned reward does to the gold judge",
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user's mistake, 130 after a signal, 1 for anything unexpected."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] not in COMMANDS:
        return _top_level(words)
    command, rest, name = words[0], words[1:], words[0]
    if command in SUBCOMMANDS:
        if not rest or rest[0] not in SUBCOMMANDS[command]:
            return _family(command, rest)
        command, rest, name = f"{command} {rest[0]}", rest[1:], f"{command}_{rest[0]}"
    from raft_core.terminal.outcome import guarded, without_library_warnings

    # Called from Python, the caller's own settings hold.
    quietly = without_library_warnings if argv is None and not debug else contextlib.nullcontext
    with quietly():
        module = importlib.import_module(f"raft_cli.{name}")
        return guarded(lambda: module.main(parsed(command, module, rest)), debug=debug)


def parsed(command: str, module: ModuleType, words: Sequence[str]) -> argparse.Namespace:
    """The options of a command, its ``target`` and its ``settings``.

    Raises:
        ConfigError: words that the command does not take.
    """
    from raft_core.errors import ConfigError, nearest

    parser = argparse.ArgumentParser(
        prog=f"raft {command}",
        usage=module.USAGE,
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=getattr(module, "epilog", str)(),
        allow_abbrev=False,
    )
    module.add_options(parser)
    targets = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    args, args.settings = parser.parse_known_args(list(words[len(targets) :]))
    if not targets:  # behind an option of the command: raft plan --no_probe CONFIG
        targets = list(itertools.takewhile(lambda word: not word.startswith("-"), args.settings))
        args.settings = args.settings[len(targets) :]
    args.target = targets[0] if targets else None
    if args.target == "":  # a variable of the shell that is not set: no reason to begin with a default
        raise ConfigError(f"the first word is empty: {module.USAGE}")
    if len(targets) > 1:
        raise ConfigError(f"{targets[1]!r} is one word too many: {module.USAGE}")
    if args.settings and not getattr(module, "TAKES_SETTINGS", False):
        known = [name for action in parser._actions for name in action.option_strings]
        word = args.settings[0].partition("=")[0]
        raise ConfigError(f"{word} is not known{nearest(word, known)}: {module.USAGE}")
    if args.target is None and not getattr(module, "TARGET_OPTIONAL", False):
        raise ConfigError(f"something is missing: {module.USAGE}")
    return args


def _top_level(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="raft",
        usage="raft COMMAND …",
        description="Align generative models with rewards: sample K per prompt, score, keep the best, fine-tune, repeat.",
        epilog="`raft align` without a configuration runs the bundled task; `raft COMMAND --help` says more.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--debug", action="store_true", help="with any command: show the traceback of every error")
    commands = parser.add_subparsers(dest="command", metavar="", title="commands")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    if words and words[0] not in ("-h", "--help", "--version"):
        return _unknown(words[0], COMMANDS)
    if parser.parse_args(words).version:
        from importlib.metadata import version

        print(f"raft-align {version('raft-align')}")
        return 0
    parser.print_help()
    return 0


def _family(command: str, words: Sequence[str]) -> int:
    """What a command with subcommands says when it is not given one of them."""
    known = SUBCOMMANDS[command]
    if words and words[0] not in ("-h", "--help"):
        return _unknown(words[0], known, f"{command} ")
    parser = argparse.ArgumentParser(
        prog=f"raft {command}",
        usage=f"raft {command} COMMAND …",
        description=f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}.",
        epilog=f"`raft {command} COMMAND --help` says more.",
    )
    commands = parser.add_subparsers(metavar="", title="commands")
    for name, text in known.items():
        commands.add_parser(name, help=text)
    parser.print_help()
    return 0 if words else 2


def _unknown(word: str, known: Mapping[str, str], family: str = "") -> int:
    from raft_core.errors import nearest

    print(f"error: there is no command '{family}{word}'{nearest(word, known)}", file=sys.stderr)
    return 2
