"""What is to be measured: requests from tables, merged into one plan that is data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from bpqp_bench.errors import SpecError
from bpqp_bench.problem.family import TEMPLATE_SEED, FamilyChoice
from bpqp_bench.problem.instance import DATA_NAMES, Size

if TYPE_CHECKING:
    from bpqp_bench.plugins.registry import Registry

# A call that takes longer than this feels no warm-up; further ones would only cost.
NO_WARMUP_S = 2.0
_MAX_INSTANCES = 1_000_000
UPSTREAMS = ("ones", "random", "family")


@dataclass(frozen=True)
class Request:
    """Ask for every method on every family at every size, on instances 0, 1, ….

    A table (or the command line) asks; overlapping requests are merged by the plan, the larger
    number of instances and the larger limits winning.

    Attributes
    ----------
    methods, families, sizes
        Specifications as on the command line. A family whose parameters leave one size has that
        one and none of ``sizes``.
    instances, first_seed
        Seeds ``first_seed … first_seed + instances − 1``.
    call_limit_s, build_limit_s, cell_budget_s
        Limits on one pass, on `build`, and on all measured calls of a cell (None: no budget).
    warmups
        Further calls before counting, after the first.
    wrt, dtype, device, threads
        The rest of the cell.
    batch
        B problems a call: instance i is then the seeds i·B to (i + 1)·B − 1.
    upstream
        v = ∂L/∂z*: "ones", "random" (standard normal, by seed), or "" for what the family declares.
    """

    methods: tuple[str, ...]
    families: tuple[str, ...]
    sizes: tuple[str, ...]
    instances: int
    call_limit_s: float
    build_limit_s: float = 60.0
    cell_budget_s: float | None = None
    first_seed: int = 0
    warmups: int = 1
    wrt: tuple[str, ...] = ("q",)
    batch: int = 1
    dtype: str = "float64"
    device: str = "cpu"
    threads: int = 1
    upstream: str = ""


@dataclass(frozen=True)
class Cell:
    """One method on one family and size, in one setting, with its instances and limits.

    Attributes
    ----------
    method, label
        Canonical specification and printed name.
    worker
        Name of the method class; cells of one class share a worker process.
    seeds
        Instances, ascending.
    call_limit_s, build_limit_s, cell_budget_s, warmups
        As in `Request`.
    """

    method: str
    label: str
    worker: str
    seeds: tuple[int, ...]
    call_limit_s: float
    build_limit_s: float
    cell_budget_s: float | None
    warmups: int

    def merged(self, other: Cell) -> Cell:
        """Return the cell that serves both: all instances of either, the larger limits."""
        budgets = (self.cell_budget_s, other.cell_budget_s)
        return replace(
            self,
            seeds=tuple(sorted({*self.seeds, *other.seeds})),
            call_limit_s=max(self.call_limit_s, other.call_limit_s),
            build_limit_s=max(self.build_limit_s, other.build_limit_s),
            cell_budget_s=None if None in budgets else max(b for b in budgets if b is not None),
            warmups=max(self.warmups, other.warmups),
        )


@dataclass(frozen=True)
class Block:
    """All cells that share their instances and setting, so that their times are paired."""

    family: str
    problem_class: str
    size: str
    wrt: tuple[str, ...]
    batch: int
    dtype: str
    device: str
    threads: int
    cells: tuple[Cell, ...]
    upstream: str = "ones"

    @property
    def key(self) -> str:
        """Identity by content, without its cells: "qp 10x5 wrt=q batch=1 float64 cpu threads=1"."""
        key = (
            f"{self.family} {self.size} wrt={','.join(self.wrt)} batch={self.batch} "
            f"{self.dtype} {self.device} threads={self.threads}"
        )
        return key if self.upstream == "ones" else f"{key} upstream={self.upstream}"

    def with_cells(self, cells: Iterable[Cell]) -> Block:
        """Return the block with further cells, those of one method merged."""
        merged = {cell.method: cell for cell in self.cells}
        for cell in cells:
            known = merged.get(cell.method)
            merged[cell.method] = cell if known is None else known.merged(cell)
        return replace(self, cells=tuple(merged[method] for method in sorted(merged)))

    @property
    def n(self) -> int:
        """Number of variables."""
        return Size.parse(self.size).n

    @property
    def dimension(self) -> int:
        """Order of the full KKT matrix of a QP of this size, n + 2m."""
        size = Size.parse(self.size)
        return size.n + 2 * size.m

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every instance that some cell of the block wants, ascending."""
        return tuple(sorted({seed for cell in self.cells for seed in cell.seeds}))

    @property
    def calls(self) -> int:
        """Number of calls that are counted, at most."""
        return sum(len(cell.seeds) for cell in self.cells)


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``, counted from 1 as on the command line."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "2/5".

        Raises
        ------
        SpecError
            If the text is not k/n with 1 ≤ k ≤ n.
        """
        first, _, second = text.partition("/")
        try:
            index, count = int(first), int(second)
        except ValueError:
            raise SpecError(f"shard {text!r} is not of the form K/N, for example 1/4") from None
        if not 1 <= index <= count:
            raise SpecError(f"shard {text!r} needs 1 ≤ K ≤ N")
        return cls(index, count)


@dataclass(frozen=True)
class Plan:
    """Blocks in the order in which they run, large sizes first.

    What does not fit, in memory or in time, then shows early, and so does how long the rest takes:
    times carry over from large sizes to small ones better than the other way round.
    """

    blocks: tuple[Block, ...]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return sum(len(block.cells) for block in self.blocks)

    @property
    def calls(self) -> int:
        """Number of calls that are counted, at most: cells may end at their budget."""
        return sum(block.calls for block in self.blocks)

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def shard(self, shard: Shard) -> Plan:
        """Return one part of the plan; the parts are disjoint and together are the plan.

        Blocks stay whole, so that everything which is compared with each other is measured on one
        machine. They are dealt out by a guess of their cost, dearest first, to the part that has
        least; the deal depends on the content of the plan alone.
        """
        loads = [0.0] * shard.count
        chosen: set[str] = set()
        for block in sorted(self.blocks, key=lambda block: (-_cost(block), block.key)):
            part = loads.index(min(loads))
            loads[part] += _cost(block)
            if part == shard.index - 1:
                chosen.add(block.key)
        return Plan(tuple(block for block in self.blocks if block.key in chosen))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: object) -> Plan:
        """Read what `to_dict` returned; msgspec.ValidationError says what is wrong with it."""
        return msgspec.convert(data, cls)

    def describe(self) -> str:
        """Print the plan, one line a cell."""
        lines: list[str] = []
        for block in self.blocks:
            lines.append(f"{block.key}: {len(block.cells)} methods, {len(block.seeds)} instances")
            for cell in block.cells:
                budget = "none" if cell.cell_budget_s is None else f"{cell.cell_budget_s:g} s"
                lines.append(
                    f"  {cell.method}: seeds {_ranges(cell.seeds)}, {cell.warmups} warm-ups, "
                    f"limits {cell.call_limit_s:g} s a pass and {cell.build_limit_s:g} s a build, "
                    f"budget {budget}"
                )
        lines.append(
            f"{len(self.blocks)} blocks, {self.cells} cells, at most {self.calls} counted calls"
        )
        return "\n".join(lines)


def make_plan(requests: Sequence[Request], registry: Registry) -> Plan:
    """Merge requests into one plan, in which nothing occurs twice.

    Raises
    ------
    SpecError
        If a method, family, size, parameter or number is not one, or nothing is asked for.
    """
    blocks: dict[str, Block] = {}
    for request in requests:
        _check(request)
        for family_text in request.families:
            family = registry.family(family_text)
            own = family.size
            if own is None and not request.sizes:
                raise SpecError(f"no size named for {family.key}; use --size or --profile")
            for size_text in request.sizes if own is None else (str(own),):
                block = Block(
                    family=family.key,
                    problem_class=family.family.problem_class,
                    size=str(Size.parse(size_text)),
                    wrt=tuple(name for name in DATA_NAMES if name in request.wrt),
                    batch=request.batch,
                    dtype=request.dtype,
                    device=request.device,
                    threads=request.threads,
                    cells=(),
                    upstream=request.upstream or _declared_upstream(family),
                )
                cells = [_cell(request, registry, text) for text in request.methods]
                blocks[block.key] = blocks.get(block.key, block).with_cells(cells)
    filled = [block for block in blocks.values() if block.cells]
    if not filled:
        raise SpecError("nothing to run: name at least one method, one family and one size")
    return Plan(tuple(sorted(filled, key=lambda block: (-block.n, -block.dimension, block.key))))


def _cell(request: Request, registry: Registry, text: str) -> Cell:
    method = registry.method(text)
    if reason := method.cls.refuses(request.device, request.dtype):
        raise SpecError(reason)
    budget = request.cell_budget_s
    return Cell(
        method=method.key,
        label=method.label,
        worker=method.cls.name,
        seeds=tuple(range(request.first_seed, request.first_seed + request.instances)),
        call_limit_s=float(request.call_limit_s),
        build_limit_s=float(request.build_limit_s),
        cell_budget_s=None if budget is None else float(budget),
        warmups=request.warmups,
    )


def _check(request: Request) -> None:
    if request.first_seed < 0:
        raise SpecError(f"first seed {request.first_seed} is negative; seeds are 0, 1, 2, …")
    if not 1 <= request.instances <= _MAX_INSTANCES:
        raise SpecError(f"{request.instances} instances asked for; ask for at least 1")
    if request.batch < 1:
        raise SpecError(f"a batch of {request.batch} asked for; ask for at least 1")
    if request.upstream not in ("", *UPSTREAMS):
        raise SpecError(f"upstream={request.upstream} is not one of {', '.join(UPSTREAMS)}")
    if (request.first_seed + request.instances) * request.batch > TEMPLATE_SEED:
        raise SpecError(f"seeds go up to {TEMPLATE_SEED - 1}; those above are kept for warm-up")
    if request.warmups < 0:
        raise SpecError(f"{request.warmups} warm-up calls asked for; ask for 0 or more")
    for name in ("call_limit_s", "build_limit_s", "cell_budget_s"):
        value = getattr(request, name)
        if value is not None and not value > 0:
            raise SpecError(f"{name} = {value:g} is not a positive number of seconds")
    if request.threads < 1:
        raise SpecError(f"{request.threads} threads asked for; ask for at least 1")
    unknown = [name for name in request.wrt if name not in DATA_NAMES]
    if unknown or not request.wrt:
        known = ",".join(DATA_NAMES)
        raise SpecError(f"no gradient with respect to {','.join(unknown) or '()'}; use {known}")


def _declared_upstream(family: FamilyChoice) -> str:
    return "ones" if family.family.upstream is None else "family"


def batch_seeds(seed: int, batch: int) -> range:
    """Return the seeds of the problems of batch number ``seed``; a template is one problem."""
    if seed == TEMPLATE_SEED:
        return range(seed, seed + 1)
    first = seed if seed > TEMPLATE_SEED else seed * batch
    return range(first, first + batch)


def _cost(block: Block) -> float:
    # Only proportions matter: a fixed part for starting and building, a part that grows with n.
    growth = 1e-3 + 1e-8 * float(block.dimension**2.5)
    return sum((0.1 + len(cell.seeds) * growth) for cell in block.cells)


def _ranges(seeds: Iterable[int]) -> str:
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and parts[-1][1] == seed - 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)
