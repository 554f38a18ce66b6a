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
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import requests

import medsegdiff_bundle

ROOT = Path(medsegdiff_bundle.__file__).parent.parent
SAMPLE_DATA = ROOT / "medsegdiff_bundle" / "sample_data" / "hippocampus"
ENVIRONMENT = ROOT / ".venv-label"
READY_WITHIN = 300  # seconds


def commands_below(heading):
    """The first block of commands below a heading of the guide."""
    section = (ROOT / "docs" / "monai_label.md").read_text().split(f"\n## {heading}\n")[1]
    return re.search(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(scope="session")
def label_python():
    """Python of the guide's environment, which is made again only when what it is made from has changed."""
    commands = commands_below("1. Install")
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
def guide_workspace(tmp_path_factory):
    """What the guide makes: `app` with the packaged bundle in `app/model`, and `studies`."""
    folder = tmp_path_factory.mktemp("guide")
    environment = {**os.environ, "WORKSPACE": str(folder)}
    subprocess.run(["bash", "-e", "-c", commands_below("2. Bundle and app")], cwd=ROOT, check=True, env=environment)
    return folder


@pytest.fixture(scope="session")
def guide_commands():
    """Function that returns the commands of one of the guide's steps."""
    return commands_below


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

    def slicer_params(self, kind, model):
        """What 3D Slicer sends for a model: the first choice of every option that the server lists for it."""
        options = self.call("GET", "/info/").json()[kind][model]["config"]
        return {key: value[0] if isinstance(value, list) else value for key, value in options.items()}

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
    """Context manager that starts a server by a shell script, at a free port that the script finds in PORT."""

    @contextlib.contextmanager
    def running(script, log, **variables):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        # However this process ends, its end of the pipe is closed; then `read` returns, and the shell, the server and
        # the server's own processes, which are one group, are killed.
        watched = f"{{ {script}\nkill -KILL 0; }} & read -r; kill -KILL 0"
        environment = {**os.environ, "MONAI_LABEL_SESSION_PATH": str(log.parent / "sessions"), **variables}
        environment |= {"PORT": str(port), "PYTHONPATH": ""}
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
