"""What an application does with kazoo, against the hosts of the first argument: the part of the second one, or all but failover, lost and secure."""

import socket
import struct
import sys
import threading
import time
import traceback

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError,
    InvalidACLError,
    LockTimeout,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.recipe.cache import TreeCache
from kazoo.security import make_acl, make_digest_acl

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


def watches():
    zk, other = client(), client()
    events = []

    def saw(event):
        events.append((event.type, event.path))

    assert zk.exists("/w", watch=saw) is None
    other.create("/w", b"1")
    eventually("it is told of the creation", lambda: events == [("CREATED", "/w")])
    zk.get("/w", watch=saw)
    other.set("/w", b"2")
    eventually("it is told of the value", lambda: events[1:] == [("CHANGED", "/w")])
    zk.get_children("/w", watch=saw)
    other.create("/w/a")
    eventually("it is told of the child", lambda: events[2:] == [("CHILD", "/w")])
    values, lists = [], []
    zk.DataWatch("/w", lambda value, stat: values.append(value))
    zk.ChildrenWatch("/w", lambda children: lists.append(sorted(children)))
    for n in range(20):
        other.set("/w", b"%d" % n)
        if n == 10:
            # kazoo watches again when it is connected again.
            zk._connection._socket.shutdown(2)
    other.create("/w/b")
    eventually("the last value comes", lambda: values[-1] == b"19")
    eventually("the last children come", lambda: lists[-1] == ["a", "b"])
    other.delete("/w", recursive=True)
    eventually("it is gone", lambda: values[-1] is None)
    zk.stop()
    other.stop()


def side_by_side(count, work):
    """Runs work(zk, n) with a client each, all at once."""
    faults = []

    def run(n):
        zk = client()
        try:
            work(zk, n)
        except BaseException:
            faults.append(traceback.format_exc())
        finally:
            zk.stop()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 2)
        assert not thread.is_alive(), "it hangs"
    assert not faults, faults[0]


def locks():
    holders, most = [], []

    def hold(n, limit):
        holders.append(n)
        most.append(len(holders))
        time.sleep(0.01)
        holders.remove(n)
        assert max(most) <= limit, f"{max(most)} holders"

    def lock(zk, n):
        for _ in range(5):
            with zk.Lock("/lock", str(n)):
                hold(n, 1)

    side_by_side(4, lock)

    def semaphore(zk, n):
        for _ in range(3):
            with zk.Semaphore("/semaphore", max_leases=2):
                hold(n, 2)

    side_by_side(4, semaphore)

    def read_lock(zk, n):
        with zk.ReadLock("/readers"):
            hold(n, 3)
        with zk.WriteLock("/readers"):
            most.clear()
            hold(n, 1)

    side_by_side(3, read_lock)
    # The session of a holder ends, and the next one has the lock.
    zk, other = client(), client()
    held = zk.Lock("/lock", "first")
    assert held.acquire(timeout=PATIENCE)
    waits = other.Lock("/lock", "second")
    raises(LockTimeout, waits.acquire, timeout=0.5)
    zk.stop()
    assert waits.acquire(timeout=PATIENCE)
    other.stop()


def election():
    led = []

    def run(zk, n):
        zk.Election("/election", str(n)).run(lambda: (led.append(n), time.sleep(0.05)))

    side_by_side(4, run)
    assert sorted(led) == [0, 1, 2, 3]


def barriers():
    zk = client()
    barrier = zk.Barrier("/barrier")
    barrier.create()
    assert not barrier.wait(timeout=0.3)
    threading.Timer(0.3, barrier.remove).start()
    assert barrier.wait(timeout=PATIENCE)
    zk.stop()
    inside = []

    def both(zk, n):
        double = zk.DoubleBarrier("/double", 3)
        double.enter()
        inside.append(n)
        eventually("all are inside", lambda: len(inside) == 3)
        double.leave()

    side_by_side(3, both)


def queues():
    zk = client()
    queue = zk.Queue("/queue")
    for n in range(20):
        queue.put(b"%02d" % n, priority=100 - n)
    got = []

    def take(zk, n):
        queue = zk.Queue("/queue")
        while (entry := queue.get()) is not None:
            got.append(entry)

    side_by_side(3, take)
    assert sorted(got) == [b"%02d" % n for n in range(20)], "each entry once"
    locking = zk.LockingQueue("/locking")
    locking.put_all([b"a", b"b"])
    assert locking.get(timeout=PATIENCE) == b"a"
    assert locking.holds_lock() and locking.consume()
    assert locking.get(timeout=PATIENCE) == b"b" and locking.consume()
    assert locking.get(timeout=0.2) is None
    zk.stop()


def counters():
    def count(zk, n):
        counter = zk.Counter("/counter")
        for _ in range(10):
            counter += 1

    side_by_side(3, count)
    zk = client()
    assert zk.Counter("/counter").value == 30
    zk.stop()


def parties():
    zk, other = client(), client()
    party = zk.Party("/party", "one")
    party.join()
    other.Party("/party", "two").join()
    # Another server, which may be behind for a moment, as one of ZooKeeper.
    eventually("both have joined", lambda: len(party) == 2)
    other.stop()
    eventually("the other has left", lambda: len(party) == 1 and list(party) == ["one"])
    zk.stop()


