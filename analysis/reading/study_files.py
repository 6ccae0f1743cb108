"""Files that the driver leaves in a study's folder, for its readers here."""

import json
from pathlib import Path
from typing import Any

from trainable.config import InputError
from trainable.sealed import SEAL, read_sealed


def read_study_json(path: Path, remedy: str) -> Any:
    """What a JSON file of ours holds, its checksum left out; None where there is no file.

    Files of studies that were made before files were sealed have no checksum, and are read as they are.

    Raises:
        InputError: the file is no JSON or differs from what was written; `remedy` says what then to do.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); {remedy}") from error
    return read_sealed(path) if isinstance(content, dict) and SEAL in content else content
