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
    for kind in "Data Stage Graph Preset Settings Checkpoint Write Download Workspace".split()
}
ROWS: dict[tuple[str, str], Callable] = {}
SLOW: set[Callable] = set()  # rows that take more than about two seconds
ELSEWHERE = {  # followed by another test, or by none for the reason given
    (
        "roads/learned_joins",
        "is no model of connections",
    ): "tests/test_vectorize_connections.py",
    ("roads/learned_joins", "was trained on other evidence"): "the same",
    ("ablations", "holds no labelled chip"): "not followed yet: a study over real chips",
    ("acquire/download", "another download is writing here"): "tests/test_download.py",
    ("acquire/download", "needs about {} for tarballs"): "tests/test_download.py fills no disk",
    ("acquire/osm", "is not installed"): "an installation",
    ("acquire/osm", "might take more than"): "tests/test_osm.py; osmium-tool is Debian's",
    ("acquire/published_weights", "is no entrant"): "tests/test_download.py plays a bucket",
    ("acquire/s3_transfer", "<problem>"): "tests/test_download.py plays a bucket",
    ("acquire/s3_transfer", "needs boto3"): "an installation",
    ("acquire/s3_transfer", "no connection to"): "a network",
    ("acquire/s3_transfer", "boto3 failed"): "a network",
    ("acquire/s3_transfer", "(HTTP {}, {})"): "a network",
    ("acquire/s3_transfer", "does not send the part"): "a mirror that is broken",
    ("acquire/s3_transfer", "bytes of a part of"): "tests/test_download.py plays a bucket",
    ("acquire/unpack", "has a header of"): "says what not to do: such an archive is left alone",
    ("base/cluster", "needs dask's distributed"): "an installation",
    ("ensemble", "<problem>"): "a member whose weights are off: another one is another file",
    ("inference/onnx_export", "<problem>"): "members that ONNX computes otherwise",
    ("inference/onnx_export", "needs {}"): "an installation",
    ("inference/tiled_inference", "are several, and a worker"): "GPUs and a cluster",
    ("inference/tiled_inference", "ended three workers"): "tests/test_cluster.py",
    ("inference/tiled_inference", "for members that are open on one"): "two GPUs",
    ("inference/tiled_inference", "sees another {}"): "two machines: tests/test_cluster.py",
    ("inference/window_store", "holds no parts of this run"): "two machines",
    ("judge/explanation", "too many to explain"): "a city of thousands of control points",
    ("mapping/conflation", "are none"): "mapping/conflation_files refuses such files before",
    ("networks/checkpoints", "is damaged"): "the cure is a training",
    ("networks/checkpoints", "<problem>"): "another timm",
    ("networks/encoder", "could not be had from timm's hub"): "a network",
    ("networks/encoder", "tensors that are not in the order"): "another release of a package",
    ("networks/encoder", "<e.problem>"): "a network",
    ("networks/member_header", "cannot be read"): "root, who tests here, may read all",
    ("networks/selim_sef_weights", "<problem>"): "not followed yet: a file that bears a wrong name",
    ("networks/vgg_features", "<e.problem>"): "a network",
    ("pipeline", "is for roads that were mended"): "tests/test_corrections.py gives --labels",
    ("raster", "is placed by a sensor's coefficients"): "gdalwarp is no part of the workspace",
    ("raster", "would become"): "tests/test_bad_input_data.py raises largest_read_gb",
    ("roads/run_files", "has no coordinate reference system"): "stage 05 has written it otherwise",
    ("roads/windowed_tracing", "ended three workers"): "tests/test_cluster.py",
    ("targets/reference_rules", "which is not installed"): "an installation",
    ("training/distributed", "want a GPU each"): "GPUs",
    ("training/lightning_stage", "holds nothing of the processes"): "points to messages",
    ("workflow/file_commands", "holds no .pth file"): "a network",
    ("workflow/notebook_runner", "differs from its notebook"): "tests/test_runner.py",
    ("workflow/notebook_runner", "failed in cell {}"): "points to the notebook's executed copy",
    ("workflow/renewal", "ended without {}"): "points to the notebook's executed copy",
    ("workflow/stage_scheduler", "<_last_line(failures[0].log)>"): "points to a log",
    ("workflow/stage_scheduler", "<_last_line(logs[i])>"): "points to a log",
    ("workflow/stage_scheduler", "ended three workers"): "points to a log",
    ("workflow/stage_table", "ended without writing"): "points to the notebook's executed copy",
}


def row(module: str, *problems: str, slow: bool = False) -> Callable:
    "Enter a function as the trial of some messages of a module."

    def enter(function: Callable) -> Callable:
        SLOW.update([function] * slow)
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
        if isinstance(n, ast.Call) and ast.unparse(n.func).rpartition(".")[2] in ERRORS
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
