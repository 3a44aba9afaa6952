"""What a client may answer, given all that was asked of it: the model behind `chaos`.

A `User` gives random commands to a client that others use too, and holds every result against what
can be.  A command that failed may have been executed, may still be, or never will be; a noreply
command is known to have been executed once a later command of the same thread was answered by the
same server and the client has counted neither an error nor a loss.  Of a cluster it is not asked
which node has which key: there an answer settles the noreply commands on the keys it is about, and
one that all nodes give those on all keys.  A user knows all that happens to keys of its own; keys
that users share hold what somebody has written under them, or nothing.

A value tells its key and its number, and everything else in it follows from those two.

Interruptions may land anywhere, in here too.  So what a command may do is noted before it is given,
what it did afterwards, and that by one assignment.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from threading import get_ident
from time import monotonic, sleep
from typing import Any, TypeAlias

from cymemcache import MemcacheError, MemcacheIllegalInputError, MemcacheNodeDownError
from wire import PATIENCE

State: TypeAlias = int | None  # of a key: the number of the value it holds
# What a key may hold now, and what commands of unknown fate may still put there.
States: TypeAlias = tuple[frozenset[State], frozenset[State]]
Operation: TypeAlias = Callable[[State], tuple[State, Any]]

OWN_KEYS, SHARED_KEYS = 6, 4
LIMBO_MOST = 6  # commands of unknown fate, after which a key is of little use any more
NOTES_MOST = 200
ERRORS_MOST = 60
AGE_SECONDS = 1.5  # by which a connection becomes older than those that are used unseen
NODE_RETRY_SECONDS = 0.005  # between two tries of a node that is failing
SIZES = (0, 0, 20, 300, 3000, 3000, 40_000, 100_000)

_numbers = itertools.count(1)


class Wrong(Exception):
    """A result that cannot be."""


class Failed(Exception):
    """The command ended in a documented error."""


def value_of(key: str, number: int) -> bytes:
    """The value `number` of `key`."""
    head = f"{key}={number};"
    size = SIZES[number * 7919 % 101 % len(SIZES)]
    return (head + head * (size // len(head))).encode()


def number_of(key: str, value: Any) -> int:
    """The number of a value that was written under `key`; `Wrong` where it was not."""
    if isinstance(value, bytes):
        found, _, rest = value.partition(b"=")
        digits = rest.partition(b";")[0]
        if found == key.encode() and digits.isdigit() and value == value_of(key, int(digits)):
            return int(digits)
    raise Wrong(f"{key} holds {value[:80] if isinstance(value, bytes) else value!r}")


# -- what commands do to a key ---------------------------------------------------------------------


def setting(number: int) -> Operation:
    return lambda state: (number, True)


def adding(number: int) -> Operation:
    return lambda state: (number, True) if state is None else (state, False)


def replacing(number: int) -> Operation:
    return lambda state: (state, False) if state is None else (number, True)


def deleting(state: State) -> tuple[State, Any]:
    return None, state is not None


def touching(state: State) -> tuple[State, Any]:
    return state, state is not None


def getting(state: State) -> tuple[State, Any]:
    return state, state


class Key:
    """A key that one user writes to: what it can hold now, and what may still happen to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: States = (frozenset([None]), frozenset())
        self.ever: set[State] = {None}

    def foresee(self, effect: State) -> States:
        """A command is about to be given that may leave `effect`; the states before it."""
        self.ever.add(effect)
        before = self.state
        self.state = (before[0], before[1] | {effect})
        return before


