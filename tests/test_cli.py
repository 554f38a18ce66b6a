"""The command line: its words, its help, what it refuses, and how quickly."""

import subprocess
import sys
from pathlib import Path

import pytest

import medsegdiff_bundle
from medsegdiff_bundle import cli

ROOT = Path(__file__).parent.parent


def printed(capsys, *words):
    """Status, standard output and error of a command."""
    try:
        status = cli.main([str(word) for word in words])
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_list_of_commands(capsys):
    status, out, _ = printed(capsys, "--help")
    assert status == 0
    for name in cli.COMMANDS:
        assert f"    {name} " in out and cli.command(name).HELP.split()[0] in out
    assert printed(capsys, "--version") == (0, f"medsegdiff {medsegdiff_bundle.__version__}\n", "")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command(name, capsys):
    """Two examples at least, every option explained, and defaults as values, not as names of the program's."""
    status, out, _ = printed(capsys, name, "--help")
    assert status == 0
    examples = out.split("examples:\n")[1].splitlines()
    assert len(examples) >= 2 and all(line.startswith(f"  medsegdiff {name} ") for line in examples)
    assert "default: @" not in out and "default: $" not in out and "default: None" not in out
    for action in _actions(name):
        assert action.help, action


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_examples_are_right(name):
    """Each is one that the parser takes, with settings that there are."""
    from medsegdiff_bundle.cli import options

    for words in cli.command(name).EXAMPLES:
        known, others = cli.argument_parser().parse_known_args([name, *words.replace('"', "").split()])
        options.take_settings(known, others)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["segmnt"], "There is no command 'segmnt': did you mean 'segment'?"),
        (["segment"], "The following arguments are required: image, -o/--output"),
        (["segment", ".", "-o", "x", "--member", "2"], "There is no setting '--member': did you mean '--members'?"),
        (
            ["segment", ".", "-o", "x", "--set", "roi_sise=3"],
            "There is no setting 'roi_sise': did you mean 'roi_size'?",
        ),
        (["segment", ".", "-o", "x", "--set", "roi_size"], "--set takes NAME=VALUE, got 'roi_size'."),
        (["segment", ".", "-o", "x", "--set", "seed=1", "--seed", "1"], "seed is given twice."),
        (["segment", ".", "-o", "x", "--set", "fusion=best"], "fusion must be one of staple, mean, vote, dice"),
        (["segment", ".", "-o", "x", "-s", "0"], "num_inference_steps must be a whole number of at least 1, got 0."),
        (["segment", ".", "other", "-o", "x"], "What is 'other'?"),
        (["info", "-x", "3"], "There is no option '-x'."),
        (["info", "--jsn"], "There is no option '--jsn': did you mean '--json'?"),
        (["train", "none"], "There is no data set or file of settings 'none'."),
        (["segment", "none.nii", "-o", "x"], "There is no image file or folder 'none.nii'."),
        (["segment", ".", "-o", "x", "-q", "-v"], "not allowed with argument"),
    ],
)
def test_asked_wrongly(words, said, capsys, tmp_path, monkeypatch):
    """One sentence, status 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    status, out, err = printed(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ") and said in err
    assert not list(tmp_path.iterdir())


def test_completion_of_shells(capsys):
    status, out, _ = printed(capsys, "--completion", "bash")
    assert status == 0 and "complete -" in out and all(name in out for name in cli.COMMANDS)


def test_help_and_wrong_words_import_no_torch():
    words = [["--help"], *([name, "--help"] for name in cli.COMMANDS), ["segment", ".", "-o", "x", "--epoch", "2"]]
    words += [["evaluate", "none", "none"], ["evaluate", "--data", ".", "--task", "none"], ["train", "none"]]
    words += [["sweep", "none", "-s", "0"], ["compare", "none", "none", "none"], ["export", "-o", "x", "-s", "0"]]
    code = f"""
import contextlib, io, sys
from medsegdiff_bundle import cli
for words in {words!r}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(words) == 2
print(sorted({{"torch", "monai", "nibabel"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


def _actions(name):
    (subparsers,) = (action for action in cli.argument_parser()._actions if action.choices and name in action.choices)
    return subparsers.choices[name]._actions
