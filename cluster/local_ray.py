"""The Ray that trials run on: one of our own on this machine, or a cluster whose address the user gave."""

import functools
import gc
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.resources import num_cpus
from trainable.config import InputError

MAX_TEMP_CHARACTERS = 22
AUTH_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # rows are in metrics.jsonl and W&B
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the run sooner, and treats SIGTERM alike
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # Tune's own state is never read, and grows with every trial
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # their last line is said, and kept in the ledger
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative path in a study, as of weights, holds for its trials too
}


@contextmanager
def connected_ray(address: str | None = None) -> Iterator[None]:
    """Ray, for as long as the block lasts.

    A SIGTERM while it starts is an interrupt like any other.

    Args:
        address: of a running cluster, which is left as it is. None: a Ray of our own, gone at the end; never one that
            somebody else left running.

    Raises:
        InputError: the cluster cannot be joined.
    """
    os.environ.update(SETTINGS)
    with _joined_ray(address) if address else _own_ray():
        yield


@contextmanager
def _joined_ray(address: str) -> Iterator[None]:
    import ray

    try:
        with _own_exit(), _joining(address):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        _shut_down()


@contextmanager
def _own_ray() -> Iterator[None]:
    import ray

    with _private_folder() as folder, _own_token():
        try:
            with _own_exit(), _on_loopback():
                ray.init(
                    address="local",
                    num_cpus=num_cpus(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=128 * 2**20,
                    _temp_dir=str(folder),
                )
            yield
        finally:
            _shut_down()


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder that Ray makes, and lets everybody write into, in a new one that nobody else can enter."""
    # Ray's socket paths may have 107 characters: 64 of them are its own, and these folders take 21.
    is_long = len(tempfile.gettempdir()) > MAX_TEMP_CHARACTERS and Path("/tmp").is_dir()
    private = tempfile.mkdtemp(prefix="canopoint-", dir="/tmp" if is_long else None)
    try:
        yield Path(private, "r")
    finally:
        shutil.rmtree(private, ignore_errors=True)


@contextmanager
def _own_exit() -> Iterator[None]:
    """Takes back Ray's way to end on SIGTERM, for which it installs a handler before it is ready."""
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Makes a Ray that starts meanwhile listen to this machine alone.

    On Linux Ray listens on all interfaces, in case other machines join; on systems where they cannot it does not, and
    this says that ours is one of those. Ray reads the variable when it is imported, so its own copy changes, too.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    os.environ[LOOPBACK_VARIABLE] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[LOOPBACK_VARIABLE]  # whoever starts a cluster from here wants one


@contextmanager
def _own_token() -> Iterator[None]:
    """Gives a Ray that lives meanwhile a token that no other knows; what the environment says of tokens is hidden.

    That is meant for a cluster, and may name a file that is gone. Without a token in the environment Ray writes one
    into ~/.ray, for all to read.
    """
    before = {name: os.environ.pop(name, None) for name in AUTH_VARIABLES}
    os.environ["RAY_AUTH_TOKEN"] = _token()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)  # Ray sets its mode
            if value is not None:
                os.environ[name] = value


@functools.cache
def _token() -> str:
    """The same for every Ray of this process, which keeps the first that it sees."""
    return secrets.token_hex(32)


@contextmanager
def _joining(address: str) -> Iterator[None]:
    """Says in one line why Ray does not join, as where the cluster's Python is another; its head let us in before."""
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"--address {address}: Ray does not join that cluster ({reason}); use its Python and Ray here, or hand the"
            f" study over with canopoint submit"
        ) from error


def _shut_down() -> None:
    """Ends Ray with the garbage collector held off.

    Handles of actors that Tune has left behind would else be collected in another thread of ours, in the middle of it,
    and Ray's core then ends the process on the spot, without a traceback.
    """
    import ray

    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
