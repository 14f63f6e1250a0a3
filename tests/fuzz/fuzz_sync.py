"""Any course of events: every step is the crate's own, and all peers come to equal heads.

Plays the worlds of `native/test_lockstep.py` and `native/test_healing.py` in turn, of any size.
A world is all in its seed, and the next one has the next seed: `python tests/fuzz/fuzz_sync.py
SECONDS [SEED]` plays on from a seed, and with 0 seconds that world alone.
"""

import random
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from native.test_healing import Healing  # noqa: E402
from native.test_lockstep import Lockstep  # noqa: E402

STEPS = (15, 60, 120, 120, 300, 1000)
MOST_CLIENTS = (2, 3, 5, 8)


def one_world(seed: int) -> None:
    """Play one world to its end: an even seed is one of lockstep, an odd one of healing."""
    chance = random.Random(seed)
    steps, most_clients = chance.choice(STEPS), chance.choice(MOST_CLIENTS)
    try:
        if seed % 2:
            healing = Healing(seed, most_clients)
            healing.play(steps)
            healing.drain()
        else:
            Lockstep(seed, most_clients).play(steps)
    except BaseException as error:
        error.add_note(f"to play it again: python tests/fuzz/fuzz_sync.py 0 {seed}")
        raise


def main(seconds: float, seed: int) -> None:
    """Play for a time, one world at least; ends with the exception that was found."""
    count, until = 0, time.monotonic() + seconds
    while count == 0 or time.monotonic() < until:
        one_world(seed + count)
        count += 1
    print(f"{count} worlds from seed {seed} on: nothing found")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32))
