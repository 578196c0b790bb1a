"""Handles the death of the process that writes runs for wandb; each process with runs has one."""

from __future__ import annotations

from contextlib import suppress


def is_gone(error: BaseException) -> bool:
    """Return whether an error says that the writing process no longer exists."""
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

    return isinstance(error, (ConnectionError, HandleAbandonedError, MailboxClosedError))


def let_go() -> None:
    """Forget a dead writing process: the next run gets a new one, and nothing is printed about it at exit."""
    import wandb

    # It complains that the process cannot be reached.
    with suppress(Exception, SystemExit):
        wandb.teardown()