class User:
    """One user of `client`, in one thread at a time.

    `exact` says that results must be exactly right; else only that a value was written under the
    key it is read from.  `trusting` is less than that: any value will do, where bytes are changed
    on the way.  `plain` values can be counted with and appended to, others cannot.  `pids` are, by
    their names, those of the servers that the client has: more than one are a cluster.
    """

    def __init__(
        self,
        client: Any,
        pids: dict[str, int],
        name: str,
        seed: str,
        exact: bool = True,
        trusting: bool = False,
        plain: bool = True,
    ) -> None:
        self.client = client
        self.pids = pids
        self.is_cluster = len(pids) > 1
        self.name = name
        self.random = random.Random(f"{seed}-{name}")
        self.exact = exact
        self.trusting = trusting
        self.errors: Counter[str] = Counter()
        self.commands = self.answered = 0
        self.names = itertools.count()
        self.keys = [self.fresh() for _ in range(OWN_KEYS)]
        self.shared = [f"shared-{number}" for number in range(SHARED_KEYS)]
        self.counter = self.log = ""
        self.counter_least = self.counter_most = 0
        self.notes: set[int] = set()
        self.noted: frozenset[int] = frozenset()
        self.forget()
        self.steps = [self.fetch, self.fetch_many, self.write, self.write, self.write_many]
        self.steps += [self.delete_many, self.swap, self.use_shared, self.use_shared, self.others]
        self.plain = plain
        if plain:
            self.steps += [self.count, self.count, self.note]

    def fresh(self) -> Key:
        return Key(f"{self.name}-{next(self.names)}")

    def step(self) -> None:
        """One random command, or a few that belong together."""
        try:
            self.random.choice(self.steps)()
        except Failed:
            pass
        for index, key in enumerate(self.keys):
            if len(key.state[1]) > LIMBO_MOST:
                self.keys[index] = self.fresh()

    # -- giving commands ---------------------------------------------------------------------------

    def ask(self, name: str, *args: Any, about: Iterable[Key] = (), **options: Any) -> Any:
        """The result of a command that is answered; `Failed` for an error that is documented.

        What noreply commands did before it is certain then.  The keys that it is `about` are left
        to `conclude`.
        """
        result = self.give(name, *args, **options)
        if self.counted != self.counts():
            self.forget()
        settled = {
            key: self.after_noreply(*one)
            for key, one in self.pending.items()
            if self.settles(args, key.name)
        }
        for key in settled.keys() - set(about):
            key.state = settled[key]
        if self.settles(args, self.counter):
            self.counter_least += self.counter_pending
            self.counter_pending = 0
        if self.settles(args, self.log):
            self.noted = self.noted | self.notes_pending
            self.notes_pending = frozenset()
        self.pending = {key: one for key, one in self.pending.items() if key not in settled}
        self.settled = settled
        return result

    def settles(self, args: tuple[Any, ...], name: str) -> bool:
        """Whether the answer to a command with `args` tells that those on key `name` are done."""
        if not self.is_cluster or not args or isinstance(args[0], bytes):  # of no key
            return True
        asked = args[0]
        return name == asked if isinstance(asked, str) else name in asked

    def tell(self, name: str, *args: Any) -> bool:
        """A noreply command; whether its effect is known after the next one that is answered."""
        if self.counted != self.counts():
            self.forget()
            self.counted = self.counts()
        self.give(name, *args, noreply=True)
        return self.exact

    def give(self, name: str, *args: Any, **options: Any) -> Any:
        self.commands += 1
        began = monotonic()
        try:
            result = getattr(self.client, name)(*args, **options)
            self.answered += not options.get("noreply", False)
            return result
        except MemcacheIllegalInputError:
            raise
        except (MemcacheError, OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "pool_wait_timeout" not in str(error):
                raise
            if getattr(error, "errno", None) == errno.EBADF:
                raise Wrong(f"{name}: a descriptor was closed by somebody else") from error
            self.forget()
            self.errors[type(error).__name__] += 1
            if isinstance(error, (ConnectionRefusedError, MemcacheNodeDownError)):
                sleep(NODE_RETRY_SECONDS)  # or there would be little else
            raise Failed from None
        finally:
            if monotonic() - began > PATIENCE:
                raise Wrong(f"{name} took {monotonic() - began} s")

    def counts(self) -> Any:
        """What stays the same as long as no noreply command was refused or lost, in one thread."""
        counters = self.client.counters
        return get_ident(), counters.noreply_errors, counters.noreply_lost

    def forget(self) -> None:
        """What noreply commands have done so far will never be known."""
        self.pending: dict[Key, tuple[States, list[Operation]]] = {}
        self.settled: dict[Key, States] = {}
        self.counter_pending = 0
        self.notes_pending: frozenset[int] = frozenset()
        self.counted: Any = None

    @staticmethod
    def after_noreply(before: States, operations: list[Operation]) -> States:
        now = before[0] | before[1]
        for operation in operations:
            now = frozenset(operation(state)[0] for state in now)
        return now, before[1]

    # -- holding results against what can be -------------------------------------------------------

    def conclude(
        self, key: Key, before: States, operation: Operation, result: Any, what: str
    ) -> None:
        """`operation` has had `result`, on a key that was in one of the states `before`."""
        if not self.exact:
            return
        before = self.settled.get(key, before)
        outcomes = [operation(state) for state in before[0] | before[1]]
        now = frozenset(state for state, outcome in outcomes if outcome == result)
        if not now:
            raise Wrong(f"{what} {key.name}: {result!r} where {before} was possible")
        key.state = (now, before[1])

    def change(self, name: str, key: Key, operation: Operation, number: State, *args: Any) -> None:
        """A command that does `operation` to `key`, and may leave `number` there at any time."""
        before = key.foresee(number)
        if self.random.random() < 0.3:
            if self.tell(name, key.name, *args):
                first, operations = self.pending.get(key, (before, []))
                self.pending = {**self.pending, key: (first, [*operations, operation])}
        else:
            result = self.ask(name, key.name, *args, about=[key], noreply=False)
            self.conclude(key, before, operation, result, name)

    def look(self, key: Key, value: Any, what: str) -> None:
        """`value` was read under `key`, None for a miss."""
        if self.trusting:
            return
        number = None if value is None else number_of(key.name, value)
        if number not in key.ever:
            raise Wrong(f"{what} {key.name}: number {number} was never written")
        self.conclude(key, key.state, getting, number, what)

    # -- the steps ---------------------------------------------------------------------------------

    def fetch(self) -> None:
        key = self.random.choice(self.keys)
        name = self.random.choice(["get", "get", "gets", "gat", "gats"])
        value = self.ask(name, key.name, about=[key])
        self.look(key, value[0] if name in ("gets", "gats") else value, name)

    def fetch_many(self) -> None:
        keys = self.random.sample(self.keys, self.random.randrange(1, OWN_KEYS + 1))
        name = self.random.choice(["get_many", "gets_many"])
        asked: list[Any] = [*[key.name for key in keys], self.random.choice(self.shared).encode()]
        self.random.shuffle(asked)
        found = self.ask(name, asked, about=keys)
        if name == "gets_many":
            found = {key: value for key, (value, _) in found.items()}
        for key in keys:
            self.look(key, found.pop(key.name, None), name)
        for name, value in found.items():
            if name not in asked:
                raise Wrong(f"{name!r} was not asked for")
            self.look_shared(name.decode(), value)

    def write(self) -> None:
        key = self.random.choice(self.keys)
        number = next(_numbers)
        value = value_of(key.name, number)
        name = self.random.choice(["set", "set", "add", "replace", "delete", "touch"])
        if name == "delete":
            self.change(name, key, deleting, None)
        elif name == "touch":
            # It leaves what is there, so nothing new may be there later.
            before = key.state
            result = self.ask(name, key.name, 1000, about=[key], noreply=False)
            self.conclude(key, before, touching, result, name)
        else:
            operation = {"set": setting, "add": adding, "replace": replacing}[name](number)
            self.change(name, key, operation, number, value)

    def write_many(self) -> None:
        keys = self.random.sample(self.keys, self.random.randrange(1, OWN_KEYS + 1))
        numbers = {key: next(_numbers) for key in keys}
        values = {key.name: value_of(key.name, numbers[key]) for key in keys}
        before = {key: key.foresee(numbers[key]) for key in keys}
        if self.random.random() < 0.3:
            if self.tell("set_many", values):
                for key in keys:
                    first, operations = self.pending.get(key, (before[key], []))
                    operations = [*operations, setting(numbers[key])]
                    self.pending = {**self.pending, key: (first, operations)}
        else:
            result = self.ask("set_many", values, about=keys, noreply=False)
            if self.exact and result != []:
                raise Wrong(f"set_many: {result}")
            for key in keys:
                self.conclude(key, before[key], setting(numbers[key]), True, "set_many")

    def delete_many(self) -> None:
        keys = self.random.sample(self.keys, 2)
        before = {key: key.foresee(None) for key in keys}
        self.ask("delete_many", [key.name for key in keys], about=keys, noreply=False)
        for key in keys:
            # Whether there was something is not told.
            self.conclude(key, before[key], lambda state: (None, True), True, "delete_many")

    def swap(self) -> None:
        """cas, with a token that is still right or that is not any more."""
        key = self.random.choice(self.keys)
        value, token = self.ask("gets", key.name, about=[key])
        self.look(key, value, "gets")
        if token is None:
            return
        outdated = self.random.random() < 0.3
        if outdated:
            number = next(_numbers)
            before = key.foresee(number)
            result = self.ask(
                "set", key.name, value_of(key.name, number), about=[key], noreply=False
            )
            self.conclude(key, before, setting(number), result, "set")
        undisturbed = not key.state[1]
        number = next(_numbers)
        before = key.foresee(number)
        result = self.ask("cas", key.name, value_of(key.name, number), token, about=[key])
        if not self.exact:
            return
        if result and outdated:
            raise Wrong(f"cas {key.name}: an outdated token was taken")
        if undisturbed and result is not (not outdated):
            raise Wrong(f"cas {key.name}: {result} though nobody else has changed it")
        # True: stored; False: something else is there; None: nothing is.
        possible = before[0] | before[1]
        now = {True: frozenset([number]), False: possible - {None}, None: possible & {None}}[result]
        if not now:
            raise Wrong(f"cas {key.name}: {result} where {before} was possible")
        key.state = (now, before[1])

    def count(self) -> None:
        """incr: each one that was executed counts once, each that was not never."""
        if not self.counter or self.random.random() < 0.02:
            name = f"{self.name}-counter-{next(self.names)}"
            # An add that comes late does no harm, as a set would.
            self.ask("add", name, b"1000", noreply=False)
            self.counter_pending = 0
            self.counter, self.counter_least, self.counter_most = name, 1000, 1000
        delta = self.random.randrange(1, 5)
        self.counter_most += delta
        if self.random.random() < 0.3:
            if self.tell("incr", self.counter, delta):
                self.counter_pending += delta
            return
        number = self.ask("incr", self.counter, delta)
        if self.exact:
            least = self.counter_least + delta
            if not isinstance(number, int) or not least <= number <= self.counter_most:
                raise Wrong(f"incr: {number} is not in {least} .. {self.counter_most}")
            self.counter_least = number

    def note(self) -> None:
        """append and prepend: each note is there once, at most, and those that are certain are."""
        if not self.log or len(self.notes) > NOTES_MOST:
            name = f"{self.name}-log-{next(self.names)}"
            self.ask("add", name, b",", noreply=False)
            self.notes_pending = frozenset()
            self.log, self.notes, self.noted = name, set(), frozenset()
        name = self.random.choice(["append", "prepend", "get"])
        if name == "get":
            value = self.ask("get", self.log)
            if self.trusting:
                return
            found = [int(text) for text in (value or b"").split(b",") if text]
            if len(set(found)) != len(found) and self.exact:
                raise Wrong(f"{self.log} holds a note twice: {found}")
            if not self.notes.issuperset(found) or (self.exact and not self.noted.issubset(found)):
                raise Wrong(f"{self.log} holds {found}, not {sorted(self.noted)}")
            return
        number = next(_numbers)
        self.notes.add(number)
        text = b"%d," % number
        if self.random.random() < 0.3:
            if self.tell(name, self.log, text):
                self.notes_pending = self.notes_pending | {number}
        elif self.ask(name, self.log, text, noreply=False):
            self.noted = self.noted | {number}
        elif self.exact:
            raise Wrong(f"{name} {self.log}: not stored")

    def use_shared(self) -> None:
        key = self.random.choice(self.shared)
        name = self.random.choice(["set", "get", "get", "delete", "gets"])
        if name == "set":
            self.ask("set", key, value_of(key, next(_numbers)), noreply=False)
        elif name == "delete":
            self.tell("delete", key)
        else:
            value = self.ask(name, key)
            self.look_shared(key, value[0] if name == "gets" else value)

    def look_shared(self, key: str, value: Any) -> None:
        if value is not None and not self.trusting:
            number_of(key, value)

    def others(self) -> None:
        choice = self.random.random()
        if choice < 0.3:
            for version in self.by_node(self.ask("version")).values():
                if self.exact and not version[:1].isdigit():
                    raise Wrong(f"version: {version!r}")
        elif choice < 0.5:
            stats = self.by_node(self.ask("stats"))
            pids = {name: one.get(b"pid") for name, one in stats.items()}
            if self.exact and pids != self.pids:
                raise Wrong(f"stats of {pids}, the servers are {self.pids}")
        elif choice < 0.7:
            for line in self.by_node(self.ask("raw_command", b"version")).values():
                if self.exact and not line.startswith(b"VERSION "):
                    raise Wrong(f"raw_command: {line!r}")
        elif choice < 0.8:
            self.give("close")
        elif choice < 0.9:
            self.age()

    def age(self) -> None:
        """Idle connections are old enough to be looked at before they are used."""
        clients = self.client.clients.values() if self.is_cluster else [self.client]
        for client in list(clients):
            for connection in list(client._pool._idle):
                connection.used_at_seconds -= AGE_SECONDS

    def by_node(self, answer: Any) -> dict[str, Any]:
        """What each server has answered."""
        answers = dict(answer) if self.is_cluster else dict.fromkeys(self.pids, answer)
        if answers.keys() != self.pids.keys():
            raise Wrong(f"answers of {list(answers)}, the nodes are {list(self.pids)}")
        return answers

    def recovers(self) -> None:
        """With no more faults, results are right after as many errors as there can be."""
        key = self.fresh()
        number = next(_numbers)
        value = value_of(key.name, number)
        before = self.errors.copy()
        for _ in range(ERRORS_MOST):
            try:
                stored = self.ask("set", key.name, value, noreply=False)
                found = self.ask("get", key.name)
                if stored is True and found == value:
                    self.ask("version")  # of all nodes
                    break
                if self.exact or found not in (None, value):
                    raise Wrong(f"get {key.name}: {found!r} after {stored}")
            except Failed:
                if self.is_cluster:
                    sleep(NODE_RETRY_SECONDS)
        else:
            raise Wrong(f"the client does not recover: {self.errors - before}")
        if self.exact:
            for step in (self.fetch_many, self.swap, *(self.steps[-2:] if self.plain else ())):
                step()
