"""benchmarks/gpu.py on a CPU, with small sizes: it goes on where it ended, every part works; and
all benchmarks import modules that there are."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(out, *arguments):
    "What the program says."
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--tiny", "--device", "cpu"]
    alone = os.environ | {
        "OMP_NUM_THREADS": "1",
        "SPACENET5_THREADS": "1",
        "SPACENET5_WORKERS": "1",
    }
    done = subprocess.run(
        [*command, "--out", str(out), *arguments],
        capture_output=True,
        text=True,
        env=alone,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return done.stdout


def rows_of(out):
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines() if line]


def test_a_killed_part_goes_on_with_the_rows_that_lack(tmp_path):
    said = run(tmp_path, "--parts", "ceiling", "forward", "--stretch", "0.001")
    assert said.count("stopped after") == 2, "each part has its own seconds"
    assert not list(tmp_path.glob("*.done"))
    first = {"part": "ceiling", "what": "matrix product, 32", "tflops": 7.0}
    (tmp_path / "rows.jsonl").write_text(json.dumps(first) + '\n{"part": "ceil')  # killed there
    said = run(tmp_path, "--parts", "ceiling", "--stretch", "40", "--minutes", "60")
    assert "ceiling: done" in said and "tflops 7.0" in said
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == first and lines[1] == '{"part": "ceil'
    assert [json.loads(x)["what"] for x in lines[2:]] == ["matrix product, bf16"]
    before = (tmp_path / "rows.jsonl").read_text()
    assert "done" not in run(tmp_path, "--parts", "ceiling"), "what is done is not done again"
    assert (tmp_path / "rows.jsonl").read_text() == before


def names_from_the_package(path):
    "Modules, or what may be one, that a program takes from the package."
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("spacenet5_nb"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spacenet5_nb"):
            yield node.module
            if (ROOT / node.module.replace(".", "/")).is_dir():  # its names are modules
                yield from (f"{node.module}.{a.name}" for a in node.names)


def test_benchmarks_import_modules_that_there_are():
    wrong = [
        f"{path.name}: {name}"
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
        for name in names_from_the_package(path)
        for place in [ROOT / name.replace(".", "/")]
        if not place.is_dir()
        and not place.with_suffix(".py").is_file()
        and name != "spacenet5_nb.__version__"
    ]
    assert not wrong


@pytest.mark.slow
def test_every_part_works_on_a_cpu(tmp_path):
    said = run(tmp_path, "--minutes", "60", "--stretch", "20")
    rows = rows_of(tmp_path)
    logs = {p.name: p.read_text()[-2000:] for p in tmp_path.glob("*.log")}
    assert not [r for r in rows if "failed" in r], (said, logs)
    parts = {"ceiling", "forward", "step", "together", "loader", "world", "full", "train"}
    assert {r["part"] for r in rows} == parts
    assert all(p in said for p in parts) and said.count(": done") == len(parts), (said, logs)
    for row in rows:
        rates = [row[k] for k in ("tflops", "mpx_s", "samples_s", "km2_min") if k in row]
        assert len(rates) == 1 and rates[0] > 0, row
