"""As leaky.c, in Python. Each kind of memory is an object of a type of its own, so that also the
interpreter's own functions tell them apart."""

import sys
import time

TICKS, REST_TICKS, WARM_TICKS = 400, 1000, 60
LEAKED, CACHED, CACHED_A_TICK, REQUEST = 120_000, 100_000, 10, 2 << 20

ledger = []
cache = []


def leak(count):
    ledger.append(b"xy" * (count // 2))


def warm_cache():
    for _ in range(CACHED_A_TICK):
        cache.append("xy" * (CACHED // 2))


def serve_request():
    bytearray(b"xy") * (REQUEST // 2)


sys.stdin.readline()
for tick in range(TICKS + REST_TICKS):
    serve_request()
    if tick < WARM_TICKS:
        warm_cache()
    if tick < TICKS:
        leak(LEAKED)
    if tick == TICKS:
        cached = WARM_TICKS * CACHED_A_TICK * CACHED
        print(f'{{"leaked": {TICKS * LEAKED}, "cached": {cached}, "touched": {TICKS * REQUEST}}}', flush=True)
    time.sleep(0.02)
