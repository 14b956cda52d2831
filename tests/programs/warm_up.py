"""A Python service that loads what it is asked for until all of it is loaded, then serves from memory.

What is not loaded yet is asked for ever more rarely: memory nears a plateau.

warm_up.py BYTES TIME_CONSTANT_S
"""

import math
import os
import sys
import time

ENTRY = 65536
most, constant = float(sys.argv[1]), float(sys.argv[2])
loaded = []
print("loads", flush=True)
begin = time.monotonic()
while True:
    wanted = most * -math.expm1(-(time.monotonic() - begin) / constant)
    while (len(loaded) + 1) * ENTRY <= wanted:
        loaded.append(os.urandom(ENTRY))
    # Entries are renewed, as a cache of changing data does.
    if loaded:
        loaded[int.from_bytes(os.urandom(4), "little") % len(loaded)] = os.urandom(ENTRY)
    time.sleep(0.02)
