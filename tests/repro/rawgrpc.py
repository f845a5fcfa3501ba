"""A gRPC client that does what good ones do not: raw HTTP/2 frames and protobuf by hand."""
import socket, ssl, struct, threading, time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING_FRAME, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
WIDE = (1 << 31) - 1

# Operations of a Request, and their results in a Response (proto/proto/quorate/v1/session.proto).
CREATE, SET, DELETE, MULTI, GET, EXISTS, CHILDREN, SYNC, PING = range(4, 13)
DELETE_TREE, COUNT_TREE, MULTI_READ, ADD_WATCHES = 16, 19, 20, 22
ERROR = 3
OVERLOADED = 11

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

def varint(n):
    out = bytearray()
    while n > 0x7f: out.append(n & 0x7f | 0x80); n >>= 7
    out.append(n)
    return bytes(out)

def f_int(field, n): return varint(field << 3) + varint(n) if n else b""
def f_bytes(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data

def about(path): return f_bytes(1, path)
def open_session(timeout_ms): return f_bytes(1, f_int(2, timeout_ms))
def request(xid, op, body, number=0): return f_bytes(2, f_int(1, xid) + f_int(2, number) + f_bytes(op, body))
def grpc(body): return b"\0" + struct.pack(">I", len(body)) + body

def parse(data):
    """(field, value) pairs of a message."""
    i, out = 0, []
    def number():
        nonlocal i
        n = shift = 0
        while True:
            b = data[i]; i += 1
            n |= (b & 0x7f) << shift; shift += 7
            if not b & 0x80: return n
    while i < len(data):
        key = number()
        if key & 7 == 0: out.append((key >> 3, number()))
        else:
            size = {1: 8, 5: 4}.get(key & 7) or number()
            out.append((key >> 3, bytes(data[i:i + size]))); i += size
    return out

def field(data, no, default=None): return next((v for f, v in parse(data) if f == no), default)

def hpack_text(s):
    out, n = bytearray(), len(s)
    if n < 127: out.append(n)
    else:
        out.append(127); n -= 127
        while n >= 128: out.append(n & 127 | 128); n >>= 7
        out.append(n)
    return bytes(out) + s.encode()

def call_headers(path):
    return (b"\x83\x86\x04" + hpack_text(path) + b"\x01" + hpack_text("localhost")
            + b"\x00" + hpack_text("content-type") + hpack_text("application/grpc") + b"\x00" + hpack_text("te") + hpack_text("trailers"))

def method(name): return name if name.startswith("/") else "/quorate.v1.Coordination/" + name

class Conn:
    """window: what the node may send on each stream, ever if not `give_back`. keep: store what it sends. read: whether to read from the
    socket at all. buffer: of the socket, for what the kernel takes. source: the address to come from; that
    of others is 127.0.0.1. tls: a context."""
    def __init__(self, port, window=65535, give_back=True, keep=True, read=True, buffer=None, source="127.0.0.2", tls=None):
        self.s = socket.socket()
        self.s.settimeout(20)
        if buffer: self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        if source: self.s.bind((source, 0))
        self.s.connect(("127.0.0.1", port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls: self.s = tls.wrap_socket(self.s, server_hostname="127.0.0.1")
        self.s.settimeout(None if read else 30)
        self.give_back, self.keep = give_back, keep
        self.lock, self.cond = threading.Lock(), threading.Condition()
        self.conn_window, self.initial, self.max_frame = 65535, 65535, 16384
        self.stream_window, self.data, self.ended, self.seen = {}, {}, {}, set()
        self.next, self.dead = 1, None
        self.s.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window))
                       + frame(WINDOW, 0, 0, struct.pack(">I", WIDE - 65535)))
        if read: threading.Thread(target=self.reader, daemon=True).start()

    def close(self):
        try: self.s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
        self.s.close()

    def exactly(self, n):
        out = bytearray()
        while len(out) < n:
            got = self.s.recv(min(1 << 20, n - len(out)))
            if not got: raise EOFError("closed by the node")
            out += got
        return bytes(out)

    def send(self, data):
        with self.lock: self.s.sendall(data)

    def reader(self):
        try:
            while True:
                head = self.exactly(9)
                n, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = struct.unpack(">I", head[5:])[0] & WIDE
                self.took(kind, flags, stream, self.exactly(n))
        except Exception as e:
            with self.cond: self.dead = repr(e); self.cond.notify_all()

    def took(self, kind, flags, stream, body):
        ends = bool(flags & 1)
        if kind == DATA and self.give_back and body:
            grant = struct.pack(">I", len(body))
            self.send(frame(WINDOW, 0, 0, grant) + (b"" if ends else frame(WINDOW, 0, stream, grant)))
        elif kind == SETTINGS and not ends: self.send(frame(SETTINGS, 1, 0))
        elif kind == PING_FRAME and not ends: self.send(frame(PING_FRAME, 1, 0, body))
        with self.cond:
            if kind == DATA:
                self.seen.add(stream)
                if self.keep: self.data.setdefault(stream, bytearray()).extend(body)
            elif kind == SETTINGS and not ends:
                for i in range(0, len(body), 6):
                    key, value = struct.unpack(">HI", body[i:i + 6])
                    if key == 4:
                        for s in self.stream_window: self.stream_window[s] += value - self.initial
                        self.initial = value
                    elif key == 5: self.max_frame = value
            elif kind == WINDOW:
                more = struct.unpack(">I", body)[0]
                if stream: self.stream_window[stream] = self.stream_window.get(stream, 0) + more
                else: self.conn_window += more
            elif kind == RST: self.ended[stream] = "reset %d" % struct.unpack(">I", body)[0]
            elif kind == GOAWAY: self.dead = "GOAWAY %d" % struct.unpack(">I", body[4:8])[0]
            if kind in (DATA, HEADERS) and ends: self.ended.setdefault(stream, "end")
            self.cond.notify_all()

    def open(self, name):
        with self.lock:
            stream = self.next; self.next += 2
            with self.cond: self.stream_window[stream] = self.initial
            self.s.sendall(frame(HEADERS, 4, stream, call_headers(method(name))))
        return stream

    def write(self, stream, data, end=False, timeout=30):
        """Bytes on a stream, as far as its windows allow within the time. Returns how many were not sent."""
        view, deadline = memoryview(data), time.time() + timeout
        if end and not data: self.send(frame(DATA, 1, stream))
        while len(view):
            with self.cond:
                while not (room := min(self.conn_window, self.stream_window[stream], self.max_frame, len(view))) > 0:
                    left = deadline - time.time()
                    if left <= 0 or self.dead or stream in self.ended: return len(view)
                    self.cond.wait(min(left, 1))
                if self.dead or stream in self.ended: return len(view)
                self.conn_window -= room; self.stream_window[stream] -= room
            self.send(frame(DATA, int(end and room == len(view)), stream, bytes(view[:room])))
            view = view[room:]
        return 0

    def message(self, stream, body, **kw): return self.write(stream, grpc(body), **kw)

    def messages(self, stream):
        """Whole messages that have come on a stream; they are taken."""
        out = []
        with self.cond:
            data = self.data.get(stream, bytearray())
            while len(data) >= 5 and len(data) >= 5 + (n := struct.unpack(">I", data[1:5])[0]):
                out.append(bytes(data[5:5 + n])); del data[:5 + n]
        return out

    def wait(self, condition, timeout):
        deadline = time.time() + timeout
        with self.cond:
            while not condition():
                left = deadline - time.time()
                if left <= 0: return False
                if self.dead: raise EOFError(f"the connection is over: {self.dead}")
                self.cond.wait(left)
        return True

    def call(self, name, body, timeout=30):
        """A unary call: its message, or None if there is none."""
        stream = self.open(name)
        self.message(stream, body, end=True)
        if not self.wait(lambda: stream in self.ended, timeout): raise TimeoutError(f"{name}: no answer within {timeout} s")
        answers = self.messages(stream)
        return answers[0] if answers else None

