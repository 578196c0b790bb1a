"""The process that writes runs for wandb, one for each process with runs: what to do when it has died."""

from __future__ import annotations

from contextlib import suppress


def is_gone(error: BaseException) -> bool:
    """Whether an error says that the writing process is no longer there."""
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

    return isinstance(error, (ConnectionError, HandleAbandonedError, MailboxClosedError))


def let_go() -> None:
    """Forget a dead writing process, so that the next run gets a new one and nothing is said of it at exit."""
    import wandb

    # It complains that the process cannot be told.
    with suppress(Exception, SystemExit):
        wandb.teardown()
