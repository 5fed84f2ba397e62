"""Names as Google's interface takes them: projects, regions, buckets, images, accounts, networks, labels.

Each function returns the lines of what is wrong, none where all is well. Rules are those of Google Cloud's reference
pages; what is behind a name (whether the bucket is there) is not looked at.
"""

import re
import unicodedata

_PROJECT = re.compile(r"([a-z][a-z0-9.-]*:)?[a-z][a-z0-9-]{4,28}[a-z0-9]|\d{6,}")
_LOCATION = re.compile(r"[a-z]+(-[a-z]+)+\d+")
_ZONE = re.compile(rf"({_LOCATION.pattern})-[a-z]")
_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\s?#\[\]*]*)?")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9.:-]*(/[a-z0-9][a-z0-9._-]*)+(:[A-Za-z0-9_][\w.-]{0,127}|@sha256:[0-9a-f]{64})")
_ACCOUNT = re.compile(r"[a-z0-9-]+@([a-z0-9.-]+\.iam|developer)\.gserviceaccount\.com")
_NETWORK = re.compile(r"projects/\d+/global/networks/[a-z]([a-z0-9-]*[a-z0-9])?")
_LETTERS = {"Ll", "Lo"}
_PLAIN = "the bucket in small letters, the folder without blanks and ? # [ ] *"
_LABEL_LENGTH, _LABELS = 63, 64
OWN_LABEL = "vlm_jax"
"""A label of every job: which program it runs."""


def project(text: str) -> list[str]:
    wanted = "the ID of a project, such as my-project-123456"
    return [] if _PROJECT.fullmatch(text) else [f"--project={text}: wanted {wanted}"]


def location(text: str) -> list[str]:
    if zone := _ZONE.fullmatch(text):
        return [f"--location={text}: is a zone; jobs are given a region: {zone[1]}"]
    return [] if _LOCATION.fullmatch(text) else [f"--location={text}: wanted a region such as us-central1"]


def store(flag: str, text: str) -> list[str]:
    """Of a folder that a job writes: the machine is gone afterwards, and its disk with it."""
    if text.startswith("/gcs/"):
        return [f"--{flag}={text}: is the bucket as the job will see it; give gs://{text.removeprefix('/gcs/')}"]
    if not text.startswith("gs://"):
        return [f"--{flag}={text}: is on the job's own disk, which is gone when it ends; wanted gs://BUCKET/FOLDER"]
    return [] if _BUCKET.fullmatch(text) else [f"--{flag}={text}: wanted gs://BUCKET/FOLDER, {_PLAIN}"]


def image(text: str) -> list[str]:
    wanted = "HOST/PROJECT/REPOSITORY/NAME:TAG, such as us-central1-docker.pkg.dev/my-project/vlm-jax/tpu:1"
    return [] if _IMAGE.fullmatch(text) else [f"--container_image={text}: wanted {wanted}"]


def service_account(text: str) -> list[str]:
    wanted = "an address such as trainer@my-project.iam.gserviceaccount.com"
    return [] if _ACCOUNT.fullmatch(text) else [f"--service_account={text}: wanted {wanted}"]


def network(text: str) -> list[str]:
    wanted = "projects/NUMBER/global/networks/NAME, with the number of the project, not its ID"
    return [] if _NETWORK.fullmatch(text) else [f"--network={text}: wanted {wanted}"]


def job_name(text: str) -> list[str]:
    good = 1 <= len(text) <= 128 and text.isprintable()
    return [] if good else [f"--job_name={text[:40]!r}: wanted 1 to 128 printed letters"]


def labels(text: str) -> tuple[dict[str, str], list[str]]:
    """`team=vision,run=7` as a mapping, and what is wrong with it."""
    pairs: dict[str, str] = {}
    errors = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = entry.partition("=")
        if not equals:
            errors.append(f"--labels: {entry!r} has no value; wanted KEY=VALUE,KEY=VALUE")
        elif key == OWN_LABEL:
            errors.append(f"--labels: {key!r} is the launcher's own, which holds the program's name; take another")
        elif key in pairs:
            errors.append(f"--labels: {key!r} is given twice")
        elif not _is_label(key) or not key or unicodedata.category(key[0]) not in _LETTERS:
            errors.append(
                f"--labels: the key {key!r} is not one: it begins with a small letter and has up to {_LABEL_LENGTH} "
                "small letters, digits, _ and -"
            )
        elif not _is_label(value):
            errors.append(
                f"--labels: the value {value!r} of {key!r} is not one: it has up to {_LABEL_LENGTH} small letters, "
                "digits, _ and -"
            )
        pairs.setdefault(key, value)
    if len(pairs) >= _LABELS:
        errors.append(f"--labels: {len(pairs)} labels, and a job has at most {_LABELS}, one of them {OWN_LABEL}")
    return pairs, errors


def _is_label(text: str) -> bool:
    known = {*_LETTERS, "Nd", "Nl", "No"}
    return len(text) <= _LABEL_LENGTH and all(c in "_-" or unicodedata.category(c) in known for c in text)
