"""Plans: merged, complete, splittable, and refused where they make no sense."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bpqp_bench.errors import SpecError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.runner.plan import Plan, Request, Shard, make_plan

BASE = Request(
    methods=("exact", "exact-solve"),
    families=("qp", "lp"),
    sizes=("10x5", "50x10"),
    instances=3,
    call_limit_s=10.0,
    build_limit_s=20.0,
    cell_budget_s=4.0,
)


def identities(plan: Plan) -> list[tuple[str, str, int]]:
    return [
        (block.key, cell.method, seed)
        for block in plan.blocks
        for cell in block.cells
        for seed in cell.seeds
    ]


def test_plan_holds_every_combination_once(registry: Registry) -> None:
    plan = make_plan([BASE], registry)
    found = identities(plan)
    assert len(found) == len(set(found)) == plan.calls == 2 * 2 * 2 * 3
    assert plan.cells == 8
    assert [block.size for block in plan.blocks] == ["50x10", "50x10", "10x5", "10x5"]


def test_requests_merge_with_the_larger_numbers(registry: Registry) -> None:
    more = replace(
        BASE,
        methods=("exact[backward=solve]",),  # the same as exact-solve
        families=("qp",),
        sizes=("10X5",),
        instances=2,
        first_seed=2,
        call_limit_s=5.0,
        build_limit_s=99.0,
        cell_budget_s=None,
        warmups=4,
    )
    plan = make_plan([BASE, more], registry)
    assert plan == make_plan([more, BASE], registry)
    assert plan.cells == 8
    (block,) = [b for b in plan.blocks if (b.family, b.size) == ("qp", "10x5")]
    plain, merged = block.cells
    assert (plain.method, plain.seeds, plain.warmups) == ("exact", (0, 1, 2), 1)
    assert merged.seeds == block.seeds == (0, 1, 2, 3)
    assert (merged.call_limit_s, merged.build_limit_s) == (10.0, 99.0)
    assert (merged.cell_budget_s, merged.warmups) == (None, 4)


def test_settings_are_blocks_of_their_own(registry: Registry) -> None:
    plan = make_plan([BASE, replace(BASE, threads=2), replace(BASE, wrt=("b", "q"))], registry)
    assert len(plan.blocks) == 12
    assert {block.wrt for block in plan.blocks} == {("q",), ("q", "b")}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_disjoint_complete_and_keep_blocks_whole(registry: Registry, count: int) -> None:
    plan = make_plan([BASE, replace(BASE, sizes=("100x20", "20x5", "30x5"))], registry)
    parts = [plan.shard(Shard(index, count)) for index in range(1, count + 1)]
    together = [identity for part in parts for identity in identities(part)]
    assert sorted(together) == sorted(identities(plan))
    for part in parts:
        assert all(block in plan.blocks for block in part.blocks)
    sizes = [len(part.blocks) for part in parts]
    assert count == 1 or max(sizes) < len(plan.blocks)


def test_shard_does_not_depend_on_the_order_of_requests(registry: Registry) -> None:
    other = replace(BASE, sizes=("100x20",))
    one = make_plan([BASE, other], registry).shard(Shard(1, 3))
    two = make_plan([other, BASE], registry).shard(Shard(1, 3))
    assert one == two


def test_plan_survives_json(registry: Registry) -> None:
    plan = make_plan([BASE, replace(BASE, wrt=("q", "P"), cell_budget_s=None)], registry)
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.sha256 == plan.sha256
    assert make_plan([BASE], registry).sha256 != plan.sha256


def test_description_names_every_cell_and_its_instances(registry: Registry) -> None:
    text = make_plan([replace(BASE, first_seed=7)], registry).describe()
    assert text.count("seeds 7-9") == 8
    assert "exact[backward=solve]" in text
    assert "at most 24 counted calls" in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"methods": ("nobody",)}, "unknown method 'nobody'"),
        ({"families": ("nothing",)}, "unknown problem family 'nothing'"),
        ({"sizes": ("5",)}, "not of the form NxM"),
        ({"methods": ()}, "nothing to run"),
        ({"first_seed": -3}, "first seed -3 is negative"),
        ({"first_seed": 2**31 - 1}, "kept for warm-up"),
        ({"instances": 0}, "0 instances"),
        ({"warmups": -1}, "-1 warm-up"),
        ({"call_limit_s": 0.0}, "call_limit_s = 0"),
        ({"cell_budget_s": float("nan")}, "cell_budget_s = nan"),
        ({"threads": 0}, "0 threads"),
        ({"wrt": ()}, "no gradient with respect to"),
        ({"batch": 0}, "a batch of 0"),
        ({"batch": 2**31}, "kept for warm-up"),
        ({"dtype": "float16"}, "float16"),
        ({"device": "tpu"}, "does not compute on tpu"),
        ({"upstream": "twos"}, "upstream=twos"),
    ],
)
def test_nonsense_is_refused(registry: Registry, change: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says) as error:
        make_plan([replace(BASE, **change)], registry)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3"])
def test_bad_shards_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="shard"):
        Shard.parse(text)
