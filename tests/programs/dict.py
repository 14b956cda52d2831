"""A Python service that remembers the result of each request in a dict that nobody empties.

dict.py CALM_S BYTES_PER_S
"""

import os
import sys
import time

RESULT = 4096
calm, rate = map(float, sys.argv[1:])
results = {}


def serve(request):
    """Some work whose memory is given back."""
    return len([os.urandom(64) for _ in range(20)]) + request


requests = 0
begin = time.monotonic()
while time.monotonic() - begin < calm:
    serve(requests)
    time.sleep(0.01)
print("leaks", flush=True)
begin = time.monotonic()
while True:
    while requests * RESULT < rate * (time.monotonic() - begin):
        serve(requests)
        results[f"user-{requests}"] = os.urandom(RESULT)
        requests += 1
    time.sleep(0.01)
