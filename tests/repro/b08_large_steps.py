"""b08_large_steps.py [KIND...]: verbs whose single step may be large: DeleteTree below many tree watches, CountTree, MultiRead of large values, lists with data, many
watches with state. Another client's pings go on."""
from cluster import *
from rawgrpc import *

def delete_trees(port):
    """Deletes trees of 9,000 znodes, below 200 sessions with a watch of the tree each."""
    watchers = []
    for _ in range(200):
        session = Session(port, 30000)
        session.ask(ADD_WATCHES, f_bytes(1, f_int(1, 1) + f_bytes(2, "/t") + f_int(3, 3)))
        session.conn.keep = False
        watchers.append(session)
    session = Session(port, 30000)
    session.write(CREATE, about("/t"))
    for round in range(1000):
        for first in range(0, 9000, 450):
            session.write(MULTI, b"".join(f_bytes(1, f_bytes(1, about(f"/t/{i:05d}"))) for i in range(first, first + 450)), 60)
        session.write(DELETE_TREE, about("/t") + f_int(5, 1), 60)

def unread_delete_trees(port):
    """The same, and nobody reads an event."""
    watchers = []
    for _ in range(100):
        conn = Conn(port, window=2000, give_back=False, keep=False)
        stream = conn.open("Session")
        conn.message(stream, open_session(30000) + request(1, ADD_WATCHES, b"".join(f_bytes(1, f_int(1, i) + f_bytes(2, "/t") + f_int(3, 3)) for i in range(1, 50))))
        watchers.append(conn)
    session = Session(port, 30000)
    session.write(CREATE, about("/t"))
    for round in range(1000):
        for first in range(0, 9000, 450):
            session.write(MULTI, b"".join(f_bytes(1, f_bytes(1, about(f"/t/{i:05d}"))) for i in range(first, first + 450)), 60)
        session.write(DELETE_TREE, about("/t") + f_int(5, 1), 60)

def flood(port, op, body, conns=8, streams=24, window=65535, give_back=True, each=50):
    """Sessions that ask for it again and again."""
    some = []
    for _ in range(conns):
        conn = Conn(port, keep=False, window=window, give_back=give_back)
        for _ in range(streams):
            stream = conn.open("Session"); conn.message(stream, open_session(30000), timeout=2); some.append((conn, stream))
    xid = 0
    while some:
        for conn, stream in some:
            conn.message(stream, b"".join(request(xid + i, op, body) for i in range(1, each + 1)), timeout=0.05)
        xid += each
        some = [(c, s) for c, s in some if not c.dead and s not in c.ended]

def count_trees(port): flood(port, COUNT_TREE, about("/"))
def multi_reads(port): flood(port, MULTI_READ, f_bytes(1, f_bytes(1, about("/f/0000000"))) * 1000, each=4)
def multi_reads_unread(port): flood(port, MULTI_READ, f_bytes(1, f_bytes(1, about("/f/0000000"))) * 1000, window=0, give_back=False, each=4)
def multi_reads_of_lists(port): flood(port, MULTI_READ, f_bytes(1, f_bytes(3, about("/c"))) * 1000, each=4)
def multi_reads_of_nothing(port): flood(port, MULTI_READ, f_bytes(1, f_bytes(2, about("/n"))) * 10000, each=1)
def lists_with_data(port): flood(port, CHILDREN, about("/d") + f_int(5, 1) + f_int(6, 1))
def lists_with_data_unread(port): flood(port, CHILDREN, about("/d") + f_int(5, 1) + f_int(6, 1), window=0, give_back=False)
def unary_multi_reads(port):
    while True:
        for _ in range(20):
            conn = Conn(port, window=0, give_back=False, keep=False); kept.append(conn)
            for _ in range(100): conn.message(conn.open("MultiRead"), f_bytes(1, f_bytes(1, about("/f/0000000"))) * 1000, end=True, timeout=0.2)
        time.sleep(1)

def watches_with_state(port):
    """Tree watches that each begin with the state of 9,000 znodes, unread."""
    flood(port, ADD_WATCHES, f_bytes(1, f_int(1, 7) + f_bytes(2, "/s") + f_int(3, 3) + f_int(6, 1) + f_int(8, 1)), window=0, give_back=False, each=1)

def unary_watches(port):
    while True:
        for _ in range(20):
            conn = Conn(port, window=0, give_back=False, keep=False); kept.append(conn)
            for _ in range(100):
                conn.message(conn.open("Watch"), f_bytes(1, f_int(1, 7) + f_bytes(2, "/s") + f_int(3, 3) + f_int(6, 1) + f_int(8, 1)), end=True, timeout=0.2)
        time.sleep(1)

kept = []
KINDS = {f.__name__: f for f in (delete_trees, unread_delete_trees, count_trees, multi_reads, multi_reads_unread, multi_reads_of_lists,
                                multi_reads_of_nothing, lists_with_data, lists_with_data_unread, unary_multi_reads, watches_with_state, unary_watches)}

def main(dir):
    for kind in sys.argv[1:] or KINDS:
        node, = ensemble(f"{dir}/{kind}")
        fill(node.ports.client, "/f", 1, 1000000)
        fill(node.ports.client, "/c", 20000)
        fill(node.ports.client, "/d", 60, 900000)
        fill(node.ports.client, "/s", 9000, 100)
        with Others(node) as others:
            one = client(KINDS[kind], node.ports.client)
            time.sleep(12)
            gone([one])
        others.check(kind)
        node.stop()

if __name__ == "__main__": script(main)
