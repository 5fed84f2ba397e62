"""Secrets do not travel in a job's request: who may see a job reads its arguments and variables.

Found by the forms that common keys have, by the name of an environment variable, and by the values that variables with
such names have on this machine. A message names where a secret stands, never the secret.
"""

import os
import re
from collections.abc import Iterable, Mapping

_NAME = re.compile(
    r"(^|_)KEY(_|$)|(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|COOKIE)(_|$)|(API|ACCESS|SECRET)KEY"
    r"|(^|_)(PASS|PAT|DSN)$|._(PWD|AUTH)$",  # PWD itself is the folder that one is in
    re.IGNORECASE,
)
_FORMS = {
    "a token of Hugging Face": r"\bhf_[A-Za-z0-9]{16,}",
    "a key of OpenAI's form": r"\bsk-[A-Za-z0-9_-]{16,}",
    "a key of Google": r"\bAIza[A-Za-z0-9_-]{30,}",
    "an access token of Google": r"\bya29\.[A-Za-z0-9_.-]{16,}",
    "a token of GitHub": r"\b(gh[pousr]_|github_pat_)[A-Za-z0-9_]{20,}",
    "a key of AWS": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "a token of Slack": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}",
    "a token of GitLab": r"\bglpat-[A-Za-z0-9_-]{16,}",
    "a key of NVIDIA": r"\bnvapi-[A-Za-z0-9_-]{16,}",
    "a key of Weights & Biases": r"\bwandb_v\d_[A-Za-z0-9_]{16,}",
    "a bearer token": r"\b[Bb]earer [A-Za-z0-9._~+/-]{16,}",
    "an address with a password": r"://[^/\s@]+@",
    "an address with a key": r"(?i)[?&]([a-z-]*[_-])?(key|token|secret|password|sig|signature|credential)=[^&\s]{8,}",
}
_SHORTEST = 8
"""Values of fewer letters would be found where they are not meant."""


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret, as HF_TOKEN and OPENAI_API_KEY do."""
    return _NAME.search(name) is not None and not name.upper().endswith("_ENV")


def errors(texts: Iterable[tuple[str, str]], environment: Mapping[str, str] | None = None) -> list[str]:
    """A line for each text with a secret in it.

    Args:
      texts: (where it stands, the text).
      environment: the variables of this machine; those of the process unless given.
    """
    environment = os.environ if environment is None else environment
    values = {name: value for name, value in environment.items() if is_secret_name(name) and len(value) >= _SHORTEST}
    lines = []
    for where, text in texts:
        kinds = [kind for kind, form in _FORMS.items() if re.search(form, text)]
        kinds += [f"the value of {name}" for name, value in values.items() if value in text]
        if kinds:
            lines.append(
                f"{where}: holds what looks like {kinds[0]}; a request can be read by whoever sees the job, so no "
                "secret goes into it: give the job's --service_account the access instead"
            )
    return lines
