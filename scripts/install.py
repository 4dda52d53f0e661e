"""`pip install` with a line that moves: what is fetched, how many packages are in place, the time.

Arguments are pip's. On a terminal the line is written over; elsewhere one comes every 15 seconds.
Warnings and errors stay; where pip fails, the rest of its last words follows.
"""

import queue
import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path

FILE = re.compile(r" *(?:Downloading|Using cached|Processing) (\S+?)-\d\S*whl(?: \((\d.*)\))?")
IS_TERMINAL = sys.stdout.isatty()
EVERY_S = 0.5 if IS_TERMINAL else 15.0


def packages() -> int:
    "How many are in place."
    return len(list(Path(sysconfig.get_paths()["purelib"]).glob("*.dist-info")))


def output(pip: subprocess.Popen) -> Iterator[str]:
    "pip's lines as they come, and an empty one after every half second of silence."
    lines = queue.Queue()
    threading.Thread(target=lambda: [*map(lines.put, pip.stdout), lines.put(None)]).start()
    while True:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            line = ""
        if line is None:
            return
        yield line.rstrip("\n")


def show(text: str, seconds: float, end: str = "") -> None:
    "The line as it is now."
    line = f"{int(seconds) // 60}:{int(seconds) % 60:02d}  {text}"
    print(f"\r\x1b[K{line[:79]}{end}" if IS_TERMINAL else f"{line}\n", end="", flush=True)


def main() -> int:
    "Run pip and show how far it is; its exit code."
    command = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", *sys.argv[1:]]
    pip = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    begun = shown = time.monotonic()
    said, fetched, before, total, now = [], 0, packages(), 0, "looking for packages"
    for line in output(pip):
        if line.startswith(("WARNING:", "ERROR:")):
            print(f"\r\x1b[K{line}" if IS_TERMINAL else line, flush=True)
        else:
            said.append(line)
        if found := FILE.match(line):
            fetched += 1
            size = f" ({found[2]})" if found[2] else ""
            now = f"fetching: {fetched} packages so far, now {Path(found[1]).name}{size}"
        elif line.startswith("Installing collected packages:"):
            total = line.count(",") + 1
        if total:
            now = f"installing: {packages() - before} of {total} packages"
        if time.monotonic() - shown > EVERY_S:
            shown = time.monotonic()
            show(now, shown - begun)
    if pip.wait():
        print("\n".join(["", *[line for line in said if line.strip()][-30:]]))
    else:
        show(f"{packages()} packages in {sys.prefix}", time.monotonic() - begun, "\n")
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main())
