"""What is measured: shapes, the lists of each, and the named presets. Finds the package seer of this checkout."""
import dataclasses
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

BLOCK = 64
DTYPES = ("bf16", "f16")
KINDS = ("random", "gate")


@dataclasses.dataclass(frozen=True)
class Shape:
    """Inputs that all lists of a group share. The queries are the last len_q of len_k tokens."""
    len_q: int
    len_k: int
    heads_q: int = 32
    heads_kv: int = 32
    head_dim: int = 128
    dtype: str = "bf16"

    def __post_init__(self):
        if self.len_q % BLOCK or self.len_k % BLOCK or not 0 < self.len_q <= self.len_k:
            raise ValueError(f"lengths {self.len_q}, {self.len_k}: want multiples of {BLOCK}, queries at most keys")
        if self.heads_q % self.heads_kv:
            raise ValueError(f"{self.heads_q} query heads over {self.heads_kv} kv heads")

    @property
    def rows(self):
        return self.len_q // BLOCK

    @property
    def blocks(self):
        return self.len_k // BLOCK

    @property
    def offset(self):
        """Key blocks before the first query block."""
        return self.blocks - self.rows

    def packing(self, device):
        """seer.Packing of the one sequence."""
        import seer
        return seer.Packing.from_lengths([self.len_q], [self.len_k], BLOCK, device=device)

    @property
    def scale(self):
        return self.head_dim ** -0.5

    @property
    def visible(self):
        """Pairs of blocks of one head that the causal rule lets through."""
        return self.rows * self.offset + self.rows * (self.rows + 1) // 2

    def kept_flop(self, listed):
        """Two products of 64 x 64 x head_dim for each listed block; `listed` counts all query heads."""
        return 4 * BLOCK * BLOCK * self.head_dim * listed

    def __str__(self):
        queries = "" if self.len_q == self.len_k else f"{short(self.len_q)} queries on "
        return f"{queries}{short(self.len_k)}, heads {self.heads_q}/{self.heads_kv}, D {self.head_dim}, {self.dtype}"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One set of lists of a shape."""
    lists: str       # random or gate
    density: float   # wished share of the visible blocks
    list_heads: int  # the query heads, or the kv heads

    def __str__(self):
        return f"{self.lists} {self.density:g}, {self.list_heads} lists"


def short(tokens):
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


def variants(shape, densities, kinds=KINDS, list_heads=("q",)):
    """At density 1 every kind gives the same lists: only the first is kept."""
    found = {}
    for per in list_heads:
        heads = shape.heads_q if per == "q" else shape.heads_kv
        for kind in kinds:
            for density in densities:
                kind_of = kinds[0] if density >= 1 else kind
                found[Variant(kind_of, density, heads)] = None
    return list(found)


def targets():
    """The groups that goals are set on, the most telling first."""
    groups = []
    for len_q, len_k, densities in ((32768, 32768, (.1, .05, .2, .5, 1., .02)), (131072, 131072, (.1, 1.)),
                                    (8192, 8192, (.1, 1.)), (2048, 131072, (.1,))):
        for heads_kv in (32, 8):
            shape = Shape(len_q, len_k, heads_kv=heads_kv)
            of = variants(shape, densities)
            if len_q == 32768 and heads_kv == 8:
                of += variants(shape, (.1,), list_heads=("kv",))
            groups.append((shape, of))
    return groups


def full():
    """All lengths and densities of one shape, then shapes that differ from it in one thing or two.

    Lists are gate's, but random below 8k, where a window and a sink alone would be dense. At 256k FlexAttention's
    tables take 4 GB for each density, so there are two.
    """
    every, two = (.02, .05, .1, .2, .5, 1.), (.1, 1.)
    square = lambda length, heads_kv=8, **more: Shape(length, length, heads_kv=heads_kv, **more)
    groups = [(square(length), every) for length in (32768, 131072, 8192, 65536, 16384, 4096, 2048)]
    groups += [(square(262144), (.02, .1)), (Shape(2048, 131072, heads_kv=8), (.02, .1, .5)),
               (square(32768, heads_kv=32), two), (square(32768, head_dim=64), two), (square(32768, dtype="f16"), two),
               (Shape(2048, 131072), (.1,)), (square(8192, head_dim=96), two), (square(8192, head_dim=256), two),
               (square(8192, heads_kv=32, head_dim=64, dtype="f16"), two)]
    return [(shape, variants(shape, densities, ("gate",) if shape.len_k >= 8192 else ("random",),
                             ("q", "kv") if shape.offset else ("q",))) for shape, densities in groups]


def quick():
    """Half a minute, most of it compilation of FlexAttention: does everything run, and is it right?"""
    whole, chunk = Shape(4096, 4096, heads_kv=8), Shape(1024, 8192, heads_kv=8, head_dim=64)
    return [(whole, variants(whole, (.1, 1.), list_heads=("q", "kv"))), (chunk, variants(chunk, (.1,)))]


PRESETS = {"targets": targets, "full": full, "quick": quick}
