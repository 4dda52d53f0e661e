"""Every cure that a message names is followed by a row and succeeds; a message without a row fails.

A row is a function of a folder and `fails`, which runs something that must be refused and gives
back the cure; then the row does what the cure says, and the same thing works.

A row stands for the messages whose words it lists, and for the others of its module that have the
same cure, word for word: `Check the path.` is followed once a module."""

import ast
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "spacenet5_nb"
ERRORS = {
    f"{kind}Error"
    for kind in ("Data", "Stage", "Graph", "Preset", "Settings", "Checkpoint", "Write")
}
ROWS: dict[tuple[str, str], Callable] = {}
ELSEWHERE = {  # followed by another test, or by none for the reason given
    ("raster", "is placed by a sensor's coefficients"): "gdalwarp is no part of the workspace",
    ("raster", "would become"): "tests/test_bad_input_data.py raises largest_read_gb",
    ("roads/windowed_tracing", "ended three workers"): "tests/test_cluster.py",
    ("acquire/osm", "is not installed"): "an installation",
    ("acquire/osm", "might take more than"): "tests/test_osm.py; osmium-tool is Debian's",
    ("acquire/unpack", "has a header of"): "says what not to do: such an archive is left alone",
    ("base/cluster", "needs dask's distributed"): "an installation",
    ("base/road_files", "has a view where roads are looked for"): "tests/test_graph_files.py",
}


def row(module: str, *problems: str) -> Callable:
    "Enter a function as the trial of some messages of a module."

    def enter(function: Callable) -> Callable:
        ROWS.update({(module, problem): function for problem in problems})
        return function

    return enter


class Message(NamedTuple):
    "An error as it stands in the code, with {} for what is filled in and <> for what is computed."

    problem: str
    cure: str


def template(node: ast.expr) -> str:
    "A text as it stands in the code."
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(v) if isinstance(v, ast.Constant) else "{}" for v in node.values)
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return f"<{ast.unparse(node)}>"


def modules() -> list[str]:
    "All modules of the package, such as `base/labels`."
    paths = PACKAGE.rglob("*.py")
    return sorted(p.relative_to(PACKAGE).with_suffix("").as_posix() for p in paths)


@lru_cache
def messages(module: str) -> list[Message]:
    "A module's errors that name a cure."
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    calls = [
        n.args
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in ERRORS
    ]
    return [Message(template(a[1]), template(a[2])) for a in calls if len(a) > 2]


def untried(module: str) -> list[Message]:
    "The messages of a module for which no row stands, by their own words or by their cure."
    words = [problem for m, problem in (*ROWS, *ELSEWHERE) if m == module]
    found = messages(module)
    named = [m for m in found if any(w in m.problem for w in words)]
    tried = {m.cure for m in named}
    return [m for m in found if m not in named and m.cure not in tried]


def idle(module: str) -> list[str]:
    "The words of rows that no message of a module has."
    words = [problem for m, problem in (*ROWS, *ELSEWHERE) if m == module]
    return [w for w in words if not any(w in m.problem for m in messages(module))]
