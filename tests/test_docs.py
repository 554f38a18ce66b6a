"""The pages: links lead somewhere, commands are right, and what is made from other files is as they are."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import make_docs
import pytest
import run_results

from medsegdiff_bundle import cli, settings
from medsegdiff_bundle.cli import options
from medsegdiff_bundle.meanings import MEANINGS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")])
NOW = [page for page in PAGES if page.parent.name != "runs"]  # the diary keeps the words of its time
THEIRS = tuple(f"scripts/segmentation_{name}.py" for name in ("train", "sample", "env"))  # of others
IDS = {"ids": lambda page: page.relative_to(ROOT).as_posix() if isinstance(page, Path) else None}


def blocks(page, language=""):
    """Blocks of code of a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)


def prose(page):
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands(page):
    """Commands of a page, in blocks and in the text, one a line."""
    lines = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose(page))]
    return [part.strip() for line in lines for part in re.split(r"&&|\|(?=\s)|;(?=\s)", line.split(" # ")[0])]


@pytest.mark.parametrize("page", PAGES, **IDS)
def test_links(page):
    text = prose(page)
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", text):
        path, _, anchor = link.partition("#")
        if path.startswith(("http:", "https:", "mailto:")):
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{link} in {page.name}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, link


@pytest.mark.parametrize("page", NOW, **IDS)
def test_no_number_is_left_out(page):
    """A word that stands for a number until it is measured."""
    assert not re.findall(r"\b(?:PARTS|TODO|TBD|FIXME|XXX|N\.NNN+)\b", prose(page))


@pytest.mark.parametrize("page", NOW, **IDS)
def test_files_that_are_named(page):
    for name in re.findall(r"`((?:docs|configs|scripts|models|tests|medsegdiff_bundle)/[\w./-]+)`", page.read_text()):
        found = [base / name for base in (ROOT, page.parent)]
        made = "models" in name and name.endswith((".ts", "model.pt"))
        assert made or name in THEIRS or any(path.exists() for path in found), name


@pytest.mark.parametrize("page", NOW, **IDS)
def test_commands_of_medsegdiff(page):
    """Each is one that its parser takes, with settings that there are."""
    for command in commands(page):
        words = re.sub(r"^(\.venv/bin/)?(python -m )?", "", command)
        if not re.match(r"medsegdiff(_bundle)? [a-z]+ \S", words) or "--help" in words:
            continue
        name, *arguments = shlex.split(words)[1:]
        known, others = cli.argument_parser().parse_known_args([name, *arguments])
        options.take_settings(known, others)


@pytest.mark.parametrize("page", NOW, **IDS)
def test_commands_of_the_runner_and_scripts(page):
    known = {name for content in settings.bundle_files(ROOT) for name in content} | {"config_file", "help"}
    for command in commands(page):
        if (found := re.search(r"python (scripts/\w+\.py)", command)) and found[1] not in THEIRS:
            assert (ROOT / found[1]).is_file(), command
        if "monai.bundle run" not in command or "bundles/" in command:
            continue
        for file in re.findall(r"configs/[\w/]+\.json", command):
            assert (ROOT / file).is_file(), command
        for name in re.findall(r"--([\w#]+)", command.split("monai.bundle run")[1]):
            assert name.split("#")[0] in known, command


@pytest.mark.parametrize("page", PAGES, **IDS)
def test_lines_can_be_read(page):
    """Without the tables, and the README's commands, which are one line each for who copies them."""
    for line in prose(page).splitlines():
        assert line.startswith("|") or len(line) <= 150, line


@pytest.mark.parametrize("page", ["README.md", "docs/README.md", "docs/api.md"])
def test_code_of_python(page):
    """It compiles, and runs where it needs no file."""
    for code in blocks(ROOT / page, "python"):
        compiled = compile(code, page, "exec")
        if "scan.nii.gz" not in code and "pictures" not in code:
            exec(compiled, {})


@pytest.mark.parametrize("name", ["settings.md", "changelog.md"])
def test_pages_that_are_made(name):
    made = make_docs.PAGES[name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made, "run: python scripts/make_docs.py"


def test_every_setting_has_a_meaning():
    assert set(settings.KINDS) == set(MEANINGS)
    files = {name for content in settings.bundle_files(ROOT) for name in content}
    inner = {"eta"}  # of a scheduler
    assert set(MEANINGS) - inner <= files


def test_the_numbers_of_the_diary():
    assert (run_results.RUNS / "results.csv").read_text(encoding="utf-8") == run_results.content(), (
        "python scripts/run_results.py"
    )
    index = (run_results.RUNS / "README.md").read_text()
    assert all(f"({page.name})" in index for page in run_results.RUNS.glob("*.md") if page.name != "README.md")


def test_numbers_of_the_results_are_in_the_diary_or_a_card():
    """Each decimal number of the page stands on a page that it names."""
    page = ROOT / "docs" / "results.md"
    text = page.read_text(encoding="utf-8")
    named = {(page.parent / link).resolve() for link in re.findall(r"\]\(\s*([\w./]+\.md)\)", text)}
    told = "\n".join(file.read_text(encoding="utf-8") for file in named)
    for number in set(re.findall(r"\d+\.\d+", text)):
        assert number in told, number


def test_the_citation():
    text = (ROOT / "CITATION.cff").read_text()
    for key in ("cff-version: 1.2.0", "message:", "title:", "authors:", "license: Apache-2.0"):
        assert re.search(rf"^{re.escape(key)}", text, re.M), key
    assert not re.search(r"^version:", text, re.M)  # which would go stale


@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="needs the extra docs")
def test_the_site(tmp_path):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "MedSegDiff-V2 for MONAI" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "runs" / "results.csv").is_file() and (tmp_path / "card_hippocampus" / "index.html").is_file()
