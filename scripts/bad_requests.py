"""Bad requests to the MONAI Label server of docs/monai_label.md, and how each is answered: in one sentence.

A request asks for what there is not, sends a file that is none, or has wrong settings. Each must be answered within a
minute by a status from 400 on and JSON whose `detail` is one line that names what is wrong; and the server must
answer a right request in the end. Prints a Markdown table, and what does not end so. Example, with the server of
step 3 of that page:

    python scripts/bad_requests.py http://127.0.0.1:8000 --study hippocampus_001
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NamedTuple

import requests

LIMIT = 60  # seconds
MODEL = "hippocampus_mri_medsegdiff_segmentation"
IMAGES = {
    "x.nii.gz": b"This is no image.",
    "x.nii": b"",
    "x.txt": b"This is no image.",
    "x.png": b"\x89PNG",
    "x.mha": b"No",
}


class Request(NamedTuple):
    """A bad request: what is wrong, its path, what `requests.post` takes besides, and words of the answer."""

    what: str
    path: str
    given: dict[str, Any]
    names: tuple[str, ...]


def bad_requests(study: str) -> list[Request]:
    """All of them, most for a study that there is."""
    path, image = f"/infer/{MODEL}", {"image": study, "output": "json"}
    found = [
        Request("a study that there is not", path, {"params": {**image, "image": "gone"}}, ("gone",)),
        Request("a study called ..", path, {"params": {**image, "image": "../.."}}, ("..",)),
        Request("no study", path, {"params": {"output": "json"}}, ()),
        Request("a model that there is not", "/infer/gone", {"params": image}, ("gone",)),
        Request("a kind of answer that there is not", path, {"params": {**image, "output": "words"}}, ("output",)),
        Request("a strategy that there is not", "/activelearning/gone", {"json": {}}, ("gone",)),
    ]
    wrong: dict[str, list[Any]] = {
        "ensemble_size": [0, -1, 1.5, "abc", "", None, [], True, "$open('ran','w')"],
        "num_inference_steps": [0, -1, 100000, "abc", None, {}, "@seed"],
        "fusion": ["best", "", 3, None, [], "$print(1)"],
        "device": ["quantum", "cuda:99", 7],
    }
    for name, values in wrong.items():
        for value in values:
            data = {"params": json.dumps({name: value})}
            found.append(Request(f"{name} {value!r}", path, {"params": image, "data": data}, (name,)))
    for name, content in IMAGES.items():
        given = {"params": {"output": "json"}, "files": {"file": (name, content)}}
        found.append(Request(f"a file {name} that is none", path, given, ()))
    return found


def fault(url: str, request: Request) -> tuple[str, int, str]:
    """What is wrong with the answer, or nothing; its status; and its sentence."""
    try:
        answer = requests.post(url + request.path, timeout=LIMIT, **request.given)
    except requests.RequestException as error:
        return f"no answer: {type(error).__name__}", 0, ""
    try:
        detail = answer.json()["detail"]
        said = detail if isinstance(detail, str) else f"{detail[0]['loc'][-1]}: {detail[0]['msg']}"  # of FastAPI itself
    except (ValueError, LookupError, TypeError):
        return "no sentence", answer.status_code, answer.text[:100]
    if answer.status_code < 400:
        return "taken", answer.status_code, said
    if not said or "\n" in said or not all(name in said for name in request.names):
        return "not one sentence that names it", answer.status_code, said
    return "", answer.status_code, said


def run(url: str, study: str) -> int:
    """Send them all, print what came, and return the number of faults."""
    print("| request | status | sentence | fault |\n|---|---|---|---|")
    faults, sent = 0, bad_requests(study)
    for request in sent:
        wrong, status, said = fault(url, request)
        faults += bool(wrong)
        print(f"| {request.what} | {status} | {said.replace('|', '/')[:160]} | {wrong} |", flush=True)
    right = requests.post(f"{url}/infer/{MODEL}", params={"image": study, "output": "json"}, timeout=600)
    print(f"\n{len(sent)} bad requests, {faults} faults; a right one afterwards: {right.status_code}")
    return faults + (not right.ok)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of the server")
    parser.add_argument("--study", required=True, metavar="NAME", help="that the server has")
    options = parser.parse_args()
    sys.exit(bool(run(options.url.rstrip("/"), options.study)))
