"""A tour of quorate.v1 with the stubs that grpcio-tools generates: a session with an ephemeral, a multi, a watch that resumes, and an
access list. It uses no code but the generated one, so it also shows what a client of any language has to do.

Usage: python tour.py PROTO_DIR HOST:PORT [HOST:PORT ...]        (pip install grpcio-tools)
"""

import importlib
import itertools
import pathlib
import queue
import sys
import tempfile

import grpc
from grpc_tools import protoc

FILES = ["access", "coordination", "error", "notice", "quota", "session", "watch", "znode"]


def generate(protos):
    """Generates the stubs into a fresh directory and imports them."""
    out = tempfile.mkdtemp(prefix="quorate-stubs-")
    files = [str(pathlib.Path(protos) / "quorate" / "v1" / f"{name}.proto") for name in FILES]
    options = [f"--proto_path={protos}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(["protoc", *options, *files]) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, out)
    stubs = {name: importlib.import_module(f"quorate.v1.{name}_pb2") for name in FILES}
    stubs["grpc"] = importlib.import_module("quorate.v1.coordination_pb2_grpc")
    return stubs


class Session:
    """One session over any of the nodes. A write keeps its number when it is sent again, so it is carried out once."""

    def __init__(self, stubs, nodes, credentials=()):
        self.stubs, self.nodes, self.credentials = stubs, itertools.cycle(nodes), list(credentials)
        self.session, self.number, self.xid = None, 0, 0
        self.connect()

    def connect(self):
        """Opens the session, or takes it up on the next node."""
        session = self.stubs["session"]
        self.out, self.items = queue.SimpleQueue(), []
        stub = self.stubs["grpc"].CoordinationStub(grpc.insecure_channel(next(self.nodes)))
        self.out.put(session.SessionRequest(open=session.OpenSession(
            resume=self.session, timeout_ms=10_000, credentials=self.credentials, client_name="tour")))
        self.stream = stub.Session(iter(self.out.get, None))
        opened = self.next("opened")
        self.session = opened.session
        return opened

    def disconnect(self):
        """Leaves without closing: the session lives on."""
        self.stream.cancel()
        self.out.put(None)

    def next(self, kind):
        """The next item of this kind. Items come in one order; those of other kinds before it are kept for later."""
        while True:
            for at, item in enumerate(self.items):
                if item.WhichOneof("item") == kind:
                    del self.items[at]
                    return getattr(item, kind)
            self.items.extend(next(self.stream).items)

    def ask(self, writes=False, **op):
        """Sends one request and waits for its result."""
        session = self.stubs["session"]
        self.xid += 1
        self.number += writes
        request = session.Request(xid=self.xid, write_number=self.number if writes else 0, **op)
        self.out.put(session.SessionRequest(requests=[request], acked_write=max(self.number - writes, 0)))
        response = self.next("response")
        assert response.xid == self.xid, response
        return response

    def write(self, **op):
        return self.ask(writes=True, **op)


def main(protos, nodes):
    stubs = generate(protos)
    session, znode, watch, access, error = (stubs[name] for name in ["session", "znode", "watch", "access", "error"])

    # A session, an ephemeral, and a watch with the state of the tree.
    one = Session(stubs, nodes)
    assert one.write(create=znode.CreateRequest(path="/tour", data=b"")).WhichOneof("result") == "create"
    tree = watch.WatchSpec(id=1, path="/tour", scope=watch.WATCH_SCOPE_TREE, with_data=True, state=watch.STATE_RULE_ALWAYS)
    other = Session(stubs, nodes[::-1])
    # The other node may not have applied the create yet.
    other.ask(sync=znode.SyncRequest())
    added = other.ask(add_watches=watch.AddWatchesRequest(watches=[tree])).add_watches
    assert not added.refused, added
    state = other.next("state")
    assert state.done and [z.path for z in state.znodes] == ["/tour"], state
    me = znode.CreateRequest(path="/tour/me", data=b"10.0.0.1", kind=znode.NODE_KIND_EPHEMERAL)
    mine = one.write(create=me).create
    group = other.next("events")
    assert (group.events[0].change.kind, group.events[0].change.path) == (watch.CHANGE_KIND_CREATED, "/tour/me")
    seen = group.zxid
    assert seen == mine.stat.czxid and mine.stat.ephemeral_owner == one.session.session_id
    listed = one.ask(list_ephemerals=znode.ListEphemeralsRequest()).list_ephemerals
    assert list(listed.paths) == ["/tour/me"], listed

    # A multi is done as a whole or not at all, and tells which part failed.
    good = [znode.MultiOp(create=znode.CreateRequest(path="/tour/a", data=b"1")),
            znode.MultiOp(set=znode.SetRequest(path="/tour", data=b"2", version=0))]
    bad = good[:1] + [znode.MultiOp(check=znode.CheckRequest(path="/tour", version=7))]
    failed = one.write(multi=znode.MultiRequest(ops=bad)).error
    assert (failed.code, failed.metadata["index"]) == (error.ERROR_CODE_BAD_VERSION, "1"), failed
    done = one.write(multi=znode.MultiRequest(ops=good))
    assert [r.WhichOneof("result") for r in done.multi.results] == ["create", "set"], done

    # The watcher moves to another node and goes on behind the last whole group: nothing is missed, nothing comes twice.
    other.disconnect()
    assert other.connect().resumed
    again = watch.WatchSpec(id=1, path="/tour", scope=watch.WATCH_SCOPE_TREE, from_zxid=seen, state=watch.STATE_RULE_IF_GONE)
    other.ask(add_watches=watch.AddWatchesRequest(watches=[again]))
    group = other.next("events")
    assert sorted(e.change.path for e in group.events) == ["/tour", "/tour/a"] and not group.more, group
    assert group.zxid == done.zxid

    # A write that is sent again under its number is carried out once.
    one.disconnect()
    assert one.connect().resumed
    one.number -= 1
    repeated = one.write(multi=znode.MultiRequest(ops=good))
    assert repeated.zxid == done.zxid, repeated
    ten = one.ask(get=znode.GetRequest(path="/tour"), timeout_ms=5_000).get
    assert (ten.data, ten.stat.version) == (b"2", 1), ten

    # An access list: only who proves ada may read it. The stranger learns no more than that.
    ada = Session(stubs, nodes, [access.Credential(digest="ada:secret")])
    only_me = access.Acl(entries=[access.AclEntry(
        identity=access.Identity(scheme="auth"),
        permissions=[access.PERMISSION_READ, access.PERMISSION_WRITE, access.PERMISSION_ADMIN])])
    created = ada.write(create=znode.CreateRequest(path="/tour/secret", data=b"s", acl=only_me))
    assert created.WhichOneof("result") == "create", created
    at = znode.ReadOptions(level=znode.READ_LEVEL_AT_LEAST, min_zxid=created.zxid)
    read = znode.GetRequest(path="/tour/secret", read=at)
    assert ada.ask(get=read).get.data == b"s"
    assert one.ask(get=read).error.code == error.ERROR_CODE_NO_AUTH

    # The same watch as a call without a session; to cancel it, end it.
    stub = stubs["grpc"].CoordinationStub(grpc.insecure_channel(nodes[0]))
    plain = watch.WatchSpec(id=1, path="/tour", scope=watch.WATCH_SCOPE_TREE, from_zxid=seen)
    call = stub.Watch(watch.WatchRequest(watches=[plain]))
    items = (item for message in call for item in message.items)
    first = next(item.events for item in items if item.WhichOneof("item") == "events")
    assert first.zxid == done.zxid, first
    call.cancel()

    # The end of the session takes the ephemeral with it.
    assert one.ask(close=session.CloseSessionRequest()).WhichOneof("result") == "close"
    gone = next(e.change for e in iter_events(other) if e.change.path == "/tour/me")
    assert gone.kind == watch.CHANGE_KIND_DELETED and gone.stat.czxid == mine.stat.czxid, gone
    other.ask(close=session.CloseSessionRequest())
    ada.ask(close=session.CloseSessionRequest())
    print("the tour is complete")


def iter_events(session):
    while True:
        yield from session.next("events").events


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
