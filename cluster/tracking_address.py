"""Where W&B shows a study, as the driver learned it: for whoever looks at the study without W&B."""

import os
import re
from pathlib import Path

from trainable.atomic import open_regular
from trainable.sealed import DamagedError, unseal, write_sealed

FILE = "wandb.json"
ADDRESS = re.compile(r"https?://[!-~]{1,500}")
MAX_BYTES = 4096


def note_address(folder: Path, address: str | None) -> None:
    """Keeps the address of the study's W&B project in the study's folder, once it is known."""
    if address and read_address(folder) != address:
        write_sealed(folder / FILE, {"project_url": address})


def read_project(folder: Path) -> str:
    """The project as W&B's API names it, `ENTITY/PROJECT`; empty where W&B never took anything of the study."""
    return "/".join(read_address(folder).rstrip("/").split("/")[-2:])


def read_address(folder: Path) -> str:
    """The address; empty where none was noted. The folder may be anyone's.

    Raises:
        InputError: what is there is no file.
    """
    if not os.path.lexists(folder / FILE):
        return ""
    with open_regular(folder / FILE, os.O_RDONLY) as file:
        content = file.read(MAX_BYTES)
    try:
        address = (unseal(content) or {}).get("project_url")
    except DamagedError:
        return ""
    return address if isinstance(address, str) and ADDRESS.fullmatch(address) else ""
