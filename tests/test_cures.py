"Whoever follows the cure that a message names succeeds; no message is without its trial."

from collections.abc import Callable

import pytest

pytest.register_assert_rewrite(
    "cures_readers", "cures_acquire", "cures_base", "cures_graphs", "cures_stages"
)

import cures_acquire  # noqa: E402, F401
import cures_base  # noqa: E402, F401
import cures_commands  # noqa: E402, F401
import cures_graphs  # noqa: E402, F401
import cures_mended  # noqa: E402, F401
import cures_readers  # noqa: E402, F401
import cures_stages  # noqa: E402, F401
from cures import ROWS, SLOW, idle, modules, untried  # noqa: E402

from spacenet5_nb.core import WorkspaceError  # noqa: E402

FUNCTIONS = [
    pytest.param(f, marks=[pytest.mark.slow] * (f in SLOW)) for f in dict.fromkeys(ROWS.values())
]


def words_of(function: Callable) -> str:
    "A short name of a row."
    found = [f"{m}: {problem}" for (m, problem), f in ROWS.items() if f is function]
    return "; ".join(found)[:60]


@pytest.mark.parametrize("function", FUNCTIONS, ids=words_of)
def test_who_follows_a_cure_succeeds(function, tmp_path, monkeypatch):
    refused = []

    def fails(run: Callable) -> str:
        with pytest.raises(WorkspaceError) as e:
            run()
        assert e.value.cure, "an error names its cure"
        refused.append(e.value.problem)
        return e.value.cure

    wanted = function.__code__.co_varnames[: function.__code__.co_argcount]
    function(tmp_path, fails, *[monkeypatch] * (len(wanted) > 2))
    assert refused


@pytest.mark.parametrize("module", modules())
def test_every_message_has_its_trial(module):
    assert not untried(module), "a cure that nobody tried: add a row, or a reason to ELSEWHERE"
    assert not idle(module), "a row without its message"
