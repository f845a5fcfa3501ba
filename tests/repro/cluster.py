"""Nodes as processes of `quorate serve` on loopback, what other clients meet meanwhile, and the verdict of a script."""
import atexit, multiprocessing, os, resource, shutil, signal, socket, subprocess, sys, tempfile, threading, time, traceback
import urllib.error, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "../../target"))
QUORATE = os.path.abspath(os.environ.get("QUORATE", TARGET + "/release/quorate"))
EXAMPLES = os.path.abspath(os.environ.get("EXAMPLES", TARGET + "/release/examples"))
SKIPPED = 77
# What a process may take; the limit of the Kubernetes manifests.
MEMORY = 512
# How long another client may wait while one misbehaves: what torture allows, far below any session time-out.
WAIT = 1.5

# The verdict.

class Skip(Exception):
    """The machine lacks something that the script needs."""

# By name; of several the worst, with the case it belongs to.
figures, faults = {}, []

def note(what, value):
    """A figure that decides nothing."""
    figures[what] = (0, f"{what} {value}")

def holds(what, condition, detail="", case=""):
    """The wanted behaviour, in words."""
    where = f"{case}: " if case else ""
    print(f"  {where}{what}: {'yes' if condition else 'NO'}", flush=True)
    if not condition: faults.append(f"{where}not so: {what}" + (f" ({detail})" if detail != "" else ""))
    return condition

def at_most(what, value, bound, unit="", case=""):
    text = f"{what} {value:.3g}{unit} of at most {bound:g}{unit}" + (f" ({case})" if case else "")
    print("  " + text, flush=True)
    if value > bound: faults.append(text)
    elif value >= figures.get(what, (-1,))[0]: figures[what] = (value, text)
    return value <= bound

def script(main):
    """Runs `main` with a directory of its own and ends the process: 0 for PASS, 1 for FAIL, 77 for skipped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Nodes, and what measures them, go before other load of the machine, where that is allowed. Linux weighs sessions of processes first.
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
        if os.getsid(0) == os.getpid():
            with open("/proc/self/autogroup", "w") as f: f.write("-15")
    except OSError: pass
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    dir, began = tempfile.mkdtemp(prefix="quorate-repro-"), time.time()
    verdict, code = "FAIL", 1
    try:
        if not os.access(QUORATE, os.X_OK): raise Skip(f"no {QUORATE}; cargo build --release -p quorate, or set QUORATE")
        main(dir)
        for node in nodes:
            panics = [l for l in node.log().splitlines() if "panicked" in l]
            if panics: faults.append(f"node {node.id} panicked: {panics[0][:200]}")
        verdict, code = ("FAIL", 1) if faults else ("PASS", 0)
    except Skip as e:
        verdict, code = "skipped", SKIPPED
        figures.clear(); note(str(e), "")
    except Exception as e:
        traceback.print_exc()
        faults.append(f"{type(e).__name__}: {e}")
    finally:
        for client in clients: client.kill()
        for node in nodes: node.stop(signal.SIGKILL)
        if code == 1 and os.environ.get("REPRO_KEEP"): print("kept", dir)
        else: shutil.rmtree(dir, ignore_errors=True)
        print(f"{verdict}: {'; '.join(faults + [text.strip() for _, text in figures.values()])} [{time.time() - began:.0f} s]", flush=True)
        os._exit(code)

# Nodes.

nodes, clients = [], []

def free_ports(count):
    """Ports that nobody has at the moment."""
    held = []
    for _ in range(count):
        s = socket.socket(); s.bind(("127.0.0.1", 0)); held.append(s)
    ports = [s.getsockname()[1] for s in held]
    for s in held: s.close()
    return ports

class Ports:
    def __init__(self):
        self.client, self.quorum, self.election, self.http, self.zookeeper, self.store = free_ports(6)

class Node:
    """members: {id: (client, quorum, election)} as this node sees them. extra: further text for its configuration."""
    def __init__(self, dir, id, ports, members, ensemble="repro", extra="", gateway=False, ulimit=None, memory=MEMORY):
        self.dir, self.id, self.ports, self.members = dir, id, ports, members
        self.ensemble, self.extra, self.gateway, self.ulimit, self.memory = ensemble, extra, gateway, ulimit, memory
        self.process = None
        os.makedirs(dir, exist_ok=True)
        self.configure()
        nodes.append(self)

    def configure(self):
        p = self.ports
        text = f'ensemble = "{self.ensemble}"\nid = {self.id}\ndata_dir = "data"\n[limits]\nmemory = "{self.memory}MiB"\n'
        text += f'[listen]\nhost = "127.0.0.1"\nclient_port = {p.client}\nquorum_port = {p.quorum}\nelection_port = {p.election}\n'
        text += f'http_port = {p.http}\nzookeeper_port = {p.zookeeper}\n'
        if self.gateway: text += f'internal_host = "127.0.0.1"\ninternal_store_port = {p.store}\n'
        text += self.extra
        for id, (client, quorum, election) in sorted(self.members.items()):
            text += f'\n[[members]]\nid = {id}\nhost = "127.0.0.1"\n'
            text += f'client_port = {client}\nquorum_port = {quorum}\nelection_port = {election}\n'
        with open(self.dir + "/quorate.toml", "w") as f: f.write(text)

    def start(self, env=None):
        command = [QUORATE, "serve", "--exit-with-parent", str(os.getpid()), "--config", self.dir + "/quorate.toml"]
        def limit():
            if self.ulimit: resource.setrlimit(resource.RLIMIT_NOFILE, (self.ulimit, self.ulimit))
        with open(self.dir + "/log", "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            env=dict(os.environ, QUORATE_LOG="info", **(env or {})), preexec_fn=limit)
        return self

    def stop(self, how=signal.SIGTERM, wait=20):
        """Returns how long it took."""
        began = time.time()
        if self.alive():
            self.process.send_signal(how)
            try: self.process.wait(wait)
            except subprocess.TimeoutExpired: self.process.kill(); self.process.wait()
        return time.time() - began

    def alive(self): return self.process is not None and self.process.poll() is None

    def memory_of(self, key="VmRSS"):
        """MiB; `VmHWM`: the most it ever was."""
        return memory(self.process.pid, key)

    def log(self):
        try:
            with open(self.dir + "/log", errors="replace") as f: return f.read()
        except OSError: return ""

    def ready(self): return answers_200(self.ports.http)

    def metric(self, name):
        """The sum of all lines of a metric."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.http}/metrics", timeout=5) as r: text = r.read().decode()
        return sum(float(l.split()[-1]) for l in text.splitlines() if l.startswith((name + " ", name + "{")))

    @property
    def endpoint(self): return f"127.0.0.1:{self.ports.client}"

