# An in-memory database: insert, index, look up, update, delete.
import random
import sqlite3

random.seed(7)
db = sqlite3.connect(":memory:")
db.execute("create table item (id integer primary key, kind integer, name text, body blob)")
body = bytes(random.randrange(256) for _ in range(900))
rows = 180_000
db.executemany(
    "insert into item values (?, ?, ?, ?)",
    ((i, i % 97, f"item {i * 7919 % rows}", body) for i in range(rows)),
)
db.execute("create index by_name on item (name)")
for _ in range(60_000):
    key = f"item {random.randrange(rows)}"
    db.execute("select kind, length(body) from item where name = ?", (key,)).fetchone()
db.execute("update item set body = body || body where kind < 20")
db.execute("delete from item where kind >= 60")
assert db.execute("select count(*) from item where kind < 20").fetchone()[0] > rows // 5
db.close()
