"""Time, seconds of processors and peak memory of a command with all its processes: their
proportional set sizes, added up twice a second.

    .venv/bin/python benchmarks/peak_memory.py make demo
"""

import resource
import subprocess
import sys
import time

import psutil


def tree_mb(root):
    "Memory of a process and its children; one that ends while we look counts nothing."
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return
    start, peak, child = time.monotonic(), 0.0, subprocess.Popen(sys.argv[1:])
    while child.poll() is None:
        try:
            peak = max(peak, tree_mb(psutil.Process(child.pid)))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.5)
    status, used = child.wait(), resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{time.monotonic() - start:.0f} s, {used.ru_utime + used.ru_stime:.1f} s of processors, "
        f"peak memory {peak:.0f} MB, exit status {status}"
    )


if __name__ == "__main__":
    main()
