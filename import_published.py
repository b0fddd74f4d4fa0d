"""Turn a checkpoint of the published program into a model file of this project, without running anything in it.

Input    a .pth of the published program: a whole pickled model; neither its code nor x-transformers is needed
Output   a .safetensors with the same float32 weights; generate.py, train_pool.py -fp and evaluate.py --all read it
Example  python import_published.py musictransformer.pth -o published.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_new, check_writable, file_hash
from backline.music.vocab import FIELDS, load_vocabulary
from backline.training.published_pickle import Placeholder, read_published, shown

if TYPE_CHECKING:
    from model import ModelConfig, PooledTransformer

POSITION_TABLE = "model.pos_encoding.pe"
POSITIONS_TOLERANCE = 1e-4  # what float32 makes of the angles in a context of 512 notes differs by 0.3e-4
HEAD_WIDTH = 64  # x-transformers' default, which the published program keeps: the number of heads follows
OTHER = "not the published architecture"
# What changes a model's output and shows in no tensor's name or shape (x-transformers 1.17.1), as published.
OPTIONS = {
    "x_transformers.x_transformers.Decoder": {"pre_norm": True, "resi_dual": False, "residual_attn": False},
    "x_transformers.x_transformers.Attention": {"causal": True, "scale": HEAD_WIDTH ** -0.5, "qk_norm": False,
                                                "max_attend_past": None, "attn_on_attn": False},
    "x_transformers.x_transformers.Residual": {"scale_residual_constant": 1},
    "x_transformers.attend.Attend": {"causal": True, "scale": HEAD_WIDTH ** -0.5, "qk_norm": False,
                                     "sparse_topk": None, "add_zero_kv": False},
    "torch.nn.modules.normalization.LayerNorm": {"eps": 1e-5},
    "torch.nn.modules.activation.GELU": {"approximate": "none"},
    "torch.nn.modules.sparse.Embedding": {"max_norm": None},
}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="published checkpoint .pth")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write, ending in .safetensors")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    return parser


def published_names(n_layers: int) -> dict[str, list[str]]:
    """For each tensor of `PooledTransformer` the published one, or those that are joined along the first dimension."""
    tensors = {f"embeddings.{f}.weight": [f"emb_{field}.weight"] for f, field in enumerate(FIELDS)}
    layers = {f"heads.{f}": f"logit_{field}" for f, field in enumerate(FIELDS)}  # with a weight and a bias each
    layers |= {"in_linear": "in_linear", "in_norm": "layer_norm", "out_norm": "transformer_encoder.final_norm"}
    for i in range(n_layers):  # there, attention and feed-forward are layers of their own: the norm is 0.0, the rest 1
        attention, ff = (f"transformer_encoder.layers.{2 * i + k}" for k in (0, 1))
        layers |= {f"blocks.{i}.attention_norm": f"{attention}.0.0", f"blocks.{i}.ff_norm": f"{ff}.0.0",
                   f"blocks.{i}.ff.0": f"{ff}.1.ff.0.0", f"blocks.{i}.ff.3": f"{ff}.1.ff.3"}
        tensors[f"blocks.{i}.attention.to_qkv.weight"] = [f"{attention}.1.to_{x}.weight" for x in "qkv"]
        tensors[f"blocks.{i}.attention.to_out.weight"] = [f"{attention}.1.to_out.weight"]
    for ours, theirs in layers.items():
        tensors |= {f"{ours}.{kind}": [f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    return {ours: [f"model.{name}" for name in theirs] for ours, theirs in tensors.items()}


def convert(modules: dict[str, Placeholder], tensors: dict[str, np.ndarray]) -> PooledTransformer:
    """The same model as this project's. Raises UserError where it is of another architecture, naming what differs."""
    import torch

    from model import PooledTransformer

    n_layers = sum(name.endswith(".1.to_q.weight") for name in tensors)
    sources = published_names(max(n_layers, 1))
    needed = {name for names in sources.values() for name in names} | {POSITION_TABLE}
    if needed != tensors.keys():
        raise UserError(f"{OTHER}: missing {listed(needed - tensors.keys())}; left over "
                        f"{listed(tensors.keys() - needed)}")
    config = infer_config(modules, tensors, n_layers)
    check_options(modules, config)
    check_positions(tensors[POSITION_TABLE], config)
    with torch.device("meta"):  # shapes alone: what the file claims to be gets no memory before it is checked
        model = PooledTransformer(config)
    weights = {}
    for ours, tensor in model.state_dict().items():
        shape = (tensor.shape[0] // len(sources[ours]), *tensor.shape[1:])
        for name in sources[ours]:
            if tensors[name].shape != shape:
                raise UserError(f"{OTHER}: the shape of {name} is {tensors[name].shape}, where {shape} fits the rest")
        weights[ours] = torch.cat([torch.from_numpy(tensors[name]) for name in sources[ours]])
    model.load_state_dict(weights, assign=True)
    return model


def infer_config(modules: dict[str, Placeholder], tensors: dict[str, np.ndarray], n_layers: int) -> ModelConfig:
    """What the tensors' shapes tell; the context is the reference's, or as far as the positions reach."""
    from model import ModelConfig

    tables = [tensors[f"model.emb_{field}.weight"] for field in FIELDS]
    if any(table.ndim != 2 for table in tables) or tensors[POSITION_TABLE].ndim != 3:
        raise UserError(f"{OTHER}: its embeddings or positions have another number of dimensions")
    n_tokens = tuple(len(table) for table in tables)
    sizes = load_vocabulary().sizes
    if n_tokens != sizes:
        raise UserError(f"{OTHER}: it has {n_tokens} ids per family, the published vocabulary {sizes}")
    _, n_positions, width = tensors[POSITION_TABLE].shape
    if width % HEAD_WIDTH:
        raise UserError(f"{OTHER}: its width, {width}, is no multiple of a head's, {HEAD_WIDTH}")
    wrapper = modules.get("model")
    dropout = wrapper.attributes().get("dropout") if wrapper else None
    return ModelConfig(emb_sizes=tuple(table.shape[1] for table in tables), n_layers=n_layers, d_model=width,
                       n_heads=width // HEAD_WIDTH, block_size=min(n_positions, ModelConfig.block_size),
                       dropout=float(dropout) if isinstance(dropout, int | float) else ModelConfig.dropout)


def check_options(modules: dict[str, Placeholder], config: ModelConfig) -> None:
    expected = {maker: {**options, "heads": config.n_heads} if maker.endswith(".Attention") else options
                for maker, options in OPTIONS.items()}
    for name, module in modules.items():
        for option, value in expected.get(module.made_by, {}).items():
            if module.attributes().get(option, value) != value:
                raise UserError(f"{OTHER}: {option} of {shown(name)} is not {value}")


def check_positions(positions: np.ndarray, config: ModelConfig) -> None:
    import torch

    from model import sinusoids

    wanted = sinusoids(torch.arange(config.block_size)[None], config.d_model)[0].numpy()
    if len(positions) != 1 or not np.allclose(positions[0, :len(wanted)], wanted, rtol=0, atol=POSITIONS_TOLERANCE):
        raise UserError(f"{OTHER}: {POSITION_TABLE} does not hold its sines and cosines")


def listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(shown, names[:3])) + more or "none"


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".safetensors":
        raise UserError(f"{args.output}: the name must end in .safetensors")
    check_file(args.checkpoint)
    check_new([args.output], args.force, [args.checkpoint])
    check_writable(args.output.parent)
    try:
        modules, tensors = read_published(args.checkpoint)

        import torch  # once the file is read: it takes no part in that

        from backline.training.checkpoints import save_release

        model = convert(modules, tensors)
    except UserError as err:
        raise UserError(f"{args.checkpoint}: {err}") from None
    facts = {"imported": "published checkpoint", "file": args.checkpoint.name, "sha256": file_hash(args.checkpoint)}
    save_release(args.output, model, load_vocabulary(), facts, torch.float32)
    print(f"{args.output}: {model.n_parameters():,} parameters, {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
