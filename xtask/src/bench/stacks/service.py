# A service without a network: takes requests apart, keeps sessions and a cache, gives answers.
import collections
import json
import random
import sys

sys.stdin.readline()
random.seed(11)
sessions = {}
cache = collections.OrderedDict()
done = 0
for number in range(45_000):
    user = random.randrange(4_000)
    request = json.dumps(
        {"user": user, "items": [{"sku": f"sku-{random.randrange(9_000)}", "n": i} for i in range(9)]}
    )
    asked = json.loads(request)
    session = sessions.setdefault(asked["user"], {"seen": collections.deque(maxlen=40), "sum": 0})
    for item in asked["items"]:
        session["seen"].append(item["sku"])
        session["sum"] += item["n"]
    body = " ".join(session["seen"]).encode() * 8
    cache[user] = body
    cache.move_to_end(user)
    if len(cache) > 2_000:
        cache.popitem(last=False)
    done += len(body.upper())
assert done > 0
