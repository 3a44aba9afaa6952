"""Which fault meets which reply, request and connection: drawn from a seed, the same each time.

Each connection draws from numbers of its own, so that what happens on one does not depend on how
many others there are.  Modes:

* ``exact``: faults after which every result that a client gives must still be exactly right;
* ``forged``: those, and replies that nobody asked for.  What names its key stays right;
* ``flips``: bytes are changed on the way, which nothing in the protocol protects from.
"""

from __future__ import annotations

import itertools
import random

# How often each fault is drawn, relative to the others.  What costs a client its whole timeout is
# rare, or little else would happen.
REPLY = {
    "cut": 4,
    "reset": 4,
    "half-close": 3,
    "delay": 3,
    "trickle": 2,
    "split": 12,
    "drop": 1,
    "late": 1,
    "hang": 1,
    "another key": 3,
    "close when idle": 4,
}
REQUEST = {
    "request cut": 3,
    "request reset": 3,
    "request half-close": 2,
    "request split": 8,
    "request late": 1,
}
CONNECT = {"silence": 1, "refusal": 3, "reset at once": 2}
FORGED = {"duplicate": 6, "late duplicate": 6}

# One in so many of each is met by a fault.
EVERY_REPLY, EVERY_REQUEST, EVERY_CONNECTION = 15, 40, 20

MODES = ("exact", "forged", "flips")


class Schedule:
    """The faults of connection `number`; each question draws the answer to it."""

    def __init__(self, mode: str, seed: str, number: int) -> None:
        self.random = random.Random(f"{seed}-{number}")
        if mode == "flips":
            self._reply = {"flip": 2, "split": 1}
            self._request = {"request flip": 2, "request split": 1}
            self._connect: dict[str, int] = {}
        else:
            self._reply = {**REPLY, **(FORGED if mode == "forged" else {})}
            self._request = REQUEST
            self._connect = CONNECT

    def on_reply(self) -> str:
        """The fault that a reply meets, empty for none."""
        return self._draw(self._reply, EVERY_REPLY)

    def on_request(self) -> str:
        """The fault that what the client has sent meets, empty for none."""
        return self._draw(self._request, EVERY_REQUEST)

    def on_connect(self) -> str:
        """The fault that the connection meets before anything else, empty for none."""
        return self._draw(self._connect, EVERY_CONNECTION)

    def flipped(self, data: bytes) -> bytes:
        """`data` with one byte of it another."""
        at = self.random.randrange(len(data))
        flip = 1 << self.random.randrange(8)
        if self.random.random() < 0.5:
            flip = self.random.randrange(1, 256)
        return data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]

    def pieces(self, data: bytes) -> list[bytes]:
        """`data` in pieces, cut anywhere."""
        count = min(self.random.randrange(1, 12), len(data) - 1)
        cuts = [0, *sorted(self.random.sample(range(1, len(data)), count)), len(data)]
        return [data[start:end] for start, end in itertools.pairwise(cuts)]

    def _draw(self, weights: dict[str, int], every: int) -> str:
        if not weights or self.random.randrange(every):
            return ""
        return self.random.choices(list(weights), list(weights.values()))[0]
