"""Kill the program while it writes, again and again, and count what is lost.

Children segment a folder of three small volumes, or train for a few steps, with a tiny network. Each is killed
(SIGKILL) at a moment at which a file is in the making, and its folder is looked through: every file under its own name
must be whole. Then the same is run to its end: masks, or weights, must be those of a run that nothing disturbed, bit
for bit. Trainings are also told to stop (SIGTERM) at any moment. Last, one bit of a file of weights is flipped at a
time: that must be refused, or change nothing. Linux alone; `--small_disk` is a folder on a disk of 100 kB:

    mkdir small && sudo mount -t tmpfs -o size=100k tmpfs small
    python scripts/kill_trials.py --trials 50 --small_disk small
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import torch
from PIL import Image

import medsegdiff_bundle
from medsegdiff_bundle import configuration
from medsegdiff_bundle.evaluation.of_networks import ROOT
from medsegdiff_bundle.files import UNFINISHED
from medsegdiff_bundle.handlers.training_checkpoint import checkpoints
from medsegdiff_bundle.weights import read_state, read_weights

NETWORK = {"network_def#channels": [4, 8, 8], "network_def#num_heads": 2, "network_def#token_size": 8}
PROCESSES = multiprocessing.get_context("fork")


def write_images(folder: Path) -> Path:
    """Weights of a tiny network, and beside them a folder of three volumes."""
    parser = configuration.load([ROOT / "configs" / "inference.json"], {**NETWORK, "bundle_root": str(ROOT)})
    torch.manual_seed(1)
    weights = folder / "weights.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), weights)
    (folder / "images").mkdir()
    for number in range(3):
        values = np.random.default_rng(number).random((24, 24, 24), dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / "images" / f"case_{number}.nii.gz")
    return weights


def write_cases(folder: Path) -> Path:
    """Five embedded cases, three of them for training."""
    source = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
    content = json.loads((source / "dataset.json").read_text())
    content["training"], content["validation"] = content["training"][:3], content["validation"][:2]
    (folder / "cases").mkdir()
    (folder / "cases" / "dataset.json").write_text(json.dumps(content))
    for part in ("imagesTr", "labelsTr"):
        (folder / "cases" / part).symlink_to(source / part)
    return folder / "cases"


def silent(function: Callable[..., Any], **arguments: Any) -> None:
    """Call in a child, without a word, and end it: 0, 1 after an error, 143 if it was told to stop."""
    logging.disable(logging.CRITICAL)
    code = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            function(**arguments)
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            code = 1
    os._exit(code)


def segment(folder: Path, out: Path, overwrite: bool = False) -> None:
    """Segment the folder of images."""
    settings = {**NETWORK, "checkpoint": folder / "weights.pt", "ensemble_size": 1, "device": "cpu"}
    medsegdiff_bundle.segment(folder / "images", output_dir=out, overwrite=overwrite, **settings)


def train(folder: Path, out: Path) -> None:
    """Train for three epochs, or go on with that."""
    monai.bundle.run(
        run_id="training",
        config_file=str(ROOT / "configs" / "train.json"),
        meta_file=str(ROOT / "configs" / "metadata.json"),
        logging_file=False,
        **{**NETWORK, "bundle_root": str(ROOT), "dataset_dir": str(folder / "cases"), "output_dir": str(out)},
        **{"patch_size": [16, 16, 16], "device": "cpu", "epochs": 3, "val_interval": 1, "batch_size": 1},
        **{"num_inference_steps": 1, "ensemble_size": 1, "resume": "auto"},
    )


def child(function: Callable[..., Any], **arguments: Any) -> Any:
    """A started child."""
    process = PROCESSES.Process(target=silent, args=(function,), kwargs=arguments)
    process.start()
    return process


def in_the_making(out: Path) -> bool:
    """Whether a file of a folder is being written now."""
    with contextlib.suppress(OSError):
        return any(name.startswith(UNFINISHED) for name in os.listdir(out))
    return False


def kill_while_writing(process: Any, out: Path, chance: random.Random) -> bool:
    """Kill a child at the n-th file that it writes, a moment after it began; whether it was at that."""
    nth, seen, before = chance.randrange(1, 14), 0, False
    delay = chance.random() ** 2 * 0.01
    while process.is_alive():
        now = in_the_making(out)
        seen += now and not before
        before = now
        if seen >= nth and now:
            time.sleep(delay)
            break
        time.sleep(0.0001)
    process.kill()
    process.join()
    return in_the_making(out)


def torn(out: Path) -> list[str]:
    """Files of a folder that are not whole, of those that have their own name."""
    found = []
    for file in [file for file in out.iterdir() if file.is_file() and not file.name.startswith(".")]:
        try:
            if file.name.endswith(".nii.gz"):
                np.asarray(nibabel.load(file).dataobj)
            elif file.suffix == ".png":
                Image.open(file).load()
            elif file.suffix == ".json":
                json.loads(file.read_text())
            elif file.suffix == ".html":
                assert file.read_text().endswith("</html>\n")
            elif file.suffix in (".pt", ".ckpt"):
                read_state(file)
        except Exception:  # whatever a reader says of half a file
            found.append(file.name)
    return found


def masks(out: Path) -> dict[str, bytes]:
    """Values of the masks of a folder."""
    return {file.name: np.asarray(nibabel.load(file).dataobj).tobytes() for file in out.glob("*_seg.nii.gz")}


def state(out: Path) -> bytes:
    """Weights, their average and the optimizer's state at the end of a training, without the time that it took."""
    content = read_state(checkpoints(out)[0])
    buffer = io.BytesIO()
    torch.save({name: content[name] for name in ("network", "ema_network", "optimizer", "iteration")}, buffer)
    return buffer.getvalue()