def caches():
    zk, other = client(), client()
    other.create("/tree/a/b", b"1", makepath=True)
    cache = TreeCache(zk, "/tree")
    cache.start()
    eventually("the cache is filled", lambda: (cache.get_data("/tree/a/b") or [None])[0] is not None)
    other.set("/tree/a/b", b"2")
    other.create("/tree/a/c")
    eventually("the cache follows", lambda: cache.get_data("/tree/a/b").data == b"2")
    eventually("the cache has the child", lambda: cache.get_children("/tree/a") == {"b", "c"})
    other.delete("/tree/a", recursive=True)
    eventually("the cache is empty", lambda: cache.get_children("/tree") == set())
    cache.close()
    zk.stop()
    other.stop()


def access():
    owner, other = client(), client()
    owner.add_auth("digest", "ann:secret")
    everything = [make_digest_acl("ann", "secret", all=True)]
    owner.create("/acl", b"mine", acl=everything)
    # The two may be at different servers.
    other.sync("/acl")
    assert owner.get_acls("/acl")[0] == everything
    for call, args in [(other.get, ()), (other.set, (b"",)), (other.get_acls, ())]:
        raises(NoAuthError, call, "/acl", *args)
    raises(NoAuthError, other.create, "/acl/a")
    owner.set_acls("/acl", [*everything, make_acl("world", "anyone", read=True)])
    other.sync("/acl")
    assert other.get("/acl")[0] == b"mine"
    assert [acl.id.id for acl in other.get_acls("/acl")[0]] == ["ann:x", "anyone"]
    owner.set_acls("/acl", [make_acl("auth", "", all=True)])
    assert owner.get_acls("/acl")[0] == everything
    raises(InvalidACLError, other.create, "/none", acl=[make_acl("auth", "", all=True)])
    owner.set_acls("/acl", [make_acl("ip", "127.0.0.0/8", all=True)])
    other.sync("/acl")
    assert other.set("/acl", b"ours").version == 1
    other.set_acls("/acl", [make_acl("ip", "10.0.0.0/8", all=True)])
    owner.sync("/acl")
    raises(NoAuthError, owner.get, "/acl")
    # kazoo proves its identities again when it is connected again.
    owner.create("/acl2", b"", acl=everything)
    states = []
    owner.add_listener(states.append)
    owner._connection._socket.shutdown(2)
    eventually("it is connected again", lambda: KazooState.CONNECTED in states)
    owner.retry(owner.set, "/acl2", b"again")
    other.sync("/acl2")
    raises(NoAuthError, other.get, "/acl2")
    wrong = client(auth_data=[("digest", "ann:wrong")])
    wrong.sync("/acl2")
    raises(NoAuthError, wrong.get, "/acl2")
    wrong.stop()
    owner.stop()
    other.stop()


def close_elsewhere(session, password):
    """Takes a session up and closes it, in one go, so that its client cannot take it back in between."""
    host, port = HOSTS.split(",")[0].split(":")
    hello = struct.pack(">iqiqi16s?", 0, 0, 15000, session, 16, password, False)
    close = struct.pack(">ii", 1, -11)
    with socket.create_connection((host, int(port)), PATIENCE) as stream:
        stream.sendall(b"".join(struct.pack(">i", len(frame)) + frame for frame in (hello, close)))
        while stream.recv(4096):
            pass


def lost():
    """The leader is killed while the session is closed from elsewhere; a line comes when it is gone."""
    zk = client(timeout=15.0)
    states = []
    zk.add_listener(states.append)
    zk.create("/lost", ephemeral=True)
    session, port = zk.client_id, zk._connection._socket.getpeername()[1]
    print("kill", "leader", port, flush=True)
    end = time.monotonic() + PATIENCE
    while KazooState.LOST not in states:
        assert time.monotonic() < end, "the session is lost"
        try:
            close_elsewhere(*session)
        except OSError:
            # Its server is the one that is killed.
            pass
        time.sleep(0.2)
    sys.stdin.readline()
    eventually("another one is open", lambda: zk.connected and zk.client_id[0] != session[0])
    eventually("its ephemeral is gone", lambda: zk.retry(zk.exists, "/lost") is None)
    zk.retry(zk.create, "/lost", ephemeral=True)
    assert zk.exists("/lost").ephemeralOwner == zk.client_id[0]
    zk.stop()


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


def secure():
    """With the authority, the certificate and the key of three more arguments; the servers require certificates."""
    ca, certificate, key = sys.argv[3:6]
    tls = {"use_ssl": True, "ca": ca, "verify_certs": True, "check_hostname": True}
    zk = client(certfile=certificate, keyfile=key, **tls)
    # The identity is the subject of the certificate.
    zk.create("/tls", b"x", acl=[make_acl("auth", "", all=True)])
    (acl,), _ = zk.get_acls("/tls")
    assert acl.id.scheme == "x509" and acl.id.id.startswith("CN="), acl
    assert zk.get("/tls")[0] == b"x"
    # A session comes back over TLS, too.
    states, session = [], zk.client_id
    zk.add_listener(states.append)
    zk._connection._socket.shutdown(2)
    eventually("it is connected again", lambda: states == [KazooState.SUSPENDED, KazooState.CONNECTED])
    assert zk.client_id[0] == session[0] and zk.set("/tls", b"y").version == 1
    zk.delete("/tls")
    zk.stop()
    for without in ({}, tls):
        refused = KazooClient(hosts=HOSTS, timeout=5.0, **without)
        raises(KazooTimeoutError, refused.start, 3)
        refused.stop()


PARTS = [
    basics,
    transactions,
    words,
    sessions,
    watches,
    locks,
    election,
    barriers,
    queues,
    counters,
    parties,
    caches,
    access,
]

for part in [globals()[sys.argv[2]]] if len(sys.argv) > 2 else PARTS:
    try:
        part()
    except Exception:
        traceback.print_exc()
        sys.exit(f"{part.__name__} failed")
    print("done", part.__name__, flush=True)
