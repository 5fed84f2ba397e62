"""Secrets do not travel in a request of a job, wherever they stand, and no message repeats them."""

import json

import pytest

from data_pipeline.launching import secrets
from data_pipeline.launching.job import prepare
from tests.data_pipeline.launching.test_launching import JOB, errors, job, settings
from tests.started import ROOT

SECRETS = [
    "hf_" + "a" * 30,
    "sk-proj-" + "b" * 30,
    "AIza" + "c" * 35,
    "ya29." + "d" * 30,
    "ghp_" + "e" * 36,
    "AKIA" + "F" * 16,
    "xoxb-" + "1" * 12,
    "https://me:word@example.com/x",
    "redis://:hunter22@example.com/0",
    "https://a-token-alone@example.com/x",
    "https://example.com/x?a=1&api_key=abcdefgh",
    "https://storage.googleapis.com/b/x?X-Goog-Signature=0123456789",
    "glpat-" + "g" * 20,
    "-----BEGIN PRIVATE KEY-----",
    "the-value-of-a-variable",
]


PLACES = ["overrides", "flags", "env", "env name", "labels", "machine", "location", "project", "settings"]


@pytest.mark.parametrize(
    ("secret", "place"),
    [(secret, "overrides") for secret in SECRETS] + [(one, place) for one in SECRETS[::8] for place in PLACES[1:]],
)
def test_a_secret_is_refused_wherever_it_stands_and_is_not_repeated(monkeypatch, secret, place):
    monkeypatch.setenv("MY_API_KEY", "the-value-of-a-variable")
    changes = {
        "overrides": {"overrides": [("data.suffix", secret)]},
        "flags": {"flags": [("question", f"read this: {secret}")]},
        "env": {"env": [f"NOTE={secret}"]},
        "labels": {"labels": f"a={secret}"},
        "env name": {"env": [secret]},
        "machine": {"machine": secret},
        "location": {"location": secret},
        "project": {"project": secret},
        "settings": {},
    }
    config = settings(**{"optimizer.name": secret}) if place == "settings" else settings()
    lines = errors(job(**changes[place]), config)
    assert any("holds what looks like" in line for line in lines)
    assert all(secret not in line for line in lines)


@pytest.mark.parametrize(
    ("names", "secret"),
    [
        ("HF_TOKEN WANDB_API_KEY MLFLOW_TRACKING_PASSWORD PGPASSWORD MYSQL_PWD DB_PASS HTTP_AUTH SENTRY_DSN", True),
        ("PWD TOKENIZERS_PARALLELISM MLFLOW_TRACKING_USERNAME XLA_FLAGS COMPASS AUTHOR OPENAI_API_KEY_ENV", False),
    ],
)
def test_a_variable_is_known_as_a_secret_by_its_name(names, secret):
    assert {name: secrets.is_secret_name(name) for name in names.split()} == dict.fromkeys(names.split(), secret)


def test_no_variable_of_this_machine_is_in_a_request(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "z" * 30)
    monkeypatch.setenv("ANOTHER", "unmistakable-word")
    text = json.dumps(prepare(JOB, ROOT, settings()).body)
    assert "hf_" not in text and "unmistakable-word" not in text
