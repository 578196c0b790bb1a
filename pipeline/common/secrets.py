"""Detection of secrets, and their removal from everything that is written.

A secret is the value of an environment variable or configuration key whose name says so, or a text in the form of a
well-known service's tokens. A bare hexadecimal number is not one: commits and checksums look the same.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

HIDDEN = "(hidden)"
_WORD = (
    r"(?:(?:api|access|secret|private|signing|encryption)_?key|passw(?:or)?d|passphrase|secret|credentials?"
    r"|(?:access|auth|bearer|hf|hub|refresh|api|session)_?token)"
)
_NAME = re.compile(rf"(?:{_WORD}|^token)$", re.IGNORECASE)
_VARIABLE = re.compile(r"_(?:TOKEN|PAT)$", re.IGNORECASE)
# Shorter values of secret variables would match by accident.
_SHORTEST = 8
_FORMS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}",
    "a W&B key": r"\bwandb_v\d+_[A-Za-z0-9_]{20,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "an AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "an API key": r"\bsk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}",
    "a bearer token": r"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{16,}=*",
    "a password in an address": r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
}
_FORM = re.compile("|".join(f"(?:{form})" for form in _FORMS.values()))
# A setting quoted in a line of text, as in `api_key=…` or `"hf_token": "…"`.
_SETTING = re.compile(rf"({_WORD}[\"']?\s*[=:]\s*[\"']?)(?!{re.escape(HIDDEN)})[^\s\"',;&()]{{{_SHORTEST},}}", re.I)


def redact(text: str) -> str:
    """Return the text with every secret in it hidden."""
    for word in _environment_secrets():
        text = text.replace(word, HIDDEN)
    return _SETTING.sub(rf"\1{HIDDEN}", _FORM.sub(HIDDEN, text))


def redacted(value: Any, key: str = "") -> Any:
    """Return a nested plain value without secrets. Text with a secret and values of secret keys are hidden whole."""
    if value is not None and _is_secret(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {name: redacted(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item) for item in value]
    return HIDDEN if isinstance(value, str) and redact(value) != value else value


def secret_in(key: str, value: object) -> str | None:
    """Return a sentence, without the secret, if a key of the command line has a secret as its value; else None."""
    if value is None or value == "":
        return None
    text = str(value)
    what = next((name for name, form in _FORMS.items() if re.search(form, text)), None)
    if what is None and any(word in text for word in _environment_secrets()):
        what = "the value of a secret environment variable"
    if what is None and (_is_secret(key) or _SETTING.search(text)):
        what = "a secret"
    if what is None:
        return None
    return (
        f"{key} contains {what}, which would be stored with the results: leave it out, and set tokens in the "
        "environment (HF_TOKEN, WANDB_API_KEY)"
    )


class RedactingFilter(logging.Filter):
    """Hides secrets in log records and their tracebacks. Attach it to a handler; it lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:
            # The handler would print the arguments as they are.
            message = f"{record.msg} {record.args}"
        record.msg, record.args = redact(message), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def _is_secret(key: str) -> bool:
    """Return whether any part of a dotted key is the name of a secret."""
    return any(_NAME.search(part) for part in key.split("."))


def _environment_secrets() -> tuple[str, ...]:
    """Return the values of secret environment variables, longest first, since one may be part of another."""
    return _longest_first(tuple(value for name, value in os.environ.items() if _names_secret(name)))


@lru_cache(1024)
def _names_secret(variable: str) -> bool:
    return bool(_NAME.search(variable) or _VARIABLE.search(variable))


@lru_cache(16)
def _longest_first(values: tuple[str, ...]) -> tuple[str, ...]:
    # The path of a file with credentials may be shown: only its content is secret.
    words = {value for value in values if len(value) >= _SHORTEST and not os.path.exists(value)}
    return tuple(sorted(words, key=len, reverse=True))
