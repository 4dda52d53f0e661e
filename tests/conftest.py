"Fixtures that several test files share."
import os
from pathlib import Path

import pytest
from hypothesis import settings


@pytest.fixture(scope="session")
def shared() -> Path:
    "The folder of real samples and reference results; tests that need it are skipped where it is absent."
    path = Path(os.environ.get("SPACENET5_SHARED") or Path(__file__).resolve().parents[1]/"../shared").resolve()
    if not path.is_dir(): pytest.skip(f"no shared data at {path}; set SPACENET5_SHARED")
    return path


# a change is judged by the same examples each time; new ones are found on developers' machines
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"): settings.load_profile("ci")
