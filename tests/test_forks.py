"""Commands in forks end as those of processes do."""

import os
import subprocess
import sys
from pathlib import Path

import forks
import pytest

ROOT = Path(__file__).parent.parent


def test_it_is_the_package_of_this_folder(tmp_path):
    code = "import sys; print('monai' in sys.modules, 'medsegdiff_bundle.workflow' in sys.modules); import os\n"
    code += "import medsegdiff_bundle; print(medsegdiff_bundle.__file__, os.getcwd(), sys.argv, os.environ['A'])"
    done = forks.run([sys.executable, "-c", code, "b"], cwd=tmp_path, env={"A": "1"}, check=True)
    package = ROOT / "medsegdiff_bundle" / "__init__.py"
    assert done.stdout == f"True True\n{package} {tmp_path} ['-c', 'b'] 1\n" and done.stderr == ""


@pytest.mark.parametrize(
    "code",
    [
        "1 / 0",
        "raise SystemExit('no')",
        "raise SystemExit(3)",
        "import sys; sys.exit()",
        "import os; os.kill(os.getpid(), 9)",
    ],
)
@pytest.mark.parametrize("way", ["-c", "file", "-m"])
def test_the_end_of_a_process(way, code, tmp_path):
    (tmp_path / "program.py").write_text(f"import sys\nprint(sys.argv[1:], flush=True)\n{code}\n")
    words = {"-c": ["-c", (tmp_path / "program.py").read_text()], "file": ["program.py"], "-m": ["-m", "program"]}[way]
    command = [sys.executable, "-W", "ignore", *words, "--of", "it"]
    expected = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = forks.run(command, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    assert found.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_one_that_fails_ends_the_others(tmp_path):
    code = "import os, time; print(os.environ['RANK'], flush=True); time.sleep(600 * int(os.environ['RANK'])); 1 / 0"
    done = forks.run_together([sys.executable, "-c", code], [{**os.environ, "RANK": str(rank)} for rank in range(2)])
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    with pytest.raises(subprocess.TimeoutExpired):
        forks.run_together([sys.executable, "-c", "import time; time.sleep(600)"], [os.environ], timeout=0.5)
    with pytest.raises(subprocess.CalledProcessError):
        forks.run([sys.executable, "-c", "1 / 0"], check=True)
