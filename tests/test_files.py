"""Files that are whole or not there; what is said where they cannot be written; what is left after a kill."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medsegdiff_bundle import files
from medsegdiff_bundle.datalist import image_datalist
from medsegdiff_bundle.files import FullDiskError, WriteError, check_writable, whole_file, whole_files
from medsegdiff_bundle.journal import Journal, read_journal

ROOT = Path(__file__).parent.parent


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_whole_or_not_there(tmp_path):
    file = tmp_path / "new" / "a.nii.gz"
    with whole_file(file) as temporary:
        temporary.write_text("first")
        assert not file.exists() and temporary.name == file.name and names(file.parent)[0].startswith(".")
        assert not list(file.parent.glob("[!.]*"))
    with pytest.raises(KeyboardInterrupt), whole_file(file) as temporary:
        temporary.write_text("torn")
        raise KeyboardInterrupt
    assert names(file.parent) == ["a.nii.gz"] and file.read_text() == "first"


def test_all_files_or_none_the_header_last(tmp_path, monkeypatch):
    moved = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (moved.append(Path(new).name), replace(old, new)))
    with whole_files(tmp_path / "out") as folder:
        for name in ("a.hdr", "a.img"):
            (folder / name).touch()
    assert moved == ["a.img", "a.hdr"] and names(tmp_path / "out") == ["a.hdr", "a.img"]
    with pytest.raises(ZeroDivisionError), whole_files(tmp_path / "out") as folder:
        (folder / "b.hdr").touch()
        1 / 0  # noqa: B018
    assert names(tmp_path / "out") == ["a.hdr", "a.img"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("sync"), sync(number)))
    monkeypatch.setattr(os, "replace", lambda source, target: (order.append("name"), replace(source, target)))
    with whole_file(tmp_path / "a") as file:
        file.write_text("x")
    assert order == ["sync", "name", "sync"]  # the last one of the folder


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(number, tmp_path, monkeypatch):
    """Whether the writer tells it, or the system when it writes what was taken."""

    def full(*arguments):
        raise OSError(number, os.strerror(number))

    (tmp_path / "a").write_text("before")
    for inside in (True, False):
        if not inside:
            monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(FullDiskError, match="^'.*/a' cannot be written: there is no room left on the disk.$"):
            with whole_file(tmp_path / "a") as file:
                file.write_text("torn")
                if inside:
                    full()
        assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "before"


def test_a_library_that_says_something_else_of_a_full_disk(tmp_path, monkeypatch):
    def write():
        with whole_file(tmp_path / "a"):
            raise RuntimeError("unexpected pos 704 vs 598")  # so says torch.save

    with pytest.raises(RuntimeError, match="unexpected pos"):
        write()
    monkeypatch.setattr(files, "_is_full", lambda folder: True)
    with pytest.raises(FullDiskError, match="no room left"):
        write()


def test_a_file_too_large_for_its_system(tmp_path):
    """A real limit of the process, as PyTorch meets it."""
    code = (
        "import resource, signal, torch; from medsegdiff_bundle.files import whole_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with whole_file('a.pt') as file:\n"
        "    torch.save(torch.zeros(10000), file)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and names(tmp_path) == []


def test_what_is_no_matter_of_writing_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a"):
        (tmp_path.parent / "not there").read_text()
    with pytest.raises(WriteError, match="^'.*a' cannot be written: Is a directory."):
        (tmp_path / "a").mkdir()
        with whole_file(tmp_path / "a") as file:
            file.write_text("x")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "folder")
    assert names(tmp_path) == []  # nothing is made
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="^The results cannot be written to '.*file': it is a file, not a folder.$"):
        check_writable(tmp_path / "file")
    with pytest.raises(WriteError, match="written to '.*/file/below': '.*/file' is a file, not a folder.$"):
        check_writable(tmp_path / "file" / "below")

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".unfinished-x"))

    monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(WriteError, match="^'.*new' cannot be written: Permission denied.$"):
        check_writable(tmp_path / "new")


def test_a_killed_process_leaves_what_a_later_run_removes(tmp_path):
    code = (
        "import os, signal; from medsegdiff_bundle.files import whole_file\n"
        "with whole_file('a.nii') as file:\n"
        "    file.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".unfinished-") and names(left) == ["a.nii"]
    with pytest.raises(ValueError, match="no .*image"):
        image_datalist(tmp_path)
    check_writable(tmp_path)
    assert left.is_dir()  # it may be of a process that is at work
    old = time.time() - files.OLD - 1
    os.utime(left, (old, old))
    check_writable(tmp_path)
    assert names(tmp_path) == []


def test_a_journal(tmp_path):
    journal = Journal(tmp_path)
    journal.note("a", "a.nii", "failed", "It is none.")
    journal.note("b", "b.nii", "done")
    with (tmp_path / "journal.jsonl").open("a") as stream:
        stream.write('{"case": "c", "sta')  # and killed
    assert {case: entry["state"] for case, entry in read_journal(tmp_path).items()} == {"a": "failed", "b": "done"}
    Journal(tmp_path).note("a", "a.nii", "done")
    Journal(tmp_path, 1).note("d", "d.nii", "done")
    assert [line.count("{") for line in (tmp_path / "journal.jsonl").read_text().splitlines()] == [1, 1, 1]
    noted = read_journal(tmp_path)
    assert {case: entry["state"] for case, entry in noted.items()} == dict.fromkeys("abd", "done")
    assert "reason" not in noted["a"] and noted["a"]["file"] == "a.nii"


def test_weights_of_which_a_bit_flipped(tmp_path):
    """Every flip is refused, or changed nothing that is read."""
    from medsegdiff_bundle.weights import read_weights

    torch.manual_seed(0)
    path = tmp_path / "model.pt"
    weights = {"a": torch.randn(50), "b": torch.randn(5, 7)}
    torch.save(weights, path)
    content = path.read_bytes()
    refused = 0
    for place in torch.randint(8 * len(content), (300,)).tolist():
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = read_weights(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        assert found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)
    assert refused > 50
    torch.save({"a": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(ValueError, match="The weights '.*model.pt' are of no use: a holds NaN or infinite values."):
        read_weights(path)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no file system of the kernel")
def test_a_file_system_without_a_size_is_not_full():
    with pytest.raises(WriteError, match="^'/proc/nothing/a.txt' cannot be written: No such file or directory.$"):
        with whole_file("/proc/nothing/a.txt") as file:
            file.write_text("x")
    with pytest.raises(WriteError, match="cannot be written: No such file or directory.$"):
        check_writable("/proc/nothing")