def trials(
    function: Callable[..., Any], result: Callable[[Path], Any], folder: Path, number: int, chance: random.Random
) -> list[int]:
    """Killed while writing, files torn, results lost or other than those of an undisturbed run."""
    whole = folder / f"whole {function.__name__}"
    child(function, folder=folder, out=whole).join()
    expected, counts = result(whole), [0, 0, 0]
    for trial in range(number):
        out = folder / f"{function.__name__} {trial}"
        counts[0] += kill_while_writing(child(function, folder=folder, out=out), out, chance)
        counts[1] += len(torn(out)) if out.is_dir() else 0
        again = child(function, folder=folder, out=out)
        again.join()
        counts[2] += again.exitcode != 0 or result(out) != expected
        shutil.rmtree(out)
    return counts


def stops(folder: Path, number: int, chance: random.Random) -> list[int]:
    """Trainings that SIGTERM met, those of them that did not end with 143, and other ends than that of a whole one."""
    whole = folder / "whole train"
    begin = time.monotonic()
    child(train, folder=folder, out=folder / "timed").join()
    length, counts = time.monotonic() - begin, [0, 0, 0]
    for trial in range(number):
        out = folder / f"stop {trial}"
        process = child(train, folder=folder, out=out)
        time.sleep(chance.uniform(0.2, 0.9) * length)
        if process.is_alive() and (out / "tensorboard").is_dir():  # which is made where the training begins
            time.sleep(0.2)
            os.kill(process.pid, signal.SIGTERM)
            process.join()
            counts[0] += process.exitcode != 0
            counts[1] += process.exitcode not in (0, 143)
        process.join()
        child(train, folder=folder, out=out).join()
        counts[2] += state(out) != state(whole)
        shutil.rmtree(out)
    return counts


def flips(weights: Path, number: int, chance: random.Random) -> tuple[int, int]:
    """Files with a flipped bit that were refused, and those that were taken with other weights."""
    expected, content = read_weights(weights), weights.read_bytes()
    refused = taken = 0
    for _ in range(number):
        place = chance.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        file = weights.with_name("flipped.pt")
        file.write_bytes(flipped)
        try:
            found = read_weights(file)
        except ValueError:
            refused += 1
            continue
        same = found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
        taken += not same
    return refused, taken


def fill(folder: Path, disk: Path) -> str:
    """What a run says on a disk that is too small for it, and what it leaves there."""
    logging.disable(logging.CRITICAL)
    said = []
    for function in (segment, train):
        out = disk / function.__name__
        try:
            function(folder=folder, out=out)
            said.append("nothing")
        except Exception as error:
            while error.__cause__ is not None and not isinstance(error, ValueError):
                error = error.__cause__  # type: ignore[assignment]
            said.append(f"{str(error)!r}")
        left = [name for name in os.listdir(out) if name.startswith(".")] if out.is_dir() else []
        said[-1] += f", torn: {len(torn(out)) if out.is_dir() else 0}, unfinished: {len(left)}"
        shutil.rmtree(out, ignore_errors=True)
    return "; ".join(said)


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="of each kind")
    parser.add_argument("--small_disk", type=Path, help="folder on a disk that is too small")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = write_images(folder)
        write_cases(folder)
        print("| killed | trials | while a file was written | torn files | another result after the next run |")
        print("|---|---|---|---|---|")
        for function, result in ((segment, masks), (train, state)):
            counts = trials(function, result, folder, options.trials, chance)
            print(f"| {function.__name__} | {options.trials} | {' | '.join(map(str, counts))} |", flush=True)
        met, wrong, other = stops(folder, options.trials, chance)
        print(f"\nSIGTERM met {met} trainings: {wrong} ended otherwise than with 143, {other} resumed to another end")
        number = 10 * options.trials
        refused, taken = flips(weights, number, chance)
        print(f"One bit flipped in {number} files of weights: {refused} refused, {taken} taken with other weights")
        if options.small_disk is not None:
            print(f"A full disk: {fill(folder, options.small_disk)}")


if __name__ == "__main__":
    main()
