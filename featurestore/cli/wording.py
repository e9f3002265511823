"""Wording: what errors advise in Python, as the command line has it."""

from __future__ import annotations

# What an error says -> what a command says.  Errors are raised far below both and are written for Python, where most
# of them are met; tests/test_cli_wording.py looks for others of the kind.
OPTIONS = {
    "say which with fingerprint=, or ": "say which as ",
    "name their recipe (fingerprint='...' in Python, KEY@PREFIX on the command line)": "name their recipe, KEY@PREFIX",
    "@PREFIX on the command line": "@PREFIX",
    "use weights 'random:0'": "use --weights random:0",
    "with weights=DIR, HUB_ID[@REVISION] or random:SEED (--weights on the command line)":
        "with --weights DIR, HUB_ID[@REVISION] or random:SEED",
    "as weights=DIR (--weights DIR)": "with --weights DIR",
    "--allow-corrupt (Python: allow_corrupt=True)": "--allow-corrupt",
    "make the directory writable, or open the store with read_only=True":
        "make the directory writable, or take another store with --store DIR",
    "take another store, or open it with read_only=True to compute without keeping":
        "or take another store with --store DIR",
    "pass overwrite=True to replace them": "to replace them remove those first with `fstore rm`",
    " was opened with read_only=True": " is only read by this command",
}  # fmt: skip


def in_options(message: str) -> str:
    """A message with the options of the command line where it names arguments of Python."""
    for python, option in OPTIONS.items():
        if python in message:
            message = message.replace(python, option)
    return message
