"""W&B's client, let in by W&B's service: what it needs, how long it may take, and its troubles as one line."""

import logging
import netrc
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import wandb
from wandb.errors import AuthenticationError, CommError, UsageError
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from trainable.config import InputError

ANSWER_S, TIMEOUT_S = 10, 60
"""Until W&B must have let us in; until it must have answered a question."""

TRIES = 4
"""Of a question, over some 10 s: W&B limits how much is asked at a time."""


@contextmanager
def connected_api(project: str) -> Iterator[wandb.Api]:
    """W&B's API. What its client writes goes to a folder that is gone at the end of the block.

    Args:
        project: `ENTITY/PROJECT`, for what is said.

    Raises:
        InputError: there is no key or no such project, or W&B does not answer.
    """
    base_url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    host, where = urlsplit(base_url).hostname, f"wandb://{project}"
    if not host or not base_url.startswith(("http://", "https://")):
        raise InputError("WANDB_BASE_URL: must be a URL, as in https://api.wandb.ai; correct it, or remove it")
    _check_key(where, host)
    try:
        with tempfile.TemporaryDirectory(prefix="canopoint-") as scratch, _client_folder(scratch):
            logging.getLogger("wandb.sdk.mailbox").setLevel(logging.CRITICAL)  # it counts answers that nobody waits for
            wandb.setup(settings=_settings(tries=2))
            wandb.Api(timeout=ANSWER_S)  # which asks whether the key is known
            wandb.setup(settings=_settings(TRIES))
            yield wandb.Api(timeout=TIMEOUT_S)
    except AuthenticationError as error:
        raise InputError(
            f"{where}: W&B at {host} does not let us in ({_reason(error)}); check WANDB_API_KEY and WANDB_BASE_URL"
        ) from None
    except (CommError, UsageError, WandbApiFailedError, TimeoutError) as error:
        raise InputError(
            f"{where}: W&B at {host} does not answer as it should ({_reason(error)}); try again, or check"
            f" WANDB_BASE_URL and the network"
        ) from None
    except ValueError as error:
        if not str(error).startswith("Could not find project"):
            raise
        raise InputError(f"{where}: W&B at {host} has no such project, or the key may not see it") from None


def _check_key(where: str, host: str) -> None:
    """Without a key, W&B's client would ask for one in a terminal, and wait."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        is_known = path.is_file() and bool(netrc.netrc(path).authenticators(host))
    except netrc.NetrcParseError as error:
        raise InputError(
            f"{path}: line {error.lineno} is none of a netrc file; mend it, or set WANDB_API_KEY"
        ) from None
    if not is_known:
        raise InputError(f"{where}: needs a W&B key for {host}; set WANDB_API_KEY or run wandb login")


@contextmanager
def _client_folder(folder: str) -> Iterator[None]:
    """Has W&B's client keep its files in a folder, and ends its service, which writes there."""
    names = {"WANDB_DIR": folder, "WANDB_CACHE_DIR": folder, "WANDB_DATA_DIR": folder, "WANDB_ERROR_REPORTING": "false"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        wandb.teardown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _settings(tries: int) -> wandb.Settings:
    """By default the client tries for hours."""
    return wandb.Settings(
        silent=True,
        x_graphql_retry_max=tries - 1,
        x_graphql_retry_wait_max_seconds=4,
        x_graphql_timeout_seconds=TIMEOUT_S / 2,
        x_file_transfer_retry_max=tries - 1,
        x_file_transfer_retry_wait_max_seconds=4,
        x_file_transfer_timeout_seconds=TIMEOUT_S / 2,
    )


def _reason(error: Exception) -> str:
    """The end of what W&B's client says: the reason, without the address, which may hold a password."""
    return str(error).splitlines()[0].rpartition(": ")[2][:200]