class Gateway:
    """`quorate gateway` in front of a node that was made with `gateway=True`."""
    def __init__(self, dir, node):
        self.zookeeper, self.http = free_ports(2)
        settings = {"ensemble": node.ensemble, "listen.host": "127.0.0.1", "listen.zookeeper_port": self.zookeeper,
                    "listen.http_port": self.http, "limits.memory": f"{MEMORY}MiB"}
        with open(dir + "/gateway", "w") as log:
            self.process = subprocess.Popen(
                [QUORATE, "gateway", "--exit-with-parent", str(os.getpid()), "--stores", f"http://127.0.0.1:{node.ports.store}"]
                + [a for k, v in settings.items() for a in ("--set", f"{k}={v}")], stdout=log, stderr=log)
        clients.append(self.process)
        wait_for("the gateway is ready", self.ready)

    def ready(self): return answers_200(self.http)
    def alive(self): return self.process.poll() is None

def answers_200(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as r: return r.status == 200
    except OSError: return False

def memory(pid, key="VmRSS"):
    try:
        with open(f"/proc/{pid}/status") as f:
            return next((int(l.split()[1]) / 1024 for l in f if l.startswith(key)), 0)
    except OSError: return 0

def ensemble(dir, count=1, start=True, **kw):
    ports = {i: Ports() for i in range(1, count + 1)}
    members = {i: (p.client, p.quorum, p.election) for i, p in ports.items()}
    made = [Node(f"{dir}/node-{i}", i, p, members, **kw) for i, p in ports.items()]
    if start:
        for node in made: node.start()
        all_ready(made)
    return made

def all_ready(some, limit=30):
    return wait_for("nodes are ready", lambda: all(n.ready() for n in some), limit)

def wait_for(what, condition, limit=30, step=0.1):
    """Returns how long it took."""
    began = time.time()
    while time.time() - began < limit:
        if condition(): return time.time() - began
        time.sleep(step)
    raise AssertionError(f"{what}: not within {limit} s")

def everywhere(some): return ",".join(n.endpoint for n in ([some] if isinstance(some, Node) else some))

def quorate(*args, at=None, timeout=15, env=None):
    """(exit code, output) of the command line client; the code is None if it took too long."""
    args = list(args) + (["--endpoints", everywhere(at)] if at else [])
    try:
        p = subprocess.run([QUORATE, *args], capture_output=True, text=True, timeout=timeout, env=dict(os.environ, **(env or {})))
        return p.returncode, (p.stdout + p.stderr).strip()
    except subprocess.TimeoutExpired: return None, ""

def done(*args, **kw):
    """The same of one that has to succeed."""
    code, text = quorate(*args, **kw)
    assert code == 0, f"quorate {' '.join(args)[:80]} ended with {code}: {text[:300]}"
    return text

def client(function, *args):
    """Runs it in a process of its own, so that it takes no CPU time of the measuring process, and at a lower priority than the nodes."""
    def run():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpriority(os.PRIO_PROCESS, 0, 10)
        try: function(*args)
        except (OSError, EOFError): pass
        except Exception: traceback.print_exc()
        finally: sys.stdout.flush(); os._exit(0)
    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    process.start()
    clients.append(process)
    return process

def gone(some):
    for one in some: one.kill()
    for one in some: one.join(5)

# What other clients meet.

class Others:
    """While one client misbehaves: a session that pings and writes, a fresh client twice a second, `/readyz`, and the memory of a
    process. To be used with `with`; `check` afterwards."""
    def __init__(self, node, pid=None, pause=0.02, tls=None, clients_too=True):
        self.node, self.pid, self.pause, self.tls = node, pid or node.process.pid, pause, tls
        self.pings, self.writes, self.fresh, self.faults, self.unready, self.top = [], [], [], [], 0, 0
        self.over, self.threads = threading.Event(), []
        self.work = [self.look, self.measure] + ([self.session, self.newcomers] if clients_too else [])

    def __enter__(self):
        for work in self.work:
            thread = threading.Thread(target=self.guarded, args=(work,), daemon=True); thread.start()
            self.threads.append(thread)
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads: thread.join(30)

    def guarded(self, work):
        try: work()
        except Exception as e: self.faults.append(f"{work.__name__}: {type(e).__name__}: {e}")

    def session(self):
        from rawgrpc import Session, SET, about, f_bytes
        session, count = Session(self.node.ports.client, timeout_ms=6000, tls=self.tls, source="127.0.0.1"), 0
        while not self.over.is_set():
            count += 1
            at = time.time()
            if count % 5: session.ping(30); self.pings.append(time.time() - at)
            else:
                # Large enough to need room when they are decoded, as most writes of applications do.
                size = 20000 if count % 50 == 0 else 4000 if count % 10 == 0 else 1
                session.write(SET, about("/") + f_bytes(2, b"x" * size), 30); self.writes.append(time.time() - at)
            time.sleep(self.pause)

    def newcomers(self):
        from rawgrpc import Conn, about
        while not self.over.wait(0.5):
            at = time.time()
            conn = Conn(self.node.ports.client, tls=self.tls, source="127.0.0.1")
            try: conn.call("Exists", about("/"), 30)
            finally: conn.close()
            self.fresh.append(time.time() - at)

    def look(self):
        while not self.over.wait(0.25): self.unready += not self.node.ready()

    def measure(self):
        while not self.over.wait(0.05): self.top = max(self.top, memory(self.pid))

    def check(self, case="", wait=WAIT, memory=MEMORY):
        holds("others keep their sessions", not self.faults, "; ".join(self.faults), case)
        if self.session in self.work:
            print(f"  median ping {sorted(self.pings)[len(self.pings) // 2] * 1000 if self.pings else 0:.1f} ms")
            at_most("longest ping of others", max(self.pings, default=99), wait, " s", case)
            at_most("write", max(self.writes, default=99), wait, " s", case)
            at_most("fresh client", max(self.fresh, default=99), wait, " s", case)
        at_most("memory", self.top, memory, " MiB", case)
        holds("/readyz is 200 throughout", not self.unready, f"{self.unready} times not", case)

# Ways between nodes.

class Pump:
    """A proxy to a port. `silent`: it keeps the bytes, and new connections hang. `rate`: bytes a second of each direction of each
    connection; None: any."""
    def __init__(self, target):
        self.target, self.silent, self.rate = target, False, None
        self.server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.server.accept()
            threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near):
        while self.silent: time.sleep(0.02)
        try: far = socket.create_connection(("127.0.0.1", self.target))
        except OSError: near.close(); return
        for s in (near, far): s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self.copy, args=(far, near), daemon=True).start()
        self.copy(near, far)

    def copy(self, a, b):
        try:
            while data := a.recv(16384):
                if self.rate: time.sleep(len(data) / self.rate)
                while self.silent: time.sleep(0.02)
                b.sendall(data)
        except OSError: pass
        for s in (a, b):
            try: s.shutdown(socket.SHUT_RDWR)
            except OSError: pass

def piped(dir, pairs, **kw):
    """Three nodes; the quorum and election links of `pairs` (from, to) go through pumps, which are returned as well."""
    ports, pumps = {i: Ports() for i in (1, 2, 3)}, []
    views = {i: {j: (p.client, p.quorum, p.election) for j, p in ports.items()} for i in ports}
    for i, j in pairs:
        ways = [Pump(ports[j].quorum), Pump(ports[j].election)]
        pumps += ways
        views[i][j] = (ports[j].client, ways[0].port, ways[1].port)
    return [Node(f"{dir}/node-{i}", i, ports[i], views[i], **kw) for i in ports], pumps
