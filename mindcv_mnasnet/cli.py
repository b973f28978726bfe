"""``mnasnet COMMAND``: every command of the project by one name. Importing this loads none of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from mindcv_mnasnet import __version__
from mindcv_mnasnet.errors import UserError, run_cli

COMMANDS = {  # name -> (module of mindcv_mnasnet.commands, what it does)
    "train": ("train", "train a network as a recipe says, or resume a run"),
    "validate": ("validate", "measure checkpoints and exported files on a data set"),
    "predict": ("predict", "name what images show, or write their features"),
    "export": ("export", "write a checkpoint as ONNX, TFLite or MindIR and check the file"),
    "convert": ("convert", "convert weights of timm, torchvision, MindCV, TensorFlow"),
    "average": ("average", "average the weights of several checkpoints"),
    "profile": ("profile", "count parameters and multiply-adds of a network"),
    "dry-run": ("dry_run", "compile recipes for NPUs without one, and count kernels"),
    "latency": ("latency", "measure networks on a device, build and check tables"),
    "search": ("search", "search for networks that suit a device"),
    "check-device": ("check_device", "check versions, losses, ranks and speeds of a device"),
    "check-dataset": ("check_dataset", "find every broken image of a data set"),
    "convert-boxes": ("convert_boxes", "write VOC's or YOLO's boxes as COCO's"),
    "pack": ("pack", "pack an image folder into a few large files"),
}


def usage() -> str:
    """The help text: one line per command."""
    lines = (f"  {name:<15}{does}" for name, (_, does) in COMMANDS.items())
    return "\n".join(
        [
            f"mnasnet {__version__}: MnasNet on MindSpore, from training to search\n",
            "usage: mnasnet COMMAND ...; mnasnet COMMAND --help says more\n",
            *lines,
            "\nexamples:",
            "  mnasnet train -c configs/digits/mnasnet_small_digits.yaml",
            "  mnasnet validate --ckpt_path runs/mine",
            "  mnasnet predict runs/mine images/",
        ]
    )


def dispatch(argv: Sequence[str]) -> int:
    """Run the command that ``argv`` names and return its exit code.

    Raises:
        UserError: there is no such command.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        raise UserError(f"mnasnet has no command {name!r}; there are {', '.join(COMMANDS)}")
    sys.argv = [f"mnasnet {name}", *rest]  # what the command's own help calls itself
    return int(import_module(f"mindcv_mnasnet.commands.{COMMANDS[name][0]}").main(rest))


def main() -> int:
    """The installed program; returns its exit code."""
    return run_cli(lambda: dispatch(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
