"""The commands that are about the server rather than its items: flush_all, lru, slabs, stats, ...

Each is a function of the `Service` and the words of the line that returns the whole reply; whether
it is sent (noreply) is the session's business.  What has no counterpart here (slab pages, LRU
segments, log levels) is checked and answered as memcached does, and otherwise without effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import reports
from .integers import real, unsigned32
from .service import Service
from .store import MEBIBYTE

_ERROR = b"ERROR\r\n"
_OK = b"OK\r\n"
_BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"
_BAD_CLASS = b"BADCLASS invalid class id\r\n"
_CLASSES = 64  # slab class numbers are below this


@dataclass(frozen=True)
class Command:
    """A command: what answers it, and how many words its line may have."""

    answer: Callable[[Service, list[bytes]], bytes]
    least: int = 1
    most: int | None = None
    #: whether a last word "noreply" silences it
    noreply: bool = False


def _version(service: Service, words: list[bytes]) -> bytes:
    return b"VERSION %b\r\n" % service.version.encode()


def _meta_noop(service: Service, words: list[bytes]) -> bytes:
    return b"MN\r\n"


def _verbosity(service: Service, words: list[bytes]) -> bytes:
    level = service.dialect.unsigned32(words[1])
    if level is None:
        return _BAD_FORMAT
    service.verbosity = min(level, 2)
    return _OK


def _flush_all(service: Service, words: list[bytes]) -> bytes:
    given = len(words) > (2 if words[-1] == b"noreply" else 1)
    exptime = service.dialect.signed32(words[1]) if given else 0
    if exptime is None:
        return b"CLIENT_ERROR invalid exptime argument\r\n"
    service.cache.flush(exptime)
    return _OK


def _cache_memlimit(service: Service, words: list[bytes]) -> bytes:
    megabytes = service.dialect.unsigned32(words[1])
    if megabytes is None:
        return _ERROR
    if megabytes < 8:
        return b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
    if megabytes > 1_000_000_000:
        return b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
    service.cache.limit_memory(megabytes * MEBIBYTE)
    return _OK


def _config(service: Service, words: list[bytes]) -> bytes:
    config = service.cluster_config
    if config is None or words[1:] != [b"get", b"cluster"]:
        return _ERROR
    return b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(config), config)


def _watch(service: Service, words: list[bytes]) -> bytes:
    return b"CLIENT_ERROR watch commands not allowed\r\n"


def _slabs(service: Service, words: list[bytes]) -> bytes:
    what = words[1] if len(words) > 1 else b""
    if what == b"reassign" and len(words) == 4:
        source, target = service.dialect.signed32(words[2]), service.dialect.signed32(words[3])
        if source is None or target is None:
            return _BAD_FORMAT
        if source == target:
            return b"SAME src and dst class are identical\r\n"
        last = _CLASSES if service.dialect.any_class else len(service.cache.slabs)
        if not -1 <= source <= last or not 0 <= target <= last:
            return b"BADCLASS invalid src or dst class id\r\n"
        return b"NOSPARE source class has no spare pages\r\n"
    if what != b"automove" or len(words) < 3:
        return _ERROR
    if words[2] == b"ratio":
        return _ERROR if len(words) < 4 or real(words[3]) is None else _OK
    level = service.dialect.unsigned32(words[2])
    if level is None:
        return _BAD_FORMAT
    if level > 2:
        return _ERROR
    service.slab_automove = level
    return _OK


def _lru(service: Service, words: list[bytes]) -> bytes:
    what = words[1]
    if what == b"tune" and len(words) >= 6:
        hot, warm = service.dialect.unsigned32(words[2]), service.dialect.unsigned32(words[3])
        hot_factor, warm_factor = real(words[4]), real(words[5])
        if hot is None or warm is None or hot_factor is None or warm_factor is None:
            return _ERROR
        if hot + warm > 80:
            return b"ERROR hot and warm pcts must not exceed 80\r\n"
        if hot_factor <= 0 or warm_factor <= 0:
            return b"ERROR hot/warm age factors must be greater than 0\r\n"
        return _OK
    if what == b"mode" and len(words) >= 3:
        return _OK if words[2] in (b"flat", b"segmented") else _ERROR
    if what == b"temp_ttl" and len(words) >= 3:
        return _ERROR if service.dialect.signed32(words[2]) is None else _OK
    return _ERROR


def _lru_crawler(service: Service, words: list[bytes]) -> bytes:
    what = words[1] if len(words) > 1 else b""
    if len(words) == 2:
        if what == b"enable" and not service.crawler_enabled:
            service.crawler_enabled = True
        elif what == b"enable":
            return b"ERROR failed to start lru crawler thread\r\n"
        elif what == b"disable":
            service.crawler_enabled = False
        else:
            return _ERROR
        return _OK
    if len(words) != 3:
        return _ERROR
    if what in (b"tocrawl", b"sleep"):
        number = service.dialect.unsigned32(words[2])
        if number is None:
            return _BAD_FORMAT
        if what == b"sleep" and number > 1_000_000:
            return b"CLIENT_ERROR sleep must be one second or less\r\n"
        return _OK
    mgdump = service.new_dumps or service.dialect.mgdump
    if what not in (b"crawl", b"metadump") and not (what == b"mgdump" and mgdump):
        return _ERROR
    if not service.crawler_enabled:
        return b"CLIENT_ERROR lru crawler disabled\r\n"
    if what == b"crawl" and words[2] == b"hash":
        return b"ERROR an unknown error happened\r\n"
    classes = _slab_classes(words[2])
    if classes is None:
        return _BAD_CLASS
    if not classes:
        return b"NOTSTARTED no items to crawl\r\n"
    if what == b"crawl":
        return _OK
    return reports.dump(service, classes, meta=what == b"metadump")


def _slab_classes(text: bytes) -> set[int] | None:
    """The classes that `text` lists, None where it is no list of classes."""
    if text in (b"all", b"hash"):
        return set(range(_CLASSES))
    numbers = [unsigned32(word) for word in text.split(b",") if word]
    classes = {number for number in numbers if number is not None}
    if None in numbers or not all(0 < id < _CLASSES for id in classes):
        return None
    return classes


def _stats(service: Service, words: list[bytes]) -> bytes:
    cache = service.cache
    if len(words) == 1:
        return reports.general(service)
    what = words[1]
    if what == b"reset":
        service.reset_counters()
        return b"RESET\r\n"
    if what == b"detail":
        return _stats_detail(service, words[2] if len(words) > 2 else b"")
    if what == b"cachedump":
        if len(words) < 4:
            return b"CLIENT_ERROR bad command line\r\n"
        slab, limit = service.dialect.unsigned32(words[2]), service.dialect.unsigned32(words[3])
        if slab is None or limit is None:
            return _BAD_FORMAT
        if slab >= _CLASSES:
            return b"CLIENT_ERROR Illegal slab id\r\n"
        return reports.cachedump(cache, slab, limit)
    if what in (b"sizes_enable", b"sizes_disable") and service.dialect.sizes_switches:
        if what == b"sizes_enable":
            cache.start_sizes()
        else:
            cache.sizes_from = None
        return reports.sizes_status(cache)
    report = _REPORTS.get(what)
    return _ERROR if report is None else report(service)


_REPORTS: dict[bytes, Callable[[Service], bytes]] = {
    b"conns": reports.connections,
    b"extstore": lambda service: b"END\r\n",
    b"items": lambda service: reports.items(service.cache),
    b"settings": reports.settings,
    b"sizes": lambda service: reports.sizes(service.cache),
    b"slabs": lambda service: reports.slabs(service.cache),
}


def _stats_detail(service: Service, what: bytes) -> bytes:
    if what == b"dump":
        return reports.prefixes(service.cache)
    if what not in (b"on", b"off"):
        return b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"
    service.cache.detail = what == b"on"
    return _OK


ADMINISTRATION: dict[bytes, Command] = {
    b"cache_memlimit": Command(_cache_memlimit, 2, 3, noreply=True),
    b"config": Command(_config),
    b"flush_all": Command(_flush_all, 1, 3, noreply=True),
    b"lru": Command(_lru, 2, noreply=True),
    b"lru_crawler": Command(_lru_crawler),
    b"mn": Command(_meta_noop),
    b"slabs": Command(_slabs),
    b"stats": Command(_stats),
    b"verbosity": Command(_verbosity, 2, 3, noreply=True),
    b"version": Command(_version),
    b"watch": Command(_watch),
}
