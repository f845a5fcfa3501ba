"""Ports with TLS: connections that say nothing, half a handshake, a handshake and silence, renewed handshakes as fast as possible; on the client,
ZooKeeper, quorum and election ports. From another address than the other clients', and from the same."""
from cluster import *
from rawgrpc import *
import ssl
from rawzk import ZkOthers

# The first bytes of a TLS record with a ClientHello of 512 bytes, of which most is missing.
HALF = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 32

def client_hello():
    """The whole first message of a client."""
    sent = ssl.MemoryBIO()
    try: trusting(None).wrap_bio(ssl.MemoryBIO(), sent, server_hostname="127.0.0.1").do_handshake()
    except ssl.SSLWantReadError: return sent.read()

def floods(port, source, say, ca=None, ends=False):
    held, context = [], trusting(ca) if ca else None
    while True:
        try:
            s = socket.socket(); s.settimeout(2); s.bind((source, 0)); s.connect(("127.0.0.1", port))
            if say: s.sendall(say)
            if context: s = context.wrap_socket(s, server_hostname="127.0.0.1")
            if ends: s.close()
            else: held.append(s)
        except OSError: pass
        for s in held[:-600]: s.close()
        held = held[-600:]
        if not context: time.sleep(0.002)

def main(dir):
    certs = dir + "/certs"
    done("certs", "init", "--dir", certs, "--ensemble", "repro", "--members", "3", "--host", "127.0.0.1,localhost")
    nodes = ensemble(dir, 3, start=False)
    for node in nodes:
        node.extra = (f'[tls.members]\nmode = "require"\ncertificate = "{certs}/member-{node.id}.pem"\nkey = "{certs}/member-{node.id}.key"\n'
                      f'authorities = "{certs}/ca.pem"\n[tls.clients]\nmode = "require"\ncertificate = "{certs}/server.pem"\n'
                      f'key = "{certs}/server.key"\nauthorities = "{certs}/ca.pem"\n')
        node.configure(); node.start()
    all_ready(nodes)
    ca, first = certs + "/ca.pem", nodes[0]
    kinds = {"silence": (b"",), "half a handshake": (HALF,), "a ClientHello, then silence": (client_hello(),), "no TLS": (b"x" * 100,), "a handshake, then silence": (b"", ca),
             "handshakes": (b"", ca, True)}
    for source in ("127.0.0.2", "127.0.0.1"):
        for kind, how in kinds.items():
            if sys.argv[1:] and kind not in sys.argv[1:]: continue
            # One address has 16 handshakes under way; others of it wait for these (docs/security.md, S1).
            if source == "127.0.0.1" and kind == "a ClientHello, then silence": continue
            ports = [first.ports.client, first.ports.zookeeper]
            if len(how) == 1: ports += [n.ports.quorum for n in nodes] + [n.ports.election for n in nodes]
            with Others(first, tls=trusting(ca)) as others, ZkOthers(first.ports.zookeeper, tls=trusting(ca, alpn=False)) as zk:
                some = [client(floods, port, source, *how) for port in ports]
                time.sleep(8)
                if len(how) == 1 and source == "127.0.0.2":
                    nodes[2].stop(); nodes[2].start()
                    at_most("a restarted node is ready in", all_ready([nodes[2]], 60), 15, " s", kind)
                gone(some)
            case = f"{kind} from {'the same' if source == '127.0.0.1' else 'another'} address"
            others.check(case); zk.check(case)
            all_ready(nodes)
            time.sleep(5)

if __name__ == "__main__": script(main)
