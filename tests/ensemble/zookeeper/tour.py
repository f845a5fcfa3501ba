"""What an application does with kazoo, against the hosts of the first argument: the part of the second one, or all but failover."""

import sys
import threading
import time
import traceback

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)

HOSTS = sys.argv[1]
PATIENCE = 30


def client(timeout=10.0, **more):
    zk = KazooClient(hosts=HOSTS, timeout=timeout, **more)
    zk.start(PATIENCE)
    return zk


def raises(error, call, *args, **more):
    try:
        call(*args, **more)
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


def eventually(what, holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def basics():
    zk = client()
    assert zk.create("/b", b"x") == "/b"
    value, stat = zk.get("/b")
    assert (value, stat.version, stat.czxid, stat.numChildren) == (b"x", 0, stat.pzxid, 0)
    assert zk.exists("/none") is None
    raises(NodeExistsError, zk.create, "/b")
    assert zk.set("/b", b"yy", version=0).version == 1
    raises(BadVersionError, zk.set, "/b", b"z", version=0)
    raises(NoNodeError, zk.get, "/none")
    raises(NoNodeError, zk.create, "/none/a")
    assert zk.create("/b/s-", sequence=True) == "/b/s-0000000000"
    path, stat = zk.create("/b/s-", ephemeral=True, sequence=True, include_data=True)
    assert (path, stat.ephemeralOwner) == ("/b/s-0000000001", zk.client_id[0])
    raises(NoChildrenForEphemeralsError, zk.create, path + "/a")
    children, stat = zk.get_children("/b", include_data=True)
    assert (sorted(children), stat.numChildren) == (["s-0000000000", "s-0000000001"], 2)
    raises(NotEmptyError, zk.delete, "/b")
    assert zk.sync("/b") == "/b"
    zk.ensure_path("/b/c/d/e")
    chrooted = KazooClient(hosts=HOSTS + "/b/c")
    chrooted.start(PATIENCE)
    assert chrooted.get_children("/") == ["d"]
    chrooted.stop()
    created = [zk.create_async(f"/b/c/{n:05}") for n in range(2500)]
    assert [a.get(PATIENCE) for a in created][-1] == "/b/c/02499"
    assert len(zk.get_children("/b/c")) == 2501
    zk.delete("/b", recursive=True)
    assert zk.exists("/b") is None
    zk.stop()


def transactions():
    zk = client()
    t = zk.transaction()
    t.create("/t", b"1")
    t.check("/t", 0)
    t.set_data("/t", b"2")
    t.create("/t/q-", sequence=True)
    made, checked, stat, queued = t.commit()
    assert (made, checked, stat.version, queued) == ("/t", True, 1, "/t/q-0000000000")
    t = zk.transaction()
    t.delete("/t/q-0000000000")
    t.check("/t", 7)
    t.delete("/t")
    assert [type(r) for r in t.commit()] == [RolledBackError, BadVersionError, RuntimeInconsistency]
    assert zk.exists("/t/q-0000000000") is not None
    zk.delete("/t", recursive=True)
    zk.stop()


def words():
    zk = client()
    assert zk.command(b"ruok") == "imok"
    assert zk.command(b"isro") == "rw"
    assert zk.server_version() >= (3, 9)
    zk.stop()


def sessions():
    zk = client(timeout=3.0)
    zk.create("/s", ephemeral=True)
    # Longer than the time-out: pings keep it.
    time.sleep(4)
    assert zk.connected
    other = client()
    assert other.exists("/s").ephemeralOwner == zk.client_id[0]
    # The session goes to another connection, of any server.
    states = []
    zk.add_listener(states.append)
    session = zk.client_id
    zk._connection._socket.shutdown(2)
    eventually("it is connected again", lambda: states == [KazooState.SUSPENDED, KazooState.CONNECTED])
    assert zk.client_id[0] == session[0] and other.exists("/s")
    zk.stop()
    eventually("a session that is closed leaves no ephemeral", lambda: other.exists("/s") is None)
    other.stop()


def failover():
    """A server is killed each time that this says so; a line comes when it is gone."""
    zk = client(timeout=15.0)
    states = []
    zk.add_listener(states.append)
    zk.create("/f", b"")
    zk.create("/f/e", ephemeral=True)
    session = zk.client_id[0]
    for kind in ("own", "leader"):
        port = zk._connection._socket.getpeername()[1]
        print("kill", kind, port, flush=True)
        sys.stdin.readline()
        for n in range(50):
            zk.retry(zk.create, f"/f/{kind}-{n:02}")
        assert zk.exists("/f/e").ephemeralOwner == session, "it is the same session"
    assert KazooState.LOST not in states
    assert len(zk.get_children("/f")) == 101
    zk.stop()


PARTS = [basics, transactions, words, sessions]

for part in [globals()[sys.argv[2]]] if len(sys.argv) > 2 else PARTS:
    try:
        part()
    except Exception:
        traceback.print_exc()
        sys.exit(f"{part.__name__} failed")
    print("done", part.__name__, flush=True)
