"""Lets torchvision's wheel, which is built for CUDA, be imported beside a torch that is built for the CPU.

The compiled operators of that wheel cannot be loaded then, yet torchvision asks torch for the signature of two of them
as soon as it is imported. MONAI Label calls neither, so declaring them is enough. Python imports a module of this name
at its start if it finds one on PYTHONPATH. With a torch for CUDA it does nothing.
"""

import importlib.abc
import sys


class DeclareOperators(importlib.abc.MetaPathFinder):
    """Declares torchvision's operators when torchvision is first looked for, and finds no module itself."""

    def find_spec(self, fullname, path, target=None):
        """Declare, and leave the search to the finders that follow."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch  # only now: not every Python that starts here wants torch

            if torch.version.cuda is None:
                for name in ("nms", "qnms"):
                    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    torch.library.define(f"torchvision::{name}", signature)
        return None


sys.meta_path.insert(0, DeclareOperators())
