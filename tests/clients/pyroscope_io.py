"""A Python program profiled by `pyroscope-io`, unmodified. Arguments: address, seconds."""

import sys
import time

import pyroscope

address, seconds = sys.argv[1], float(sys.argv[2])
pyroscope.configure(application_name="pyshop", server_address=address, sample_rate=100, tags={"version": "v9"})


def spin():
    end = time.time() + seconds
    total = 0
    while time.time() < end:
        total += sum(i * i for i in range(1000))
    return total


spin()
pyroscope.shutdown()
