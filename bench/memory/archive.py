#!/usr/bin/env python3
"""Writes an archive for `quorate import`: ZNODES znodes of 100 B, a thousand below each parent, paths of 31 bytes.

    bench/memory/archive.py ZNODES FILE
"""
import base64
import sys

TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)

znodes, file = int(sys.argv[1]), sys.argv[2]
value = base64.b64encode(b"x" * 100).decode()
lines = ['{"quorate":"archive","version":1}\n', '{"path":""}\n']
for n in range(znodes):
    if n % 1000 == 0:
        lines.append('{"path":"/group-%07d","data":""}\n' % (n // 1000))
    lines.append('{"path":"/group-%07d/node-%09d","data":"%s"}\n' % (n // 1000, n, value))
text = "".join(lines).encode()
crc = 0xFFFFFFFF
for byte in text:
    crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
with open(file, "wb") as out:
    out.write(text)
    out.write(b'{"end":%d,"crc32c":"%08x"}\n' % (len(lines) - 1, crc ^ 0xFFFFFFFF))
