"""The command line: its words, its help, what it refuses, and how quickly."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

import medsegdiff_bundle
from medsegdiff_bundle import cli
from medsegdiff_bundle.cli import options

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
        assert f"    {name} " in out and cli.COMMANDS[name].split()[0] in out
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
        (["train", ".", "-o", ""], "output is empty."),
        (["train", ".", "--config", "recipes/papr"], "no configuration file 'recipes/papr': did you mean 'recipes/pa"),
        (["segment", "", "-o", "x"], "image is empty."),
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


def taken(words):
    """What a command is given, after all words are read."""
    name, *others = words.split()
    parser = cli.argument_parser()
    known, rest = parser.parse_known_args([name, *options.by_name(others, cli.parser_of(parser, name))])
    options.take_settings(known, rest)
    return known


@pytest.mark.parametrize(
    ("words", "argument", "given"),
    [
        ("segment --roi_size 96 scan.nii.gz -o r", {"image": "scan.nii.gz"}, {"roi_size": 96}),
        ("segment scan.nii.gz --roi-size=96 -o r", {"image": "scan.nii.gz"}, {"roi_size": 96}),
        ("train --roi_size 96 data", {"data": "data"}, {"roi_size": 96}),
        ("train --network_def#channels [16,32] data", {"data": "data"}, {"network_def#channels": [16, 32]}),
        ("evaluate --data D --ensemble_size 3", {"data": "D", "predictions": None}, {"ensemble_size": 3}),
        ("sweep --task isic --ensemble_size 5", {"data": None, "task": "isic"}, {"ensemble_size": 5}),
        ("train data --resume", {"resume": True}, {}),
        ("train --resume data", {"data": "data", "resume": True}, {}),
        ("train --resume 1", {"data": "1", "resume": True}, {}),
        ("train --resume True data", {"data": "data", "resume": None}, {"resume": True}),
        ("train data --resume auto", {"resume": None}, {"resume": "auto"}),
        ("train data --overwrite=true", {"overwrite": None}, {"overwrite": "true"}),
        ("train --overwrite data", {"data": "data", "overwrite": True}, {}),
        ("segment a -o r --set overwrite=true", {"overwrite": True}, {}),
        ("segment --overwrite false a -o r", {"image": "a", "overwrite": False}, {}),
        ("train data --set debug=true", {"debug": True}, {}),
        ("segment a -o r --strict", {"image": "a"}, {"strict": "true"}),
        ("segment a --strict -o r", {"image": "a"}, {"strict": "true"}),
        ("segment a -o r --strict false", {"image": "a"}, {"strict": "false"}),
        ("segment a -o r --mirror-members --amp false", {"image": "a"}, {"mirror_members": "true", "amp": "false"}),
    ],
)
def test_settings_by_their_names(words, argument, given):
    """Before, after and without the arguments, none of which is taken for a value, nor the other way round."""
    known = taken(words)
    assert {name: getattr(known, name) for name in argument} == argument
    assert known.settings == given


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("segment --roi_size", "image, -o/--output"),
        ("segment a --roi_size -o r", "roi_size needs a value"),
        ("segment a -o r --set overwrite=true --overwrite", "overwrite is given twice"),
        ("train a --resume auto --resume", "resume is given twice"),
        ("segment a -o r --overwrite --overwrite maybe", "What is 'maybe'"),
    ],
)
def test_settings_that_lack_a_value_or_are_given_twice(words, said, capsys):
    status, _, err = printed(capsys, *words.split())
    assert status == 2 and said in err


def test_completion_of_shells(capsys):
    status, out, _ = printed(capsys, "--completion", "bash")
    assert status == 0 and "complete -" in out and all(name in out for name in cli.COMMANDS)


def test_a_run_that_is_interrupted(capsys, monkeypatch):
    """By Ctrl-C: no traceback, and the status of shells for it."""

    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.command("info"), "run", interrupt)
    assert printed(capsys, "info") == (130, "", "interrupted\n")


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_that_nobody_expected(debug, capsys, monkeypatch):
    """Its kind in a sentence; where it was raised is shown by --debug."""

    def fail(options):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(cli.command("info"), "run", fail)
    status, out, err = printed(capsys, "info", *["--debug"][:debug])
    assert (status, out) == (1, "") and "error: ZeroDivisionError: by nothing" in err
    assert ("Traceback" in err) is debug and ("(--debug shows where)" in err) is not debug


def test_completion_without_its_package(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    status, _, err = printed(capsys, "--completion", "bash")
    assert status == 2 and "--completion needs the package shtab: pip install 'medsegdiff-bundle[completion]'." in err


def test_the_export_without_its_packages(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = printed(capsys, "export", "-o", str(tmp_path / "out"))
    assert (status, err) == (2, "error: The export needs packages: pip install -e '.[export]'.\n")
    assert not (tmp_path / "out").exists()


def test_labels_that_are_missing(capsys):
    status, out, err = printed(capsys, "compare", "gone", ".", "-o", "x")
    assert (status, out, err) == (2, "", "error: There is no folder of labels 'gone'.\n")


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


def test_the_list_of_commands_imports_none_of_them():
    code = (
        "import contextlib, sys\nfrom medsegdiff_bundle import cli\n"
        "with contextlib.suppress(SystemExit):\n    cli.main(['--help'])\n"
        "print(sorted(set(sys.modules) & {f'medsegdiff_bundle.cli.{name}' for name in cli.COMMANDS}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "work"),
    [
        (["check", "SET", "-o", "FILE/faults.csv"], "medsegdiff_bundle.planning.check_data_set"),
        (["configure", "SET", "-o", "FILE/mine.json"], "medsegdiff_bundle.planning.configure.configure"),
        (["evaluate", "LABELS", "LABELS", "-o", "FILE/scores"], "medsegdiff_bundle.cli.evaluate.score_folder"),
        (["compare", "LABELS", "a=LABELS", "b=LABELS", "-o", "FILE"], "medsegdiff_bundle.cli.compare.score_folder"),
        (["sweep", "SET", "--csv", "FILE/cases.csv"], "medsegdiff_bundle.evaluation.of_networks.load_task"),
    ],
)
def test_a_place_that_takes_no_results_is_said_before_the_work(words, work, tmp_path, monkeypatch, capsys):
    def unexpected(*arguments, **named):
        raise AssertionError("work of hours")

    monkeypatch.setattr(work, unexpected)
    (tmp_path / "file").write_text("")
    data = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
    places = {"SET": data, "LABELS": data / "labelsTr", "FILE": tmp_path / "file"}
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    status, _, err = printed(capsys, *words)
    assert status == 2 and "cannot be written" in err and "a file, not a folder" in err


@pytest.mark.parametrize(
    ("words", "work"),
    [
        (["calibrate", "SET", "-c", "WEIGHTS"], "medsegdiff_bundle.evaluation.of_networks.load_files"),
        (["clean", "LABELS", "LABELS", "-c", "WEIGHTS"], "medsegdiff_bundle.evaluation.cleaning.choose_cleaning"),
    ],
)
def test_weights_that_nothing_can_be_written_beside_are_said_before_the_work(words, work, monkeypatch, capsys):
    def unexpected(*arguments, **named):
        raise AssertionError("work of hours")

    def refuse(dir, **named):
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr(work, unexpected)
    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    data = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
    places = {"SET": data, "LABELS": data / "labelsTr", "WEIGHTS": ROOT / "models" / "model.pt"}
    status, _, err = printed(capsys, *(places.get(word, word) for word in words))
    assert status == 2 and err == f"error: {str(ROOT / 'models')!r} cannot be written: Read-only file system.\n"
