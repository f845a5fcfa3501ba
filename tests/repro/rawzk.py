"""ZooKeeper's protocol by hand, for clients that do what good ones do not."""
import socket, struct, time

CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_CHILDREN, PING, MULTI, MULTI_READ = 1, 2, 3, 4, 5, 8, 11, 14, 22
SET_WATCHES, ADD_WATCH, CLOSE = 101, 106, -11
OPEN_ACL = struct.pack(">ii", 1, 31) + b"\0\0\0\5world\0\0\0\6anyone"

def buf(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">i", len(data)) + data

def frame(body): return struct.pack(">i", len(body)) + body
def hello(timeout_ms=10000): return frame(struct.pack(">iqiq", 0, 0, timeout_ms, 0) + buf(b"\0" * 16) + b"\0")
def request(xid, op, body=b""): return frame(struct.pack(">ii", xid, op) + body)
def read(path, watch=False): return buf(path) + bytes([watch])
def create(path, data=b"", flags=0): return buf(path) + buf(data) + OPEN_ACL + struct.pack(">i", flags)
def set_data(path, data, version=-1): return buf(path) + buf(data) + struct.pack(">i", version)
def parts(some): return b"".join(struct.pack(">i?i", op, False, -1) + body for op, body in some) + struct.pack(">i?i", -1, True, -1)

class Zk:
    """One session; asks one thing after the other. connect: whether to open the session at all."""
    def __init__(self, port, timeout_ms=10000, connect=True, buffer=None, source=None, tls=None):
        self.s = socket.socket()
        if buffer: self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        if source: self.s.bind((source, 0))
        self.s.settimeout(30)
        self.s.connect(("127.0.0.1", port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls: self.s = tls.wrap_socket(self.s, server_hostname="127.0.0.1")
        self.xid, self.session = 0, 0
        if connect:
            self.s.sendall(hello(timeout_ms))
            answer = self.frame()
            _, self.timeout_ms, self.session = struct.unpack(">iiq", answer[:16])
            if self.timeout_ms <= 0: raise EOFError("no session")

    def exactly(self, n):
        out = bytearray()
        while len(out) < n:
            got = self.s.recv(min(1 << 20, n - len(out)))
            if not got: raise EOFError("closed by the node")
            out += got
        return bytes(out)

    def frame(self): return self.exactly(struct.unpack(">i", self.exactly(4))[0])

    def ask(self, op, body=b""):
        """(error code, body of the answer); events before it are passed over."""
        xid = -2 if op == PING else self.xid + 1
        self.xid = max(self.xid, xid)
        self.s.sendall(request(xid, op, body))
        while True:
            answer = self.frame()
            got, _, code = struct.unpack(">iqi", answer[:16])
            if got == xid: return code, answer[16:]

    def close(self): self.s.close()

class ZkOthers:
    """What other clients of ZooKeeper's meet: a session that only pings and reads, one that writes, and new sessions."""
    def __init__(self, port, tls=None):
        import threading
        self.port, self.tls, self.waits, self.writes, self.fresh, self.faults = port, tls, [], [], [], []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.guarded, args=(work,), daemon=True) for work in (self.pings, self.writing, self.newcomers)]

    def __enter__(self):
        for thread in self.threads: thread.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads: thread.join(30)

    def guarded(self, work):
        try: work()
        except Exception as e: self.faults.append(f"{work.__name__}: {type(e).__name__}: {e}")

    def asks(self, timeout_ms, times, pause, *ops):
        zk, count = Zk(self.port, timeout_ms, tls=self.tls), 0
        while not self.over.wait(pause):
            at = time.time()
            code, _ = zk.ask(*ops[count % len(ops)])
            if code: raise RuntimeError(f"an answer with code {code}")
            times.append(time.time() - at)
            count += 1

    def pings(self): self.asks(6000, self.waits, 0.02, (PING,), (EXISTS, read("/")))
    # It does not ping while it waits for a write, as other clients do, so it has more time.
    def writing(self): self.asks(60000, self.writes, 0.1, (SET_DATA, set_data("/", b"x")))

    def newcomers(self):
        while not self.over.wait(0.5):
            at = time.time()
            zk = Zk(self.port, 6000, tls=self.tls)
            zk.ask(CLOSE); zk.close()
            self.fresh.append(time.time() - at)

    def check(self, case="", wait=1.5):
        from cluster import holds, at_most
        holds("ZooKeeper's other clients keep their sessions", not self.faults, "; ".join(self.faults), case)
        at_most("their pings and reads", max(self.waits, default=99), wait, " s", case)
        at_most("their writes", max(self.writes, default=99), wait, " s", case)
        at_most("a new session of theirs", max(self.fresh, default=99), wait, " s", case)
