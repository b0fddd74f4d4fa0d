"""import_published.py: the imported model is the published one, and nothing in a file ever runs.

The published program is not here: classes of the same names over x-transformers stand in for it. They are known as its
module only while a file is written.
"""

from __future__ import annotations

import collections
import contextlib
import copyreg
import functools
import io
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import fails, succeeds
from random_songs import VOCABULARY, make_dataset, random_song
from torch import Tensor, nn

import evaluate
import generate
import import_published
import train_pool
from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.layers.config import ModelConfig
from backline.music.vocab import FIELDS
from backline.training.checkpoints import load_model, save_checkpoint
from backline.training.published_pickle import LARGEST_PICKLE, MOST_TUPLES, read_published
from diagram import read_config
from model import PooledTransformer

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-4  # float32 rounding measures less than a tenth of it
OTHER = "not the published architecture"

# ---------------------------------------------------------------- a stand-in for the published program


class PositionalEncoding(nn.Module):
    def __init__(self, width: int, dropout: float, n_positions: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        angles = torch.arange(n_positions)[:, None] * torch.exp(torch.arange(0, width, 2) * -(math.log(1e4) / width))
        self.register_buffer("pe", torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None])

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.pe[:, :x.shape[1]])


class MusicTransformerWrapper3(nn.Module):
    def __init__(self, emb_sizes: tuple[int, ...], n_layers: int, width: int, dropout: float, n_positions: int,
                 **options: Any) -> None:
        from x_transformers.x_transformers import Decoder

        super().__init__()
        self.dropout, self.loss_fn = dropout, nn.CrossEntropyLoss()
        for field, n, size in zip(FIELDS, VOCABULARY.sizes, emb_sizes, strict=True):
            setattr(self, f"emb_{field}", nn.Embedding(n, size))
            setattr(self, f"logit_{field}", nn.Linear(width, n))
        self.in_linear = nn.Linear(np.sum(emb_sizes), width)  # a NumPy scalar, as in the published file
        self.layer_norm = nn.LayerNorm(width)
        self.pos_encoding = PositionalEncoding(width, dropout, n_positions)
        self.transformer_encoder = Decoder(dim=width, depth=n_layers, **({"heads": width // 64} | options),
                                           layer_dropout=dropout, attn_dropout=dropout, ff_dropout=dropout)

    def forward(self, ids: Tensor) -> list[Tensor]:
        embedded = [getattr(self, f"emb_{field}")(ids[..., f]) for f, field in enumerate(FIELDS)]
        x = self.pos_encoding(self.layer_norm(self.in_linear(torch.cat(embedded, dim=-1))))
        x = self.transformer_encoder(x)
        return [getattr(self, f"logit_{field}")(x) for field in FIELDS]


class MusicTransformer3(nn.Module):
    def __init__(self, model: Any = None) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> list[Tensor]:
        return self.model(ids)


@contextlib.contextmanager
def published_program() -> Iterator[None]:
    """While this lasts, pickle finds the stand-ins where it would find the published program."""
    module = types.ModuleType("musictransformer")
    for stand_in in (PositionalEncoding, MusicTransformerWrapper3, MusicTransformer3):
        stand_in.__module__ = module.__name__
        setattr(module, stand_in.__name__, stand_in)
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]


def save(content: Any, path: Path, **options: Any) -> Path:
    with published_program():
        torch.save(content, path, **options)
    return path


def make_published(emb_sizes: tuple[int, ...] = (16, 8, 8, 16), n_layers: int = 2, width: int = 128,
                   n_positions: int = 600, **options: Any) -> MusicTransformer3:
    pytest.importorskip("x_transformers", reason="x-transformers is not installed; it is in requirements-dev.txt")
    torch.manual_seed(0)
    model = MusicTransformer3(MusicTransformerWrapper3(emb_sizes, n_layers, width, 0.2, n_positions, **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh norms are all alike: one for another would not show
            parameter.add_(0.1 * torch.randn_like(parameter) * (1 if parameter.ndim == 1 else parameter.std()))
    return model


@pytest.fixture
def published() -> MusicTransformer3:
    return make_published()


@pytest.fixture
def imported(published, tmp_path) -> Path:
    path = tmp_path / "published.safetensors"
    succeeds(import_published.main, [save(published, tmp_path / "published.pth"), "-o", path])
    return path


@pytest.fixture
def refused(tmp_path, capsys) -> Callable[[Path], str]:
    """The one line that importing a file ends with; nothing is written."""

    def call(path: Path) -> str:
        message = fails(import_published.main, [path, "-o", tmp_path / "refused.safetensors"], capsys)
        assert message.startswith(f"error: {path}: ")
        assert len(message) < len(str(path)) + 500
        assert not list(tmp_path.glob("*.safetensors"))
        return message

    return call


# ---------------------------------------------------------------- the same model


def largest_difference(published: MusicTransformer3, model: PooledTransformer, length: int) -> float:
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randint(n, (2, length), generator=generator) for n in VOCABULARY.sizes], dim=-1)
    with torch.no_grad():
        return max(float((ours - theirs).abs().max())
                   for ours, theirs in zip(model(ids), published(ids), strict=True))


@pytest.mark.parametrize("sizes", [
    {}, {"width": 64, "n_layers": 1}, {"width": 192, "n_layers": 3, "emb_sizes": (4, 5, 6, 7)}])
def test_logits_agree(tmp_path, sizes):
    published, path = make_published(**sizes), tmp_path / "published.safetensors"
    succeeds(import_published.main, [save(published, tmp_path / "published.pth"), "-o", path])
    model, vocabulary, _ = load_model(path)
    assert vocabulary == VOCABULARY
    assert largest_difference(published, model, 512) < TOLERANCE


def test_the_reference_configuration(tmp_path, shared):
    published, path = make_published((512, 128, 256, 512), 12, 512, 20_000), tmp_path / "published.safetensors"
    shapes = json.loads((shared / "compat" / "published_state_dict.json").read_text())
    assert {name: list(tensor.shape) for name, tensor in published.state_dict().items()} == shapes
    succeeds(import_published.main, [save(published, tmp_path / "published.pth"), "-o", path])
    model, _, _ = load_model(path)
    reference = read_config(ROOT / "configs" / "model_reference.json")
    assert {**vars(model.config), "dropout": reference.dropout} == vars(reference)
    assert model.n_parameters() == 39_151_247
    assert largest_difference(published, model, 512) < TOLERANCE


def test_what_the_file_says_of_itself(imported, tmp_path):
    model, _, facts = load_model(imported)
    assert model.config.dropout == 0.2
    assert len(facts.pop("check_logits")) == 4
    assert facts == {"imported": "published checkpoint", "file": "published.pth",
                     "sha256": file_hash(tmp_path / "published.pth")}


def test_positions_shorter_than_the_context_shorten_it(tmp_path):
    path = tmp_path / "short.safetensors"
    succeeds(import_published.main, [save(make_published(n_positions=100), tmp_path / "short.pth"), "-o", path])
    assert load_model(path)[0].config.block_size == 100


def test_the_imported_model_generates_trains_and_is_evaluated(imported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("short.json").write_text(json.dumps({"max_steps": 8}))
    succeeds(generate.main, ["-mp", imported, "--genconfig", "short.json", "-d", "cpu"])
    assert Path("generated/0.mid").exists()
    make_dataset(Path("d.pt"), [random_song(i) for i in range(4)])
    succeeds(evaluate.main, ["-mp", imported, "--dataset_path", "d.pt", "--all", "-d", "cpu"])
    Path("train.json").write_text(json.dumps({"num_epochs": 1, "filename": "run"}))
    succeeds(train_pool.main, ["-fp", imported, "--dataset_path", "d.pt", "--training_args", "train.json",
                               "--train_split", "0.5", "-d", "cpu"])


def test_nothing_of_the_published_program_is_needed(published, tmp_path):
    """Neither its modules nor, until the file is read, torch."""
    path = save(published, tmp_path / "published.pth")
    code = ("import sys; sys.modules |= {'musictransformer': None, 'x_transformers': None}\n"
            "from pathlib import Path; import import_published; from backline.training import published_pickle\n"
            "published_pickle.read_published(Path(sys.argv[1])); assert 'torch' not in sys.modules\n"
            "sys.exit(import_published.main([sys.argv[1], '-o', sys.argv[2]]))")
    done = subprocess.run([sys.executable, "-c", code, path, tmp_path / "published.safetensors"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_commands_say_what_to_do_with_a_published_file(published, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(published, Path("published.pth"))
    make_dataset(Path("d.pt"), [random_song(0), random_song(1)])
    for main, argv in ((generate.main, ["-mp", "published.pth"]),
                       (train_pool.main, ["-fp", "published.pth", "--dataset_path", "d.pt"])):
        message = fails(main, [*argv, "-d", "cpu"], capsys)
        assert "holds more than tensors and plain data" in message
        assert "import_published.py" in message


@pytest.mark.parametrize(("argv", "text"), [
    (["none.pth", "-o", "out.safetensors"], "none.pth: no such file"),
    ([".", "-o", "out.safetensors"], "a folder, where a file is needed"),
    (["some.pth", "-o", "out.pth"], "out.pth: the name must end in .safetensors"),
    (["some.pth", "-o", "some.safetensors"], "some.safetensors exists already"),
    (["some.safetensors", "-o", "some.safetensors", "--force"], "would replace the file it is made of"),
])
def test_bad_arguments(tmp_path, monkeypatch, capsys, argv, text):
    monkeypatch.chdir(tmp_path)
    for name in ("some.pth", "some.safetensors"):
        Path(name).write_bytes(b"")
    assert text in fails(import_published.main, argv, capsys)


def test_force_overwrites(imported, tmp_path):
    imported.write_bytes(b"old")
    succeeds(import_published.main, [tmp_path / "published.pth", "-o", imported, "--force"])
    assert load_model(imported)


# ---------------------------------------------------------------- other architectures


def drop_a_bias(model: MusicTransformer3) -> None:
    model.model.logit_bar.bias = None


def add_a_layer(model: MusicTransformer3) -> None:
    model.model.new = nn.Linear(2, 2)


def learn_the_positions(model: MusicTransformer3) -> None:
    model.model.pos_encoding.pe[0, 7, 3] += 0.01


def part_sines_from_cosines(model: MusicTransformer3) -> None:
    encoding = model.model.pos_encoding
    encoding.pe = torch.cat([encoding.pe[..., ::2], encoding.pe[..., 1::2]], dim=-1)


def narrow_the_feed_forward(model: MusicTransformer3) -> None:
    model.model.transformer_encoder.layers[1][1].ff[3] = nn.Linear(10, 128)


def use_another_vocabulary(model: MusicTransformer3) -> None:
    model.model.emb_bar, model.model.logit_bar = nn.Embedding(30, 16), nn.Linear(128, 30)


def change_the_rounding(model: MusicTransformer3) -> None:
    model.model.layer_norm.eps = 1e-3


def approximate_the_activation(model: MusicTransformer3) -> None:
    model.model.transformer_encoder.layers[1][1].ff[0][1].approximate = "tanh"


def break_a_weight(model: MusicTransformer3) -> None:
    model.model.in_linear.weight.data[0, 0] = math.nan


def make_a_table_flat(model: MusicTransformer3) -> None:
    model.model.emb_bar.weight = nn.Parameter(torch.ones(260))


@pytest.mark.parametrize(("change", "text"), [
    (drop_a_bias, f"{OTHER}: missing model.logit_bar.bias; left over none"),
    (add_a_layer, f"{OTHER}: missing none; left over model.new.bias, model.new.weight"),
    (learn_the_positions, f"{OTHER}: model.pos_encoding.pe does not hold its sines and cosines"),
    (part_sines_from_cosines, f"{OTHER}: model.pos_encoding.pe does not hold its sines and cosines"),
    (narrow_the_feed_forward, f"{OTHER}: the shape of model.transformer_encoder.layers.1.1.ff.3.weight is (128, 10), "
                              f"where (128, 512) fits the rest"),
    (use_another_vocabulary, f"{OTHER}: it has (30, 36, 132, 227) ids per family"),
    (change_the_rounding, f"{OTHER}: eps of model.layer_norm is not 1e-05"),
    (approximate_the_activation, f"{OTHER}: approximate of model.transformer_encoder.layers.1.1.ff.0.1 is not none"),
    (break_a_weight, "model.in_linear.weight holds numbers that are not finite"),
    (make_a_table_flat, f"{OTHER}: its embeddings or positions have the wrong number of dimensions"),
])
def test_a_changed_model_is_refused(published, tmp_path, refused, change, text):
    change(published)
    assert text in refused(save(published, tmp_path / "changed.pth"))


@pytest.mark.parametrize(("options", "text"), [
    ({"width": 96, "heads": 2, "attn_dim_head": 48}, "its width, 96, is not a multiple of a head's, 64"),
    ({"heads": 4, "attn_dim_head": 32}, "scale of model.transformer_encoder.layers.0.1 is not 0.125"),
    ({"heads": 4}, "heads of model.transformer_encoder.layers.0.1 is not 2"),
    ({"scale_residual_constant": 1.1}, "scale_residual_constant of model.transformer_encoder.layers.0.2 is not 1"),
    ({"attn_qk_norm": True}, "qk_norm of model.transformer_encoder.layers.0.1 is not False"),
    ({"attn_sparse_topk": 4}, "sparse_topk of model.transformer_encoder.layers.0.1"),
    ({"residual_attn": True}, "residual_attn of model.transformer_encoder is not False"),
    ({"resi_dual": True}, "missing model.transformer_encoder.layers.0.0.0.bias"),
    ({"pre_norm": False}, "missing model.transformer_encoder.final_norm.bias"),
    ({"gate_residual": True}, "names x_transformers.x_transformers.GRUGating, which"),
    ({"rotary_pos_emb": True}, "names x_transformers.x_transformers.RotaryEmbedding, which"),
    ({"alibi_pos_bias": True}, "names x_transformers.x_transformers.AlibiPositionalBias, which"),
    ({"shift_tokens": 1}, "names x_transformers.x_transformers.ShiftTokens, which"),
    ({"ff_swish": True}, "names torch.nn.modules.activation.SiLU, which"),
])
def test_other_options_of_x_transformers_are_refused(tmp_path, refused, options, text):
    assert text in refused(save(make_published(**options), tmp_path / "other.pth"))


# ---------------------------------------------------------------- code in files


class Calls:
    """Has `function` called with `arguments` when unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced

    def __call__(self) -> None:
        """For pickle, which wants what it has called to be callable before it is known what that will be."""


def as_file(path: Path, pickled: bytes, **more: bytes) -> Path:
    """An archive as torch.save makes it, around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickled)
        for name, content in more.items():
            archive.writestr(f"model/{name}", content)
    return path


def runs_in_pickle(marker: Path) -> dict[str, tuple[Any, str]]:
    """What makes `marker` when unpickled as usual, and the name by which it is refused."""
    shell, folder = f"{os.system.__module__}.system", f"{os.mkdir.__module__}.mkdir"
    return {
        "a shell": (Calls(os.system, f"mkdir {marker}"), shell),
        "eval": (Calls(eval, f"__import__('os').mkdir({str(marker)!r})"), ".eval"),
        "exec": (Calls(exec, f"import os; os.mkdir({str(marker)!r})"), ".exec"),
        "partial": (Calls(functools.partial(os.mkdir, str(marker))), folder),
        "map": (Calls(list, Calls(map, os.mkdir, [str(marker)])), ".list"),
        "path": (Calls(Path.mkdir, marker), "pathlib."),
        "subprocess": (Calls(subprocess.call, ["mkdir", str(marker)]), ".call"),
        "getattr": (Calls(Calls(getattr, Calls(__import__, "os"), "mkdir"), str(marker)), ".getattr"),
    }


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a model"])
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", runs_in_pickle(Path()))
def test_code_in_a_file_never_runs(tmp_path, refused, kind, protocol, inside):
    marker = tmp_path / "marker"
    content, name = runs_in_pickle(marker)[kind]
    if kind == "path" and protocol < 4:
        name = "getattr"  # how older protocols reach a method
    root = MusicTransformer3()
    root.hook = content
    with published_program():
        pickled = pickle.dumps(root if inside else content, protocol)
    message = refused(as_file(tmp_path / "code.pth", pickled))
    if not (inside and protocol < 2):  # then the name of what rebuilds objects comes first
        assert f"{name}" in message
        assert "names " in message
    assert "which no published checkpoint does, so it is not imported (it could run code)" in message
    assert not marker.exists()
    pickle.loads(pickle.dumps(content, protocol))  # the same by pickle does run
    assert marker.exists()


def as_text(string: str) -> bytes:
    """The operation that puts a string on pickle's stack."""
    return b"X" + len(string.encode()).to_bytes(4, "little") + string.encode()


def calling_what_is_listed(marker: Path) -> dict[str, bytes]:
    """Pickles of listed names alone, or by operations that name nothing; by hand, as no pickler would write them."""
    mkdir = f"c{os.mkdir.__module__}\nmkdir\n".encode()
    return {
        "a partial that is called": b"\x80\x02cfunctools\npartial\nctorch.nn.functional\nsoftmax\n\x85R)R.",
        "a codec": b"\x80\x02c_codecs\nencode\n" + as_text("payload") + as_text("zlib_codec") + b"\x86R.",
        "names with dots": b"\x80\x02ctorch.nn.functional\nsoftmax.__globals__\n.",
        "names with dots, protocol 4": (b"\x80\x04" + as_text("torch._utils")
                                        + as_text("_rebuild_parameter.__globals__") + b"\x93."),
        "a module as a name": b"\x80\x02ctorch\n_utils\n.",
        "the name split elsewhere": b"\x80\x02ctorch._utils._rebuild_tensor_v2\n\n.",
        "state for a class": b"\x80\x02ccollections\nOrderedDict\n}" + as_text("__init__") + b"I1\nsb.",
        "slots for a class": b"\x80\x02cfunctools\npartial\nN}" + as_text("__new__") + b"I1\ns\x86b.",
        "slots for a function": b"\x80\x02ctorch._utils\n_rebuild_parameter\nN}" + as_text("__code__") + b"I1\ns\x86b.",
        "attributes for a dictionary": (b"\x80\x02ccollections\nOrderedDict\n)RN}" + as_text("items")
                                        + b"ctorch\nFloatStorage\ns\x86b."),
        "an item for a placeholder": b"\x80\x02cnumpy\ndtype\n)RI1\nI2\ns.",
        "the registry": b"\x80\x02\x82\xf0" + as_text(str(marker)) + b"\x85R.",
        "an old instance": b"(" + as_text(str(marker)) + f"i{os.mkdir.__module__}\nmkdir\n.".encode(),
        "an old object": b"(" + mkdir + as_text(str(marker)) + b"o.",
        "a new object": b"\x80\x02" + mkdir + as_text(str(marker)) + b"\x85\x81.",
        "a storage of another type": b"\x80\x02(" + as_text("storage") + b"ctorch\nHalfStorage\nQ.",
        "a persistent name": b"\x80\x02Pos.mkdir\n.",
        "rebuilding objects": b"\x80\x02ccopyreg\n_reconstructor\n" + mkdir + b"\x85R.",
    }


@pytest.mark.parametrize("kind", calling_what_is_listed(Path()))
def test_listed_names_are_not_called(tmp_path, refused, kind):
    marker = tmp_path / "marker"
    copyreg.add_extension(os.mkdir.__module__, "mkdir", 0xf0)
    try:
        message = refused(as_file(tmp_path / "code.pth", calling_what_is_listed(marker)[kind]))
    finally:
        copyreg.remove_extension(os.mkdir.__module__, "mkdir", 0xf0)
    assert any(text in message for text in ("names ", "its pickle ", "holds no pickled"))
    assert not marker.exists()
    assert functools.partial(int, "7")() == 7
    assert collections.OrderedDict(a=1).items()


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "ünïcode", "x" * 5000])
def test_a_strange_name_cannot_spoil_the_message(tmp_path, refused, name):
    message = refused(as_file(tmp_path / "code.pth", b"\x80\x04" + as_text("os") + as_text(name) + b"\x93."))
    assert "names " in message
    assert message.isprintable()


# ---------------------------------------------------------------- forged tensors and archives


def rebuild(*arguments: Any) -> Calls:
    return Calls(torch._utils._rebuild_tensor_v2, *arguments, False, collections.OrderedDict())


def numbers(n: int) -> torch.storage.TypedStorage:
    return torch.storage.TypedStorage(wrap_storage=torch.ones(n).untyped_storage(), dtype=torch.float32, _internal=True)


@pytest.mark.parametrize("record", [
    rebuild(numbers(6), 1, (2, 3), (3, 1)),  # past the end
    rebuild(numbers(6), 10**9, (2, 3), (3, 1)), rebuild(numbers(6), 2**70, (2, 3), (3, 1)),
    rebuild(numbers(6), -1, (2, 3), (3, 1)), rebuild(numbers(6), 0, (2, -3), (3, 1)),
    rebuild(numbers(6), 0, (2, 3), (1, 2)), rebuild(numbers(1), 0, (10**6, 10**6), (0, 0)),  # strides
    rebuild(numbers(6), 0, (10**9, 10**9), (10**9, 1)), rebuild(numbers(6), 0, (2, 3), (3,)),
    rebuild(numbers(6), 0, (1,) * 100, (1,) * 100), rebuild(numbers(6), 0, (0, 3), (3, 1)),
    rebuild(numbers(6), 0.0, (2, 3), (3, 1)), rebuild(numbers(6), False, (2, 3), (3, 1)),
    rebuild(numbers(6), 0, [2, 3], [3, 1]), rebuild("storage", 0, (2, 3), (3, 1)), rebuild(), rebuild(None),
    Calls(torch._utils._rebuild_parameter, 3, False, None), Calls(torch._utils._rebuild_parameter), "text", 3, [1],
    torch.float32, numbers(3), Calls(functools.partial, numbers(3)),
], ids=itertools.count())
def test_a_forged_tensor_is_refused(tmp_path, refused, record):
    root = MusicTransformer3()
    root._parameters["weight"] = record
    message = refused(save(root, tmp_path / "forged.pth"))
    assert "weight is no contiguous float32 tensor" in message or "the numbers of weight are missing" in message


def test_tensors_that_share_their_numbers_are_refused(tmp_path, refused):
    root = MusicTransformer3()
    root._buffers["a"] = root._buffers["b"] = torch.ones(3)  # one storage of a megabyte, a million times
    assert "the numbers of b are missing, too few, or another tensor's" in refused(save(root, tmp_path / "shared.pth"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16, torch.int64, torch.uint8])
def test_other_types_of_numbers_are_refused(tmp_path, refused, dtype):
    root = MusicTransformer3()
    root._buffers["a"] = torch.ones(3, dtype=dtype)
    assert "names torch." in refused(save(root, tmp_path / "typed.pth"))


def test_modules_that_hold_each_other_are_refused(tmp_path, refused):
    root, middle, deep = MusicTransformer3(), nn.ModuleList(), nn.ModuleList()
    root._modules["model"], middle._modules["0"] = middle, root
    assert "model.0. is no module, or one met before" in refused(save(root, tmp_path / "circle.pth"))
    middle._modules = {"0": nn.Identity(), "1": "text"}
    assert "model.1. is no module" in refused(save(root, tmp_path / "text.pth"))
    middle._modules = {3: nn.Identity()}
    assert "model. has a part without a proper name" in refused(save(root, tmp_path / "number.pth"))
    root._modules["model"] = deep
    for _ in range(30):
        deep._modules["0"] = nn.ModuleList()
        deep = deep._modules["0"]
    assert "is no module, or one met before" in refused(save(root, tmp_path / "deep.pth"))


@pytest.mark.parametrize("pickled", [
    b"\x80\x02Nr\xff\xff\xff\x7f.", b"\x80\x02Np99999999999\n.",  # memories of 16 gigabytes and more
    b"\x80\x02}K\x01" + b"\x85" * 10**6 + b"K\x02s.",  # hashing this recurses until the stack is full
    b"\x80\x02}K\x01" + b"\x85" * (MOST_TUPLES - 1) + b"K\x02s.",
    b"\x80\x02" + b"(" * 10**6 + b".", b"\x80\x02" + b"N0" * LARGEST_PICKLE + b"N.",
    b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x00.", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x00N.", b"\x80\x02\x8b\xff\xff\xff\x7f.", b"", b".", b"\x80\x63N.", b"N",
], ids=itertools.count())
def test_a_pickle_bomb_is_refused(tmp_path, pickled):
    path = as_file(tmp_path / "bomb.pth", pickled)
    limited = ("import sys; from pathlib import Path; from backline.training import published_pickle\n"
               "from backline.common.errors import UserError\n"
               "try:\n    import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
               "except (ImportError, ValueError, OSError): pass\n"
               "try: published_pickle.read_published(Path(sys.argv[1]))\n"
               "except UserError as err: sys.exit(f'refused: {err}')")
    done = subprocess.run([sys.executable, "-c", limited, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("refused: "), done.stderr
    assert done.returncode == 1


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path, refused):
    path, zeros = tmp_path / "bomb.pth", bytes(10**7)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", zeros)
    assert "its archive is compressed, or its parts overlap" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:  # one after another at the same place
        archive.writestr("model/data.pkl", b"N.")
        archive.writestr("model/data/0", zeros)
        entry = archive.filelist[-1]
        for i in range(1, 100):
            other = zipfile.ZipInfo(f"model/data/{i}")
            other.header_offset, other.CRC = entry.header_offset, entry.CRC
            other.file_size = other.compress_size = entry.file_size
            archive.filelist.append(other)
    assert "its archive is compressed, or its parts overlap" in refused(path)


def test_an_archive_in_an_archive_is_another_kind_of_file(published, tmp_path, refused):
    save(published, tmp_path / "inner.pth")
    with zipfile.ZipFile(tmp_path / "outer.pth", "w") as archive:
        archive.write(tmp_path / "inner.pth", "inner.pth")
    assert "an archive, but not of one pickled model" in refused(tmp_path / "outer.pth")


def test_a_damaged_file_is_refused(published, tmp_path, refused):
    path = save(published, tmp_path / "published.pth")
    data = path.read_bytes()
    for length in [*range(0, len(data), len(data) // 8), len(data) - 1]:
        path.write_bytes(data[:length])
        assert "damaged, or not the archive that torch.save makes since PyTorch 1.6" in refused(path)
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1  # a weight: the archive's checksum tells
    path.write_bytes(changed)
    assert "damaged" in refused(path)


def test_other_kinds_of_file_are_refused(tmp_path, refused):
    path, tiny = tmp_path / "other.pth", PooledTransformer(ModelConfig.for_vocabulary(
        VOCABULARY, emb_sizes=(8, 8, 8, 8), n_layers=1, n_heads=1, d_model=8))
    for content in (b"", b"weights", b"MThd\0\0\0\6\0\1\0\1\0\x60", b'{"ids": []}', pickle.dumps(Calls(os.getcwd))):
        path.write_bytes(content)
        assert "damaged, or not the archive that torch.save makes since PyTorch 1.6" in refused(path)
    save(torch.ones(2), path, _use_new_zipfile_serialization=False)
    assert "since PyTorch 1.6" in refused(path)
    save_checkpoint(path, tiny, VOCABULARY, {})
    assert "this project's own need no import" in refused(path)
    assert "this project's own need no import" in refused(save(nn.Linear(2, 2), path))
    assert "this project's own need no import" in refused(save(nn.Linear(2, 2).state_dict(), path))
    assert f"{OTHER}: missing model.blocks" not in refused(save(MusicTransformer3(), path))
    assert "names model.PooledTransformer, which no published checkpoint does" in refused(save(tiny, path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", b"<w/>")
    assert "an archive, but not of one pickled model" in refused(path)
    root = io.BytesIO()
    with published_program():
        pickle.dump(MusicTransformer3(), root, 2)
    assert "big-endian" in refused(as_file(path, root.getvalue(), byteorder=b"big"))


def test_read_published_leaves_naming_the_file_to_its_caller(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(UserError, match=r"^damaged"):
        read_published(tmp_path / "f")
