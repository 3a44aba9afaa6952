"""Made-up records of the kind that web services keep in memcached: users, and their sessions.

The same ones in every run, so that two runs can be compared.
"""

from __future__ import annotations

from random import Random
from typing import Any

_GIVEN = [
    "Ada",
    "Bo",
    "Chloé",
    "Dmitri",
    "Elif",
    "Fátima",
    "Goro",
    "Hélène",
    "Iñaki",
    "Joanna",
    "Kofi",
    "Lucía",
    "Mei",
    "Nils",
    "Olu",
    "Priya",
]
_FAMILY = [
    "Achterberg",
    "Brontë",
    "Çelik",
    "Díaz",
    "Eze",
    "Fujii",
    "García",
    "Håkansson",
    "Iyer",
    "Jansen",
    "Kowalski",
    "Li",
]
_LANGUAGES = ["de", "en", "es", "fr", "ja", "pl", "tr"]
_ROLES = ["customer", "editor", "reviewer", "support"]
_PAGES = ["account", "basket", "checkout", "help", "home", "news", "offers", "search"]


def users(count: int) -> dict[str, dict[str, Any]]:
    """`count` users under their keys."""
    random = Random(count)
    found = {}
    for number in range(1, count + 1):
        given, family = random.choice(_GIVEN), random.choice(_FAMILY)
        found[f"user:{number}"] = {
            "id": number,
            "name": f"{given} {family}",
            "email": f"user{number}@example.org",
            "language": random.choice(_LANGUAGES),
            "roles": sorted(random.sample(_ROLES, random.randint(1, 3))),
            "credit": round(random.uniform(0, 500), 2),
            "newsletter": random.random() < 0.3,
            "referrer": random.randint(1, number - 1) if number > 1 else None,
        }
    return found


def sessions(count: int) -> dict[str, dict[str, Any]]:
    """`count` sessions under their keys, one for each of as many users."""
    random = Random(-count)
    return {
        f"session:{random.getrandbits(64):016x}": {
            "user": number,
            "pages": random.choices(_PAGES, k=random.randint(1, 9)),
            "basket": {f"sku-{random.randint(1000, 9999)}": random.randint(1, 4) for _ in range(2)},
            "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0)",
            "seen": 1_750_000_000 + random.randrange(86_400),
        }
        for number in range(1, count + 1)
    }
