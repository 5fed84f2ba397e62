"""What the hub's client raises, put into one line that says what to do."""

import contextlib
from collections.abc import Iterator

from vlm_jax.errors import InputError


@contextlib.contextmanager
def answering(
    name: str, repo: str, revision: str | None = None, *, kind: str = "model", local: str = "folder", near: str = ""
) -> Iterator[None]:
    """Around calls of the hub's client.

    Args:
      name: what was asked for, as error lines begin with it.
      repo: `org/name`.
      kind: of the repository, "model" or "data set".
      local: what the name could have been on this machine, "folder" or "file or folder".
      near: the end of that: which ones have a name like it.

    Raises:
      InputError: whatever went wrong but an error of the disk.
    """
    # Loaded here: half a second that nobody with a local folder should wait for.
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    page = f"{hub}/{repo}" if kind == "model" else f"{hub}/datasets/{repo}"
    nothing_here = f"no {local} of this name here{near};"
    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError as error:
        raise InputError(
            f"{name}: access must be asked for at {page}; then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{name}: {nothing_here} no {kind} on {hub} either; check the spelling; for a private {kind} log in "
            "with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{name}: {repo} has no revision {revision or 'main'!r}; its branches and tags are listed at "
            f"{page}/tree/main"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise InputError(
                f"{name}: {nothing_here} it is not complete in the cache {constants.HF_HUB_CACHE} either, and "
                f"HF_HUB_OFFLINE forbids the download; unset it, or give a {local}"
            ) from error
        raise InputError(
            f"{name}: {nothing_here} it is not complete in the cache either, and {hub} gives no answer "
            f"({_reason(error.__cause__ or error)}); check the network and HF_ENDPOINT, or give a {local}"
        ) from error
    except errors.HfHubHTTPError as error:
        raise InputError(f"{name}: {hub} answers {_reason(error)}; try again, or check HF_TOKEN") from error
    except OSError:  # the disk, not the hub
        raise
    except Exception as error:  # transport errors have no class that the hub's client promises
        raise InputError(f"{name}: the download from {hub} failed ({_reason(error)}); try again") from error


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