class Session:
    """A session on a connection of its own that asks one thing after the other, as a well-behaved client does."""
    def __init__(self, port, timeout_ms=10000, **kw):
        self.conn = Conn(port, **kw)
        self.stream = self.conn.open("Session")
        self.xid, self.number, self.answers, self.events = 0, 0, {}, 0
        self.conn.message(self.stream, open_session(timeout_ms))
        self.opened = None
        self.until(lambda: self.opened, 30)

    def until(self, condition, timeout):
        deadline = time.time() + timeout
        while not condition():
            stream, conn = self.stream, self.conn
            if not conn.wait(lambda: len(conn.data.get(stream, b"")) >= 5 or stream in conn.ended, max(0.01, deadline - time.time())) \
                    or time.time() > deadline:
                raise TimeoutError(f"no answer within {timeout} s")
            came = conn.messages(stream)
            if not came and stream in conn.ended: raise EOFError(f"the session's stream is over: {conn.ended[stream]}")
            for message in came:
                for no, item in parse(message):
                    if no == 1:
                        kind, value = parse(item)[0]
                        if kind == 1: self.opened = value
                        elif kind == 2: self.answers[field(value, 1)] = value
                        elif kind == 3: self.events += len([1 for f, _ in parse(value) if f == 2])

    def send(self, op, body, number=0, acked=0):
        self.xid += 1
        self.conn.message(self.stream, request(self.xid, op, body, number) + f_int(3, acked))
        return self.xid

    def ask(self, op, body, timeout=30, number=0, acked=0):
        xid = self.send(op, body, number, acked)
        self.until(lambda: xid in self.answers, timeout)
        return self.answers.pop(xid)

    def write(self, op, body, timeout=30):
        self.number += 1
        answer = self.ask(op, body, timeout, self.number, self.number - 1)
        if error := field(answer, ERROR): raise RuntimeError(f"refused: {field(error, 2, b'')[:200].decode()}")
        return answer

    def ping(self, timeout=30): return self.ask(PING, b"", timeout)
    def close(self): self.conn.close()

def fill(port, parent, count, size=0, name=lambda i: f"{i:07d}"):
    """Makes `count` children of `parent`, with data of `size` bytes; the parent too."""
    session = Session(port, 30000)
    session.write(CREATE, about(parent))
    each = max(1, min(500, (3 << 20) // (len(name(0)) + len(parent) + 32), (1 << 20) // (size + 1)))
    for first in range(0, count, each):
        parts = (f_bytes(1, f_bytes(1, about(f"{parent}/{name(i)}") + (f_bytes(2, b"d" * size) if size else b"")))
                 for i in range(first, min(count, first + each)))
        session.write(MULTI, b"".join(parts), 60)
    session.close()

def trusting(ca, alpn=True):
    """A TLS context for it."""
    context = ssl.create_default_context(cafile=ca)
    if alpn: context.set_alpn_protocols(["h2"])
    return context
