"""Secrets disappear from everything that is written, and nothing else does."""

from __future__ import annotations

import io
import logging

import pytest

from pipeline.common.secrets import HIDDEN, RedactingFilter, redact, redacted, secret_in

# Put together here, so that nobody takes this file for a leak.
MIXED = "aB3dE5gH7jK9" * 3
HEX = "0123456789abcdef" * 2 + "01234567"
TOKENS = {
    "Hugging Face": "hf_" + MIXED,
    "W&B": "wandb_v1_" + MIXED,
    "GitHub": "ghp_" + MIXED,
    "GitHub, fine": "github_pat_" + MIXED,
    "AWS": "AKIA" + "ABCDEFGH12345678",
    "OpenAI": "sk-proj-" + MIXED,
    "bearer": "Bearer " + MIXED,
    "address": "https://someone:" + "swordfish@host/path",
    "no user": "https://:" + "swordfish@host/path",
    "key block": "-----BEGIN RSA PRIVATE KEY-----\nabc\ndef\n-----END RSA PRIVATE KEY-----",
    "cut key block": "-----BEGIN PRIVATE KEY-----\nabc\ndef",
    "setting": "wandb.api_key=" + HEX,
    "quoted setting": '{"hf_token": "' + "correcthorse" + '"}',
    "AWS setting": "AWS_SECRET_ACCESS_KEY=" + "wJalr/K7MDENG+bPx",
}
PRIVATE = [MIXED, HEX, "swordfish", "abc\ndef", "correcthorse", "wJalr", "ABCDEFGH12345678"]
HARMLESS = [
    f"commit {HEX}",
    "sha256 " + "0123456789abcdef" * 4,
    "store/decision/0970893808760416 is damaged",
    "https://api.wandb.ai:443/graphql does not answer",
    "http://localhost:8080/files/a@b.txt",
    "outputs/hf_models/sk-learn-pipeline-with-a-long-name.json",
    "task-specific-and-long-enough-names-1A",
    "perplexity.tokens=4096 max_tokens: 123456789 pad_token=<|endoftext|>",
    "a secret: why",
    "Unknown token: abcdefghijkl",
    "evaluate    0.2 s  (evaluation, perplexity, comparison)",
]


@pytest.fixture(autouse=True)
def no_secrets_around(monkeypatch):
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("kind", TOKENS)
def test_forms_of_tokens(kind):
    text = f"before {TOKENS[kind]}"
    hidden = redact(text)
    assert HIDDEN in hidden
    assert hidden.startswith("before ")
    assert not any(secret in hidden for secret in PRIVATE)
    assert redact(hidden) == hidden
    assert redacted({"a": [text]}) == {"a": [HIDDEN]}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text
    assert redacted([text]) == [text]
    assert secret_in("model.path", text) is None


def test_the_rest_of_a_text_stays():
    assert redact(f"cannot reach {TOKENS['address']}: 404") == f"cannot reach https://{HIDDEN}@host/path: 404"


def test_values_of_secret_variables(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", HEX)
    monkeypatch.setenv("MY_SERVICE_PASSWORD", "long password")
    monkeypatch.setenv("OTHER_TOKEN", "long password and more")
    monkeypatch.setenv("SHORT_TOKEN", "key")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "something")
    assert redact(f"{HEX} and long password and more, long password") == f"{HIDDEN} and {HIDDEN}, {HIDDEN}"
    assert redact("a key to something") == "a key to something"
    monkeypatch.delenv("WANDB_API_KEY")
    assert redact(HEX) == HEX


def test_the_name_of_a_file_with_credentials_is_no_secret(monkeypatch, tmp_path):
    path = tmp_path / "credentials.json"
    path.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert redact(f"reads {path}") == f"reads {path}"


def test_values_under_secret_keys():
    facts = {
        "hub": {"token": "t", "eos_token": "</s>", "api_key": None},
        "credentials": {"user": "u", "id": 5},
        "wandb.api_key": HEX,
        "credentials.user": "u",
        "steps": (1, 2.5, True, None),
        "commit": HEX,
    }
    assert redacted(facts) == {
        "hub": {"token": HIDDEN, "eos_token": "</s>", "api_key": None},
        "credentials": HIDDEN,
        "wandb.api_key": HIDDEN,
        "credentials.user": HIDDEN,
        "steps": [1, 2.5, True, None],
        "commit": HEX,
    }


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("model.path", TOKENS["Hugging Face"], "a Hugging Face token"),
        ("calibration.path", TOKENS["address"], "a password in an address"),
        ("task.include", ["a", TOKENS["GitHub"]], "a GitHub token"),
        ("wandb.entity", HEX, "the value of a secret environment variable"),
        ("wandb.api_key", "swordfish", "a secret"),
        ("model.path", TOKENS["setting"], "a secret"),
    ],
)
def test_a_command_line_with_a_secret_is_told_the_way_out(monkeypatch, key, value, kind):
    if kind.startswith("the value"):
        monkeypatch.setenv("WANDB_API_KEY", HEX)
    sentence = secret_in(key, value)
    assert sentence is not None
    assert sentence.startswith(f"{key} contains {kind}, ")
    assert "HF_TOKEN" in sentence
    assert not any(secret in sentence for secret in PRIVATE)


def test_a_command_line_without_one_is_fine():
    assert secret_in("wandb.api_key", None) is None
    assert secret_in("seed", 0) is None
    assert secret_in("model.revision", HEX) is None


@pytest.fixture
def logged():
    """A logger whose handler has the filter, and what it writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger = logging.getLogger("test.redaction")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)


def test_log_lines_and_their_errors_are_cleaned(logged):
    logger, stream = logged
    logger.warning("cannot load %s, try %d", TOKENS["Hugging Face"], 3)
    try:
        raise ValueError(f"refused {TOKENS['address']}")
    except ValueError:
        logger.exception("it failed", stack_info=True)
    text = stream.getvalue()
    assert f"cannot load {HIDDEN}, try 3\nit failed\nTraceback" in text
    assert f"ValueError: refused https://{HIDDEN}@host/path" in text
    assert not any(secret in text for secret in PRIVATE)


def test_a_line_that_does_not_fit_its_arguments_is_written_and_cleaned(logged, capsys):
    logger, stream = logged
    template = "two %s %s"
    logger.warning(template, TOKENS["Hugging Face"])
    text = stream.getvalue() + capsys.readouterr().err
    assert "two %s %s" in text
    assert MIXED not in text
