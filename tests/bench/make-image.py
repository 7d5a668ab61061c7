#!/usr/bin/env python3
"""Writes an image as an OCI layout in one tar: LAYERS gzipped layers that hold MB megabytes together.

usage: make-image.py FILE MB LAYERS NAME

Each file is one third noise and two thirds text, so that gzip makes about a third of it. Always the same bytes.
"""
import gzip
import hashlib
import io
import json
import platform
import random
import sys
import tarfile

path, megabytes, layers, name = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
draw = random.Random(7)
blobs = {}


def put(content):
    digest = hashlib.sha256(content).hexdigest()
    blobs[digest] = content
    return {"digest": "sha256:" + digest, "size": len(content)}


def layer(number, size):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        left, count = size, 0
        while left > 0:
            length = min(left, draw.choice([2_000, 20_000, 200_000, 2_000_000]))
            noise = draw.randbytes(length // 3)
            text = (b"the quick brown fox jumps over the lazy dog %d\n" % count) * (length // 40)
            info = tarfile.TarInfo(f"layer{number}/{count % 100}/file{count}")
            info.size, info.mode = length, 0o644
            tar.addfile(info, io.BytesIO((noise + text)[:length].ljust(length, b".")))
            left, count = left - length, count + 1
    return plain.getvalue()


made, diff_ids = [], []
for number in range(layers):
    plain = layer(number, megabytes * 1_000_000 // layers)
    diff_ids.append("sha256:" + hashlib.sha256(plain).hexdigest())
    made.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **put(gzip.compress(plain, 6, mtime=0))})
architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
config = {"architecture": architecture, "os": "linux", "config": {"Cmd": ["/none"]},
          "rootfs": {"type": "layers", "diff_ids": diff_ids}}
config = {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(config).encode())}
manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": made}
manifest = {"mediaType": manifest["mediaType"], **put(json.dumps(manifest).encode())}
manifest["annotations"] = {"org.opencontainers.image.ref.name": name}
with tarfile.open(path, "w") as tar:
    def add(name, content):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    for digest, content in blobs.items():
        add("blobs/sha256/" + digest, content)
    add("index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())
    add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
