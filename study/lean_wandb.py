"""What W&B's client is told to leave alone, whoever writes a run: the mirror of trials, and the findings."""

from typing import Any

LEAN: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_save_requirements": False,  # a list of all packages, of every run: five times the cost of the rest
    "finish_timeout_raises": True,  # or a run that was not sent would count as shown
}
"""Settings of W&B: no console capture, machine statistics or code. The rows and the settings are what a study needs."""
