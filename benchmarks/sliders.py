"""How long a slider's picture takes: the last cell of 02, 05, 06, 07 and 08, over the demo's run.

    .venv/bin/python benchmarks/sliders.py

Each notebook runs in a kernel of its own, then each control is moved away and back, five times.
Needs `make demo` first.
"""

import json
import statistics
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = ("02_masks", "05_ensemble", "06_vectorize", "07_apls", "08_maps")
MOVE = """
import json, time
box, taken = Out[max(Out)], {}  # `_` may be a variable of the notebook
for control in box.children[0].children:
    if not hasattr(control, "description") or not control.description:
        continue
    here = control.value
    if hasattr(control, "options"):
        values = [o[1] if isinstance(o, tuple) else o for o in control.options]
        there = next((v for v in values if v != here), None)
    else:
        there = control.max if here != control.max else control.min
        if isinstance(here, tuple):  # of a slider with two handles
            whole = (control.min, control.max)
            there = whole if here != whole else (here[0], here[0])
    if there is None:
        continue
    seconds = []
    for value in [there, here] * 5:
        start = time.perf_counter()
        control.value = value
        seconds.append(time.perf_counter() - start)
    taken[control.description] = seconds
print(json.dumps(taken))
"""


def moved(path):
    "Seconds of each control's redraws in a notebook that has run."
    book = nbformat.read(path, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(MOVE))
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    said = "".join(o.text for o in book.cells[-1].outputs if o.output_type == "stream")
    return json.loads(said.splitlines()[-1])


def main():
    folder = Path(__file__).resolve().parents[1] / "nbs"
    for name in NOTEBOOKS:
        for control, seconds in moved(folder / f"{name}.ipynb").items():
            median, most = statistics.median(seconds), max(seconds)
            print(f"{name} {control}: {median:.2f} s, at most {most:.2f} s", flush=True)


if __name__ == "__main__":
    main()
