r"""Whether the suite passes with the oldest releases that `pyproject.toml` allows, or with those that are named.

Makes a virtual environment in a folder. Each package that the project or one of its extras needs has there the release
that is its lower bound; the tools of the tests and of the site are the newest. Runs the suite with one process, and
prints a Markdown table of one line with the releases and what passed, as `docs/versions.md` has it. The environment
stays, so that a second run takes no downloads. The wheels of PyTorch for Linux are those for CUDA, of five gigabytes
with what they need. Example:

    python scripts/oldest_versions.py --python python3.10 --folder /tmp/oldest
    python scripts/oldest_versions.py --python python3.13 --folder /tmp/newest --releases torch==2.13.0 monai==1.6.1
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from medsegdiff_bundle.settings import bundle_root

ROOT = bundle_root()
LISTED = ("torch", "monai", "numpy", "nibabel", "SimpleITK", "pytorch-ignite", "pydicom")
BOUND = re.compile(r'"([A-Za-z][\w.-]*)>=([\w.]+)"')
TOOLS = ("docs", "test")  # extras that no code of the package imports


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment (default: this one)")
    parser.add_argument("--folder", required=True, type=Path, help="of the environment, and of the suite's log")
    parser.add_argument("--releases", nargs="+", metavar="NAME==RELEASE", help="in the place of the lower bounds")
    parser.add_argument("--tests", nargs="+", default=[], metavar="PATH", help="of tests (default: all)")
    return parser.parse_args()


def needs(project: str) -> dict[str, list[tuple[str, str]]]:
    """Packages and lower bounds under `dependencies` and each extra of the text of `pyproject.toml`."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in project.partition("\n[project]\n")[2].partition("\n[tool.")[0].splitlines():
        if begun := re.match(r"(\w+) = \[", line):
            listed = found.setdefault(begun[1], [])
        if bounds := BOUND.findall(line.partition("  #")[0]):
            listed += bounds
    return found


def lower_bounds(project: str) -> list[str]:
    """What the package and its extras need at its lower bounds, as pip's constraints."""
    bounds = (pair for name, pairs in needs(project).items() if name not in TOOLS for pair in pairs)
    return [f"{name}=={release}" for name, release in bounds]


def environment(python: str, folder: Path, releases: list[str]) -> Path:
    """The interpreter of a virtual environment with the project and its tests.

    All packages are named to pip at once: it finds no end where it gets them from the project's extras.
    """
    made = folder / "environment" / "bin" / "python"
    constraints = folder / "constraints.txt"
    constraints.parent.mkdir(parents=True, exist_ok=True)
    constraints.write_text("\n".join(releases) + "\n")
    if not made.is_file():
        subprocess.run([python, "-m", "venv", str(folder / "environment")], check=True)
    install = [str(made), "-m", "pip", "install", "-qq"]
    wanted = [
        f"{name}>={bound}" for pairs in needs((ROOT / "pyproject.toml").read_text()).values() for name, bound in pairs
    ]
    subprocess.run([*install, "--upgrade", "pip"], check=True)
    subprocess.run([*install, "--constraint", str(constraints), *wanted], check=True)
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], check=True)
    return made


def releases_of(python: Path) -> list[str]:
    """Releases of Python and of what is `LISTED` that an environment has."""
    names = ", ".join(map(repr, LISTED))
    code = "import platform, importlib.metadata as m\n"
    code += f"print(platform.python_version(), *[m.version(name) for name in [{names}]])"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.split()


def main() -> int:
    """Run the suite and print the line."""
    options = arguments()
    releases = options.releases or lower_bounds((ROOT / "pyproject.toml").read_text())
    python = environment(options.python, options.folder.absolute(), releases)
    suite = [str(python), "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *options.tests]
    paths = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    with (options.folder / "suite.log").open("w") as log:
        done = subprocess.run(suite, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PATH": paths})
    lines = (options.folder / "suite.log").read_text().splitlines()
    passed = next((line.strip("= ") for line in reversed(lines) if " passed" in line), "no test passed")
    print(f"| Python | {' | '.join(LISTED)} | suite |\n{'|---' * (len(LISTED) + 2)}|")
    print(f"| {' | '.join([*releases_of(python), passed])} |")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
