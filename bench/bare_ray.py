"""How long a Ray alone takes to start here: `python -m bench.bare_ray FOLDER` prints the seconds.

From `ray.init`, with the driver's settings, to the answer of the first actor: what no driver on Ray can be faster than.
"""

import logging
import os
import sys
import time

import ray


class Greeter:
    """The least that an actor can do."""

    def greet(self) -> str:
        """Answers."""
        return "hello"


def main(scratch: str) -> None:
    """Starts Ray, asks an actor, prints the seconds, ends Ray."""
    started = time.perf_counter()
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=128 * 2**20,
        _temp_dir=scratch,
    )
    assert ray.get(ray.remote(Greeter).remote().greet.remote()) == "hello"
    print(time.perf_counter() - started)
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
