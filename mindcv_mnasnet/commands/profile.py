"""Parameters and multiply-adds of any network, without MindSpore, such as `mnasnet profile mnasnet-a1`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mindcv_mnasnet.errors import UserError
from mindcv_mnasnet.networks.cost import Cost, detector_cost, network_cost
from mindcv_mnasnet.networks.network import Network, resolve
from mindcv_mnasnet.recipe.command_line import Parser

_IMAGENET, _COCO = 1000, 80  # classes


def main(argv: list[str] | None = None) -> int:
    arguments = vars(_parser().parse_args(argv))
    model, layers, as_json, table, config = (
        arguments.pop(key) for key in ("model", "layers", "json", "table", "config")
    )
    if model is None and "blocks" not in arguments and not table and config is None:
        raise UserError("name a model, or give --config, --blocks or --table")
    idle = [*arguments, *(["layers"] if layers else [])]
    if idle and model is None and "blocks" not in arguments and config is None:
        raise UserError(f"{idle[0]}: --table has no use for it; name a model as well, or leave it out")
    report: dict[str, Any] = {}
    text: list[str] = []
    if config is not None:
        if model is not None or arguments.keys() - {"num_classes"}:
            raise UserError("config: a recipe says what the network is; only --num_classes goes with it")
        network, cost = _of_recipe(config, arguments.get("num_classes"))
        report = _report(network, cost, layers)
        text.append(_text(config, network, cost, layers))
    elif model is not None or "blocks" in arguments:
        network = resolve(model, **arguments)
        cost = network_cost(network)
        report = _report(network, cost, layers)
        text.append(_text(model or "custom network", network, cost, layers))
    if table:
        report["table"] = rows = _table()
        text.append(_table_text(rows))
    print(json.dumps(report, indent=2) if as_json else "\n\n".join(text))
    return 0


def _of_recipe(path: str, num_classes: int | None) -> tuple[Network, Cost]:
    """Network and cost of a recipe's classifier or detector, of ImageNet's or COCO's classes where none are said."""
    from mindcv_mnasnet.recipe.recipe import load_recipe  # here: it needs a YAML reader

    recipe = load_recipe(path, {} if num_classes is None else {"num_classes": num_classes})
    detects = recipe.task == "detect"
    network = recipe.network(recipe.num_classes or (_COCO if detects else _IMAGENET))
    return network, detector_cost(recipe.detector(network)) if detects else network_cost(network)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument("model", nargs="?", default=None, help="a model name of any source, such as mnasnet-a1")
    parser.add_argument("-c", "--config", default=None, metavar="FILE", help="a recipe of a classifier or detector")
    parser.add_argument("--width_mult", type=width_mult, help="width multiplier; none scales and rounds nothing")
    parser.add_argument("--image_size", type=int, help="side of the square image in pixels")
    parser.add_argument("--num_classes", type=int)
    parser.add_argument("--in_channels", type=int)
    parser.add_argument("--blocks", nargs="+", help="block strings such as r3_k5_s22_e3_o40_se0.25")
    parser.add_argument("--stem", type=int, help="channels of the stem before scaling")
    parser.add_argument("--stem_stride", type=int)
    parser.add_argument("--head", type=int, help="channels before the classifier")
    parser.add_argument("--divisor", type=int, help="widths are rounded to multiples of it")
    parser.add_argument("--min_width", type=int)
    parser.add_argument("--residual_rule", help="actual or declared")
    parser.add_argument("--declared_stem", type=int)
    parser.add_argument("--layers", action="store_true", default=False, help="show every layer")
    parser.add_argument("--json", action="store_true", default=False)
    parser.add_argument(
        "--table", action="store_true", default=False, help="the authors' 25 published sizes beside ours"
    )
    return parser


def width_mult(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


def _report(network: Network, cost: Cost, layers: bool) -> dict[str, Any]:
    keys = ("params", "params_with_bn", "madds", "madds_authors_rule")
    report = {key: getattr(cost, key) for key in keys}
    report |= {"image_size": network.image_size, "blocks": list(network.block_strings)}
    if layers:
        report["layers"] = [vars(layer) for layer in cost.layers]
    return report


def _text(title: str, network: Network, cost: Cost, layers: bool) -> str:
    lines = [
        f"{title} at {network.image_size} x {network.image_size}, {network.num_classes} classes",
        f"  parameters              {cost.params:>15,}",
        f"    with BN statistics    {cost.params_with_bn:>15,}   as MindCV's tables count",
        f"  multiply-adds           {cost.madds:>15,}   convolutions and classifier",
        f"    by the authors' rule  {cost.madds_authors_rule:>15,.0f}   as their table of 25 sizes counts",
        "  blocks  " + "\n          ".join(network.block_strings),
    ]
    if layers:
        lines.append(f"\n{'layer':24}{'kernel':>6}{'channels':>14}{'size':>6}{'parameters':>13}{'multiply-adds':>16}")
    for layer in cost.layers if layers else ():
        channels = f"{layer.in_width} > {layer.out_width}"
        kernel = layer.kernel or "-"
        lines.append(
            f"{layer.name:24}{kernel:>6}{channels:>14}{layer.out_size:>6}{layer.params:>13,}{layer.madds:>16,}"
        )
    return "\n".join(lines)


def _table() -> list[dict[str, Any]]:
    from mindcv_mnasnet.networks.reported import authors_grid  # here: it needs a YAML reader, which costs do not

    rows = []
    for entry, network in authors_grid():
        cost = network_cost(network)
        published = ("image_size", "width_mult", "top1", "top5", "params_m", "madds_m", "latency_ms")
        row = {key: getattr(entry, key) for key in published}
        row |= {"our_params_m": round(cost.params / 1e6, 1), "our_madds_m": round(cost.madds_authors_rule / 1e6, 1)}
        rows.append({**row, "printed": dict(entry.printed), "misprint": entry.describe_misprint()})
    return rows


def _table_text(rows: list[dict[str, Any]]) -> str:
    lines = [
        "MnasNet-A1 as published by its authors; parameters and multi-adds in millions, latency on a Pixel 1",
        "  px  width  top-1  top-5   params   ours   multi-adds    ours      ms",
    ]
    notes: list[str] = []
    for row in rows:
        mark = ""
        if row["misprint"]:
            notes.append(row["misprint"])
            mark = f"  [{len(notes)}]"
        lines.append(
            f"{row['image_size']:>4}{row['width_mult']:>7}{row['top1']:>7}{row['top5']:>7}{row['params_m']:>9}"
            f"{row['our_params_m']:>7}{row['madds_m']:>13}{row['our_madds_m']:>8}{row['latency_ms']:>8}{mark}"
        )
    return "\n".join([*lines, *(f"  [{number}] {note}" for number, note in enumerate(notes, 1))])
