"""Benchmarks of memcached clients, side by side: ``python -m benchmarks``."""
