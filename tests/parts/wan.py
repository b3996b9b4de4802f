#!/usr/bin/env python3
"""A long line between two network namespaces: delay, rate and loss, in user space over TUN devices, for machines without netem.

usage: wan.py NAME DELAY_MS RATE_MBIT LOSS_PERCENT

Makes the namespaces NAME-a (10.99.0.1) and NAME-b (10.99.0.2), prints READY, and carries packets until SIGTERM, which removes
both. DELAY_MS is that of one direction; what waits for longer than 0.1 s for the line is dropped. Needs root.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
LONGEST_QUEUE = 0.1

libc = ctypes.CDLL(None, use_errno=True)


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def end_of_line(namespace, address):
    """A TUN device inside a new namespace; its other end is the descriptor."""
    ip("netns", "add", namespace)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    libc.setns(there, CLONE_NEWNET)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", b"wan0", IFF_TUN_NO_PI))
    libc.setns(here, CLONE_NEWNET)
    ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "wan0")
    ip("-n", namespace, "link", "set", "wan0", "up", "txqueuelen", "1000")
    ip("-n", namespace, "link", "set", "lo", "up")
    return device


def carry(ends, delay, rate, loss):
    """Moves packets between the two ends, for ever."""
    peer = {ends[0]: ends[1], ends[1]: ends[0]}
    free = dict.fromkeys(ends, 0.0)
    waiting, number = [], 0
    while True:
        pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for device in select.select(ends, [], [], pause)[0]:
            for _ in range(64):
                try:
                    packet = os.read(device, 65536)
                except BlockingIOError:
                    break
                now = time.monotonic()
                start = max(free[device], now)
                if start - now > LONGEST_QUEUE or (loss and random.random() < loss):
                    continue
                free[device] = start + (len(packet) / rate if rate else 0)
                number += 1
                heapq.heappush(waiting, (free[device] + delay, number, peer[device], packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, device, packet = heapq.heappop(waiting)
            try:
                os.write(device, packet)
            except BlockingIOError:
                pass


def main():
    name, delay, rate, loss = sys.argv[1], *map(float, sys.argv[2:5])
    namespaces = [f"{name}-a", f"{name}-b"]

    def end(*_):
        for namespace in namespaces:
            ip("netns", "del", namespace)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    ends = [end_of_line(namespaces[0], "10.99.0.1"), end_of_line(namespaces[1], "10.99.0.2")]
    print("READY", flush=True)
    carry(ends, delay / 1e3, rate * 1e6 / 8, loss / 100)


main()
