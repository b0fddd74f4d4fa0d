"""Turn a checkpoint of the published program into a model of this project, without running its code.

Input    a .pth of the published program, a whole pickled model; neither its code nor x-transformers is needed
Output   a .safetensors with the same float32 weights; generate.py, train_pool.py -fp and evaluate.py --all read it
Example  python import_published.py musictransformer.pth -o published.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_new, check_writable, file_hash
from backline.music.vocab import FIELDS, load_vocabulary
from backline.training.published_pickle import Placeholder, read_published, shown

if TYPE_CHECKING:
    from backline.layers.config import ModelConfig
    from model import PooledTransformer

POSITION_TABLE = "model.pos_encoding.pe"
POSITIONS_TOLERANCE = 1e-4  # float32 rounding of the angles reaches 0.3e-4 in 512 notes
HEAD_WIDTH = 64  # x-transformers' default, which the published program keeps; it gives n_heads
OTHER = "not the published architecture"

# Options that change a model's output but no tensor's name or shape (x-transformers 1.17.1), with
# the published values.
OPTIONS: dict[str, dict[str, Any]] = {
    "x_transformers.x_transformers.Decoder": {
        "pre_norm": True, "resi_dual": False, "residual_attn": False},
    "x_transformers.x_transformers.Attention": {
        "causal": True,
        "scale": HEAD_WIDTH ** -0.5,
        "qk_norm": False,
        "max_attend_past": None,
        "attn_on_attn": False},
    "x_transformers.x_transformers.Residual": {"scale_residual_constant": 1},
    "x_transformers.attend.Attend": {
        "causal": True,
        "scale": HEAD_WIDTH ** -0.5,
        "qk_norm": False,
        "sparse_topk": None,
        "add_zero_kv": False},
    "torch.nn.modules.normalization.LayerNorm": {"eps": 1e-5},
    "torch.nn.modules.activation.GELU": {"approximate": "none"},
    "torch.nn.modules.sparse.Embedding": {"max_norm": None},
}


# ---------------------------------------------------------------- names


def published_names(n_layers: int) -> dict[str, list[str]]:
    """For each tensor of `PooledTransformer`, the published one or ones.

    Several are to be joined along the first dimension.
    """
    names = {}
    for f, field in enumerate(FIELDS):
        names[f"embeddings.{f}.weight"] = [f"emb_{field}.weight"]
        names |= _weight_and_bias(f"heads.{f}", f"logit_{field}")
    names |= _weight_and_bias("in_linear", "in_linear")
    names |= _weight_and_bias("in_norm", "layer_norm")
    names |= _weight_and_bias("out_norm", "transformer_encoder.final_norm")
    for i in range(n_layers):
        # There, attention and feed-forward are layers of their own, each with its norm at 0.0.
        attention = f"transformer_encoder.layers.{2 * i}"
        feed_forward = f"transformer_encoder.layers.{2 * i + 1}"
        block = f"blocks.{i}"
        names |= _weight_and_bias(f"{block}.attention_norm", f"{attention}.0.0")
        names[f"{block}.attention.to_qkv.weight"] = [f"{attention}.1.to_{x}.weight"
                                                     for x in "qkv"]
        names[f"{block}.attention.to_out.weight"] = [f"{attention}.1.to_out.weight"]
        names |= _weight_and_bias(f"{block}.ff_norm", f"{feed_forward}.0.0")
        names |= _weight_and_bias(f"{block}.ff.0", f"{feed_forward}.1.ff.0.0")
        names |= _weight_and_bias(f"{block}.ff.3", f"{feed_forward}.1.ff.3")
    return {ours: [f"model.{name}" for name in theirs]
            for ours, theirs in names.items()}


def _weight_and_bias(ours: str, theirs: str) -> dict[str, list[str]]:
    return {
        f"{ours}.weight": [f"{theirs}.weight"],
        f"{ours}.bias": [f"{theirs}.bias"],
    }


# ---------------------------------------------------------------- the model


def convert(modules: dict[str, Placeholder], tensors: dict[str, np.ndarray]) -> PooledTransformer:
    """The same model as one of this project's.

    Args:
        modules, tensors: what `read_published` returns.
    Raises:
        UserError: it has another architecture; the message says what differs.
    """
    import torch

    from model import PooledTransformer

    n_layers = sum(name.endswith(".1.to_q.weight") for name in tensors)
    sources = published_names(max(n_layers, 1))
    check_names(sources, tensors)
    config = infer_config(modules, tensors, n_layers)
    check_options(modules, config)
    check_positions(tensors[POSITION_TABLE], config)
    with torch.device("meta"):  # shapes alone: no memory before the file's claims are checked
        model = PooledTransformer(config)
    weights = {}
    for ours, tensor in model.state_dict().items():
        n_rows = tensor.shape[0] // len(sources[ours])
        shape = (n_rows, *tensor.shape[1:])
        for name in sources[ours]:
            if tensors[name].shape != shape:
                raise UserError(f"{OTHER}: the shape of {name} is {tensors[name].shape}, where "
                                f"{shape} fits the rest")
        published = [torch.from_numpy(tensors[name]) for name in sources[ours]]
        weights[ours] = torch.cat(published)
    model.load_state_dict(weights, assign=True)
    return model


def infer_config(modules: dict[str, Placeholder],
                 tensors: dict[str, np.ndarray],
                 n_layers: int,
                 ) -> ModelConfig:
    """The config that the tensors' shapes imply.

    The context is this project's default, or shorter where there are fewer positions.

    Raises UserError if no config has these shapes.
    """
    from backline.layers.config import ModelConfig

    tables = [tensors[f"model.emb_{field}.weight"] for field in FIELDS]
    if any(table.ndim != 2 for table in tables) or tensors[POSITION_TABLE].ndim != 3:
        raise UserError(f"{OTHER}: its embeddings or positions have the wrong number of dimensions")
    n_tokens = tuple(len(table) for table in tables)
    vocabulary = load_vocabulary()
    if n_tokens != vocabulary.sizes:
        raise UserError(f"{OTHER}: it has {n_tokens} ids per family, the published vocabulary "
                        f"{vocabulary.sizes}")
    _, n_positions, width = tensors[POSITION_TABLE].shape
    if width % HEAD_WIDTH:
        raise UserError(f"{OTHER}: its width, {width}, is not a multiple of a head's, {HEAD_WIDTH}")
    wrapper = modules.get("model")
    dropout = wrapper.attributes().get("dropout") if wrapper else None
    if not isinstance(dropout, int | float):
        dropout = ModelConfig.dropout
    return ModelConfig.for_vocabulary(
        vocabulary,
        emb_sizes=tuple(table.shape[1] for table in tables),
        n_layers=n_layers,
        d_model=width,
        n_heads=width // HEAD_WIDTH,
        block_size=min(n_positions, ModelConfig.block_size),
        dropout=float(dropout),
    )


# ---------------------------------------------------------------- checks


def check_names(sources: dict[str, list[str]], tensors: dict[str, np.ndarray]) -> None:
    """Raise UserError unless `tensors` are those that are needed, and no others."""
    needed = {POSITION_TABLE}
    for names in sources.values():
        needed |= set(names)
    if needed != tensors.keys():
        missing = listed(needed - tensors.keys())
        left_over = listed(tensors.keys() - needed)
        raise UserError(f"{OTHER}: missing {missing}; left over {left_over}")


def check_options(modules: dict[str, Placeholder], config: ModelConfig) -> None:
    """Raise UserError if a module has another option than a published one's."""
    for name, module in modules.items():
        expected = OPTIONS.get(module.made_by, {})
        if module.made_by.endswith(".Attention"):
            expected = expected | {"heads": config.n_heads}
        attributes = module.attributes()
        for option, value in expected.items():
            if attributes.get(option, value) != value:
                raise UserError(f"{OTHER}: {option} of {shown(name)} is not {value}")


