"""Read copies of a recording that are damaged by chance, in a process of its own, whose end tells of a crash.

python read_damaged.py RECORDING SEED COUNT [TOPIC]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from moving_object_detector.common.errors import UserError
from moving_object_detector.media.sources import open_source


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return the data with bits flipped, pieces replaced or overwritten, or an end missing."""
    changed, way = bytearray(data), rng.randrange(4)
    if way == 3:
        return data[: rng.randrange(1, len(data))]
    for _ in range(rng.choice((1, 3, 20))):
        place = rng.randrange(len(changed))
        if way == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif way == 1:
            changed[place : place + rng.randrange(1, 64)] = rng.randbytes(rng.randrange(64))
        else:
            changed[place : place + 8] = b'\xff' * 8
    return bytes(changed)


def main() -> None:
    """Try them all; anything but frames and a UserError ends it with a trace."""
    recording, seed, count, *topic = sys.argv[1:]
    whole, rng = Path(recording).read_bytes(), random.Random(int(seed))
    copy = Path(recording).with_name(f'damaged{Path(recording).suffix}')
    read = refused = 0
    for _ in range(int(count)):
        copy.write_bytes(damaged(whole, rng))
        try:
            for frame in open_source(copy, topic=topic[0] if topic else None):
                assert min(frame.image.shape[:2]) >= 16
                assert 0 <= frame.stamp < 2**31 * 10**9
            read += 1
        except UserError as error:
            assert str(error).isprintable()  # noqa: PT017 (a program, no test)
            refused += 1
    print(read, refused)


main()
