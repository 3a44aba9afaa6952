"""What ``stats`` and its sub-commands, ``lru_crawler metadump`` and ``stats cachedump`` answer.

Names and order are those of the version that is played.  A name for something that this server
does not have (worker threads, slab pages, LRU segments) is there with the value that memcached
would give where nothing of it has happened.  Nothing in here may change the cache or its counters.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

if TYPE_CHECKING:
    from .service import Service
    from .store import Cache

_DUMP_LIMIT = 2 << 20  # bytes of one cachedump
_PAGE_SIZE = 1 << 20

_Stats = Iterable[tuple[str, object]]


def _stat_lines(stats: _Stats) -> bytes:
    lines = [f"STAT {name} {value}\r\n" for name, value in stats]
    return "".join([*lines, "END\r\n"]).encode("utf-8", "surrogateescape")


def _zeros(names: str) -> list[tuple[str, object]]:
    return [(name, 0) for name in names.split()]


def general(service: Service) -> bytes:
    """``stats``."""
    cache = service.cache
    slabs = cache.slabs
    times = os.times()
    get_hits = sum(slab.get_hits for slab in slabs)
    connections = len(service.connections)
    dialect = service.dialect
    mover = dialect.slab_mover
    stats: list[tuple[str, object]] = [
        ("pid", os.getpid()),
        ("uptime", int(time.monotonic() - service.started_at)),
        ("time", int(cache.clock())),
        ("version", service.version),
        ("libevent", "none"),
        ("pointer_size", 64),
        ("rusage_user", f"{times.user:.6f}"),
        ("rusage_system", f"{times.system:.6f}"),
        ("max_connections", service.max_connections or 0),
        ("curr_connections", connections),
        ("total_connections", service.total_connections),
        ("rejected_connections", service.rejected_connections),
        ("connection_structures", connections),
        *_zeros("response_obj_oom response_obj_count response_obj_bytes read_buf_count"),
        *_zeros("read_buf_bytes read_buf_bytes_free read_buf_oom reserved_fds"),
        ("cmd_get", cache.cmd_get),
        ("cmd_set", sum(slab.cmd_set for slab in slabs)),
        ("cmd_flush", cache.cmd_flush),
        ("cmd_touch", cache.cmd_touch),
        ("cmd_meta", 0),
        ("get_hits", get_hits),
        ("get_misses", cache.get_misses),
        ("get_expired", cache.get_expired),
        ("get_flushed", 0),
        ("delete_misses", cache.delete_misses),
        ("delete_hits", sum(slab.delete_hits for slab in slabs)),
        ("incr_misses", cache.incr_misses),
        ("incr_hits", sum(slab.incr_hits for slab in slabs)),
        ("decr_misses", cache.decr_misses),
        ("decr_hits", sum(slab.decr_hits for slab in slabs)),
        ("cas_misses", cache.cas_misses),
        ("cas_hits", sum(slab.cas_hits for slab in slabs)),
        ("cas_badval", sum(slab.cas_badval for slab in slabs)),
        ("touch_hits", sum(slab.touch_hits for slab in slabs)),
        ("touch_misses", cache.touch_misses),
    ]
    if dialect.refused_stores:
        stats.append(("store_too_large", cache.store_too_large))
        stats.append(("store_no_memory", cache.store_no_memory))
    stats.append(("auth_cmds", service.auth_cmds))
    stats.append(("auth_errors", service.auth_errors))
    if service.idle_timeout:
        stats.append(("idle_kicks", service.idle_kicks))
    stats += [
        ("bytes_read", service.bytes_read),
        ("bytes_written", service.bytes_written),
        ("limit_maxbytes", cache.memory_limit),
        ("accepting_conns", int(not service.faults.refusing)),
        ("listen_disabled_num", 0),
        ("time_in_listen_disabled_us", 0),
        ("threads", 1),
        *_zeros("conn_yields hash_power_level hash_bytes hash_is_expanding slab_reassign_rescues"),
        *_zeros("slab_reassign_chunk_rescues"),
        *_zeros("" if mover else "slab_reassign_evictions_nomem"),
        *_zeros("slab_reassign_inline_reclaim slab_reassign_busy_items slab_reassign_busy_deletes"),
        *_zeros("slab_reassign_busy_nomem" if mover else ""),
        *_zeros("slab_reassign_last_busy_status" if dialect.strict else ""),
        *_zeros("slab_reassign_running slabs_moved"),
        *_zeros("lru_crawler_running lru_crawler_starts lru_maintainer_juggles malloc_fails"),
        *_zeros("log_worker_dropped log_worker_written log_watcher_skipped log_watcher_sent"),
        *_zeros("log_watchers" if dialect.refused_stores else ""),
        *_zeros("unexpected_napi_ids round_robin_fallback"),
        ("bytes", cache.used),
        ("curr_items", len(cache)),
        ("total_items", cache.total_items),
        ("slab_global_page_pool", 0),
        ("expired_unfetched", sum(slab.expired_unfetched for slab in slabs)),
        ("evicted_unfetched", sum(slab.evicted_unfetched for slab in slabs)),
        ("evicted_active", 0),
        ("evictions", sum(slab.evicted for slab in slabs)),
        ("reclaimed", sum(slab.reclaimed for slab in slabs)),
        *_zeros("crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold"),
        *_zeros("moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped"),
    ]
    return _stat_lines(stats)


def settings(service: Service) -> bytes:
    """``stats settings``."""
    cache = service.cache
    interface, port, path = "NULL", "0", "NULL"
    kind, _, address = service.listening_on.partition(":")
    if kind == "unix":
        path = address
    else:
        interface, _, port = address.rpartition(":")
    dialect = service.dialect
    return _stat_lines(
        [
            ("maxbytes", cache.memory_limit),
            ("maxconns", service.max_connections or 0),
            ("tcpport", port),
            ("udpport", 0),
            ("inter", interface),
            ("verbosity", service.verbosity),
            ("oldest", 0),
            ("evictions", "on" if cache.evictions else "off"),
            ("domain_socket", path),
            ("umask", 700),
            *(
                [("shutdown_command", _yes(service.shutdown_enabled))]
                if dialect.shutdown_setting
                else []
            ),
            ("growth_factor", "1.25"),
            ("chunk_size", 48),
            ("num_threads", 1),
            ("num_threads_per_udp", 0),
            ("stat_key_prefix", ":"),
            ("detail_enabled", _yes(cache.detail)),
            ("reqs_per_event", 20),
            ("cas_enabled", "yes"),
            ("tcp_backlog", 1024),
            ("binding_protocol", "ascii"),
            ("auth_enabled_sasl", "no"),
            ("auth_enabled_ascii", _yes(service.users is not None)),
            ("item_size_max", cache.max_item_size),
            ("maxconns_fast", "yes"),
            ("hashpower_init", 0),
            ("slab_reassign", "yes"),
            ("slab_automove", service.slab_automove),
            ("slab_automove_ratio", "0.80"),
            ("slab_automove_window", 30),
            ("slab_chunk_max", cache.slabs[-1].chunk_size),
            ("lru_crawler", _yes(service.crawler_enabled)),
            ("lru_crawler_sleep", 100),
            ("lru_crawler_tocrawl", 0),
            ("tail_repair_time", 0),
            ("flush_enabled", "yes"),
            ("dump_enabled", "yes"),
            ("hash_algorithm", "murmur3"),
            ("lru_maintainer_thread", "no"),
            ("lru_segmented", "no"),
            ("hot_lru_pct", 20),
            ("warm_lru_pct", 40),
            ("hot_max_factor", "0.20"),
            ("warm_max_factor", "2.00"),
            ("temp_lru", "no"),
            ("temporary_ttl", 61),
            ("idle_timeout", int(service.idle_timeout)),
            ("watcher_logbuf_size", 262144),
            ("worker_logbuf_size", 65536),
            ("read_buf_mem_limit", 0),
            ("track_sizes", _yes(cache.sizes_from is not None)),
            ("inline_ascii_response", "no"),
            ("ssl_enabled", "no"),
            ("memory_file", "(null)"),
            *([("client_flags_size", 4)] if dialect.flags_size_setting else []),
        ]
    )


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def items(cache: Cache) -> bytes:
    """``stats items``."""
    now = cache.clock()
    ages = {item.slab.id: int(now - item.used_at) for item in cache}  # the last one is the oldest
    stats: list[tuple[str, object]] = []
    for slab in cache.slabs:
        if not slab.items:
            continue
        stats += [
            (f"items:{slab.id}:{name}", value)
            for name, value in [
                ("number", slab.items),
                ("number_hot", 0),
                ("number_warm", 0),
                ("number_cold", slab.items),
                ("age_hot", 0),
                ("age_warm", 0),
                ("age", ages.get(slab.id, 0)),
                ("mem_requested", slab.bytes),
                ("evicted", slab.evicted),
                ("evicted_nonzero", slab.evicted_nonzero),
                ("evicted_time", 0),
                ("outofmemory", slab.out_of_memory),
                ("tailrepairs", 0),
                ("reclaimed", slab.reclaimed),
                ("expired_unfetched", slab.expired_unfetched),
                ("evicted_unfetched", slab.evicted_unfetched),
                *_zeros("evicted_active crawler_reclaimed crawler_items_checked"),
                *_zeros("lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru"),
                *_zeros("direct_reclaims hits_to_hot hits_to_warm"),
                ("hits_to_cold", slab.get_hits),
                ("hits_to_temp", 0),
            ]
        ]
    return _stat_lines(stats)


def slabs(cache: Cache) -> bytes:
    """``stats slabs``: as many pages for each class as its items would need."""
    stats: list[tuple[str, object]] = []
    pages = 0
    active = [slab for slab in cache.slabs if slab.items]
    for slab in active:
        per_page = _PAGE_SIZE // slab.chunk_size
        needed = -(-slab.items // per_page)
        pages += needed
        stats += [
            (f"{slab.id}:{name}", value)
            for name, value in [
                ("chunk_size", slab.chunk_size),
                ("chunks_per_page", per_page),
                ("total_pages", needed),
                ("total_chunks", needed * per_page),
                ("used_chunks", slab.items),
                ("free_chunks", needed * per_page - slab.items),
                ("free_chunks_end", 0),
                ("get_hits", slab.get_hits),
                ("cmd_set", slab.cmd_set),
                ("delete_hits", slab.delete_hits),
                ("incr_hits", slab.incr_hits),
                ("decr_hits", slab.decr_hits),
                ("cas_hits", slab.cas_hits),
                ("cas_badval", slab.cas_badval),
                ("touch_hits", slab.touch_hits),
            ]
        ]
    return _stat_lines([*stats, ("active_slabs", len(active)), ("total_malloced", pages << 20)])


def sizes(cache: Cache) -> bytes:
    """``stats sizes``: how many items there are of each size, in steps of 32 bytes."""
    first = cache.sizes_from
    if first is None:
        return sizes_status(cache) + b"END\r\n"
    counts = Counter(-(-item.size // 32) * 32 for item in cache if item.cas >= first)
    return _stat_lines((str(size), count) for size, count in sorted(counts.items()))


def sizes_status(cache: Cache) -> bytes:
    """``stats sizes_enable`` and ``stats sizes_disable``: one line, and no END."""
    return b"STAT sizes_status %b\r\n" % (b"disabled" if cache.sizes_from is None else b"enabled")


def connections(service: Service) -> bytes:
    """``stats conns``; 0 is the listening socket."""
    now = time.monotonic()
    stats: list[tuple[str, object]] = [
        ("0:addr", service.listening_on),
        ("0:state", "conn_listening"),
        ("0:secs_since_last_cmd", int(now - service.started_at)),
    ]
    for number, peer in service.connections.items():
        stats += [
            (f"{number}:addr", peer.peer),
            (f"{number}:listen_addr", service.listening_on),
            (f"{number}:state", "conn_read"),
            (f"{number}:secs_since_last_cmd", int(now - peer.active_at)),
        ]
    return _stat_lines(stats)


def prefixes(cache: Cache) -> bytes:
    """``stats detail dump``."""
    lines = [
        b"PREFIX %b get %d hit %d set %d del %d\r\n" % (prefix, gets, hits, sets, deletes)
        for prefix, (gets, hits, sets, deletes) in cache.prefixes.items()
    ]
    return b"".join(lines) + b"END\r\n"


def cachedump(cache: Cache, slab: int, limit: int) -> bytes:
    """``stats cachedump``: the items of a class, at most `limit` where that is not 0."""
    reply = bytearray()
    count = 0
    for item in cache:
        if item.slab.id != slab:
            continue
        line = b"ITEM %b [%d b; %d s]\r\n" % (item.key, len(item.value), item.deadline)
        if (limit and count == limit) or len(reply) + len(line) > _DUMP_LIMIT:
            break
        reply += line
        count += 1
    return bytes(reply) + b"END\r\n"


def dump(service: Service, classes: set[int], *, meta: bool) -> bytes:
    """``lru_crawler metadump``, or ``mgdump`` where not `meta`."""
    dialect = service.dialect
    lines = [b"OK\r\n"] if dialect.ok_before_dumps else []
    for item in service.cache:
        if item.slab.id not in classes:
            continue
        if not meta:
            lines.append(b"mg %b\r\n" % item.key)
            continue
        line = (
            f"key={quote_from_bytes(item.key, safe='')} "
            f"exp={int(item.deadline) or -1} la={int(item.used_at)} cas={item.cas} "
            f"fetch={_yes(item.fetched)} cls={item.slab.id} size={item.size}"
            + (f" flags={item.flags}" if dialect.flags_in_dumps else "")
            + (" " if dialect.blank_in_dumps else "")
        )
        lines.append(line.encode("ascii") + (b"\r\n" if service.new_dumps else b"\n"))
    return b"".join(lines) + (b"END\r\n" if meta else b"EN\r\n")
