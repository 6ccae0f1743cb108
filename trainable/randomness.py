"""Random streams: every use has its own, derived from what it is for, so that none can disturb another."""

import hashlib
import json


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from (seed, purpose, ...), the same in every process and on every machine.

    Python's own `hash` is salted per process, and seeds that merely add up collide: seed 1 in epoch 2 would be seed 2
    in epoch 1.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
