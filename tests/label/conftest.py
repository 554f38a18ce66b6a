"""The real MONAI Label server, set up as docs/monai_label.md says, in an environment and in folders of its own."""

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import requests
import torch
from monai.bundle import ConfigParser

import medsegdiff_bundle

ROOT = Path(medsegdiff_bundle.__file__).parent.parent
SAMPLE_DATA = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
ENVIRONMENT = ROOT / ".venv-label"
READY_WITHIN = 300  # seconds


def guide_commands(heading):
    """The first block of commands below a heading of the guide."""
    section = (ROOT / "docs" / "monai_label.md").read_text().split(f"\n## {heading}\n")[1]
    return re.search(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(scope="session")
def label_python():
    """Python of the guide's environment, which is made again only when what it is made from has changed."""
    commands = guide_commands("1. Install")
    digest = hashlib.sha256((commands + sys.version).encode())
    for name in ("constraints.txt", "scripts/monai_label/requirements.txt"):
        digest.update((ROOT / name).read_bytes())
    stamp = ENVIRONMENT / "made_from"
    if not stamp.is_file() or stamp.read_text() != digest.hexdigest():
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        subprocess.run(["bash", "-e", "-c", commands], cwd=ROOT, check=True)
        stamp.write_text(digest.hexdigest())
    return ENVIRONMENT / "bin" / "python"


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """Folder with the unpacked packages of two tasks; the weights for skin lesions are random."""
    folder = tmp_path_factory.mktemp("packages")
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in ("inference.json", "tasks/isic.json")])
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "random.pt")
    for options in (["hippocampus"], ["isic", "--weights", str(folder / "random.pt")]):
        command = [sys.executable, "scripts/package.py", "--output", str(folder), "--task", *options]
        printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        zipfile.ZipFile(printed.split()[-1]).extractall(folder)
    return folder


class LabelServer:
    """Calls of a running server; one that fails shows the end of the server's log."""

    def __init__(self, url, log):
        self.url = url
        self.log = log

    def call(self, method, path, **options):
        response = requests.request(method, self.url + path, timeout=600, **options)
        assert response.ok, f"{method} {path} -> {response.status_code}\n{self.log.read_text()[-5000:]}"
        return response

    def infer(self, model, image, output, **params):
        query = {"image": image, "output": output}
        return self.call("POST", f"/infer/{model}", params=query, data={"params": json.dumps(params)})

    def volume(self, model, image, **params):
        return read_nifti(self.infer(model, image, "image", **params).content)

    def wait_for(self, kind):
        """Wait for the end of the latest background task of a kind, such as train."""
        while (task := self.call("GET", f"/{kind}/").json())["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(1)
        assert task["status"] == "DONE", self.log.read_text()[-5000:]


def read_nifti(content):
    """A NIfTI image from the bytes of a .nii.gz file."""
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content))


@pytest.fixture(scope="session")
def serve():
    """Context manager that starts a server by a shell script and ends it: serve(script, log, port)."""

    @contextlib.contextmanager
    def running(script, log, port):
        # However this process ends, its end of the pipe is closed; then `read` returns, and the shell, the server and
        # the server's own processes, which are one group, are killed.
        watched = f"{{ {script}\nkill -KILL 0; }} & read -r; kill -KILL 0"
        environment = {**os.environ, "PYTHONPATH": "", "MONAI_LABEL_SESSION_PATH": str(log.parent / "sessions")}
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", watched],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                server = LabelServer(f"http://127.0.0.1:{port}", log)
                deadline = time.monotonic() + READY_WITHIN
                while not answers(server.url):
                    assert process.poll() is None, f"The server has ended:\n{log.read_text()[-5000:]}"
                    assert time.monotonic() < deadline, f"The server is not ready:\n{log.read_text()[-5000:]}"
                    time.sleep(0.5)
                yield server
            finally:
                process.stdin.close()
                process.wait()

    return running


def answers(url):
    """Whether a server is ready."""
    try:
        return requests.get(f"{url}/info/", timeout=60).ok
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="session")
def free_port():
    """Function that finds a port nobody listens to."""

    def find():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return find


@pytest.fixture
def bundle_mask(tmp_path):
    """Function that runs a bundle's inference.json on one file and returns the mask's path."""

    def segment(bundle, image, **overrides):
        output = tmp_path / "inference"
        shutil.rmtree(output, ignore_errors=True)
        path = sys.path.copy()
        monai.bundle.run(
            config_file=str(bundle / "configs" / "inference.json"),
            bundle_root=str(bundle),
            dataset_dir=str(image),
            output_dir=str(output),
            device="cpu",
            **{f"displayable_configs#{key}": value for key, value in overrides.items()},
        )
        sys.path[:] = path  # without the bundle's own copy of the code
        (mask,) = output.glob("*_seg.*")
        return mask

    return segment


@pytest.fixture(scope="session")
def dice():
    """Function that returns the Dice of each of the two structures."""

    def compare(mask, label):
        pairs = [(mask == structure, label == structure) for structure in (1, 2)]
        return np.array([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])

    return compare