def check_positions(positions: np.ndarray, config: ModelConfig) -> None:
    """Raise UserError unless `positions` (1, n, D) are the sines and cosines that we compute."""
    import torch

    from backline.layers.positions import sinusoids

    index = torch.arange(config.block_size)[None]            # (1, T)
    computed = sinusoids(index, config.d_model)              # (1, T, D)
    ours = computed[0].numpy()                               # (T, D)
    theirs = positions[0, :len(ours)]
    if len(positions) != 1 or not np.allclose(theirs,
                                              ours,
                                              rtol=0,
                                              atol=POSITIONS_TOLERANCE):
        raise UserError(f"{OTHER}: {POSITION_TABLE} does not hold its sines and cosines")


def listed(names: Iterable[str]) -> str:
    """The first three of some names, and how many more there are."""
    names = sorted(names)
    if not names:
        return "none"
    first = ", ".join(map(shown, names[:3]))
    n_more = len(names) - 3
    if n_more > 0:
        return f"{first} and {n_more} more"
    return first


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="published checkpoint .pth")
    parser.add_argument("-o", "--output",
                        type=Path,
                        required=True,
                        help="file to write, ending in .safetensors")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".safetensors":
        raise UserError(f"{args.output}: the name must end in .safetensors")
    check_file(args.checkpoint)
    check_new([args.output], args.force, [args.checkpoint])
    check_writable(args.output.parent)
    try:
        modules, tensors = read_published(args.checkpoint)

        import torch  # only now: it takes no part in reading the file

        from backline.training.checkpoints import save_release

        model = convert(modules, tensors)
    except UserError as err:
        raise UserError(f"{args.checkpoint}: {err}") from None
    metadata = {"imported": "published checkpoint",
                "file": args.checkpoint.name,
                "sha256": file_hash(args.checkpoint)}
    save_release(args.output, model, load_vocabulary(), metadata, torch.float32)
    megabytes = args.output.stat().st_size / 1e6
    print(f"{args.output}: {model.n_parameters():,} parameters, {megabytes:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
