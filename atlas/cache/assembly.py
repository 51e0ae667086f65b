"""Assemble an output from rows found by key, and check that nothing of it is missing."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from atlas.cache.keys import SIZE
from atlas.cache.memos import Memos
from atlas.cache.stacks import Stack, points
from atlas.cache.stores import array, begin, copy_shard, fill, group_at, read, tables_per_shard, values, whole
from atlas.cache.tables import KEY, bytes_of, inner, parts, shard, small
from atlas.study.errors import UserError


def assemble(stack: Stack, memos: Memos, root: Path, shard_rows: int) -> None:
    """Write the group of a stack; a shard whose rows a memo holds in the same place is copied as a file."""
    like, count = stack.like, len(stack.tables)
    lead = like.keys.shape[:-1]
    size, one = int(np.prod(lead, dtype=int)), (1,) * bool(stack.dim)
    group = group_at(root / stack.group, stack.attrs)
    for name, (dims, labels) in stack.coords.items():
        if dims != (name,) or not np.array_equal(labels, np.arange(len(labels))):  # else a label is its own position
            array(group, name, np.asarray(labels), dims, {})
    if stack.dim:
        names = [name for name, table in stack.tables.items() for _ in range(points(table) if stack.spread else 1)]
        array(group, stack.dim, np.array(names, np.dtypes.StringDType()), (stack.dim,), {})
    arrays = _begin(group, stack, shard(like, shard_rows))
    keys = np.zeros((count, size, 2 * SIZE), "uint8")
    for at, (table, stop) in enumerate(zip(stack.tables.values(), stack.ends, strict=True)):
        keys[at, :, :SIZE] = table.keys.reshape(-1, SIZE)
        for part in parts(range(size), table, shard_rows):
            start, end = part[0] // inner(lead), (part[-1] + 1) // inner(lead)
            wanted = [keys[at, i, :SIZE].tobytes() for i in part]
            if (digests := _copied(memos, wanted, arrays, (*(at,) * len(one), start))) is not None:
                keys[at, part, SIZE:] = digests
                continue
            asked = np.flatnonzero(keys[at, part, :SIZE].any(axis=1))
            rows, keys[at, part[0] + asked, SIZE:] = memos.read([wanted[i] for i in asked], table.fields)
            for name, field in table.fields.items():
                block = np.full((len(part), *field.shape), fill(field.dtype), field.dtype)
                block[asked] = rows[name]
                if stack.spread:
                    block = np.moveaxis(block.reshape(end - start, *lead[1:], -1), -1, 0)
                    arrays[name][stop - len(block) : stop, start:end] = block
                else:
                    place = (*(at,) * len(one), slice(start, end))
                    arrays[name][place] = block.reshape(end - start, *lead[1:], *field.shape)
    for name, made in arrays.items():
        if isinstance(made, np.ndarray):
            layout: dict[str, Any] = {"lead": len(one) + len(lead), "shard": shard(like, shard_rows)}
            layout["stacked"] = bool(stack.dim and not stack.spread)
            array(group, name, made, *_described(stack, name), **layout)
    dims = (*("table" if stack.spread else stack.dim,) * len(one), *like.dims, "byte")
    array(group, KEY, keys.reshape(*(count,) * len(one), *lead, 2 * SIZE), dims, {}, lead=len(dims) - 1)


def check(root: Path, stacks: list[Stack], groups: dict[str, dict]) -> None:
    """Check that an assembled output has every group, and every row of every table.

    Raises:
        UserError: something is missing; the message names it.
    """
    for name in groups:
        read(root / name, "what was assembled")
    for stack in stacks:
        group: Any = read(root / stack.group, "what was assembled")
        keys = np.stack([table.keys for table in stack.tables.values()])
        if not np.array_equal(values(group, KEY)[..., :SIZE], keys if stack.dim else keys[0]):
            raise UserError(f"{root / stack.group}: rows of it are not there; nothing is lost: run again")
        for name in stack.like.fields:
            found = group.get(name)
            if found is None or found.shape[: len(_shape(stack))] != _shape(stack) or not whole(found):
                raise UserError(f"{root / stack.group / name}: rows of it are not there; nothing is lost: run again")


def _begin(group: zarr.Group, stack: Stack, shard: int) -> dict[str, Any]:
    """Create a stack's arrays: in memory if rows are small, or several tables share a shard, to be written whole."""
    rows, fields = stack.like.keys[..., 0].size, stack.like.fields
    size = rows * max(map(bytes_of, fields.values()))
    together = stack.dim and shard >= len(stack.like.keys) and tables_per_shard(size) > 1
    if stack.spread or small(fields) or together:
        return {
            name: np.empty((*_shape(stack), *(() if stack.spread else field.shape)), field.dtype)
            for name, field in fields.items()
        }
    shape, stacked = _shape(stack), bool(stack.dim)
    return {
        name: begin(
            group,
            name,
            (*shape, *field.shape),
            field.dtype,
            *_described(stack, name),
            lead=len(shape),
            shard=shard,
            stacked=stacked,
        )
        for name, field in fields.items()
    }


def _shape(stack: Stack) -> tuple[int, ...]:
    """Return the number of places along the dimension of the stack, and along those of rows."""
    return (*(stack.ends[-1],) * bool(stack.dim), *stack.like.keys.shape[:-1])


def _described(stack: Stack, name: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the dimensions of an array, and the attributes that all tables give it."""
    like = stack.like
    dims = (*(stack.dim,) * bool(stack.dim), *like.dims, *(() if stack.spread else like.fields[name].dims))
    given = [dict(table.fields[name].attrs) for table in stack.tables.values()]
    attrs = {key: value for key, value in given[0].items() if all(one.get(key) == value for one in given)}
    auxiliary = " ".join(name for name, (dims, _) in stack.coords.items() if dims != (name,))  # CF convention
    return dims, attrs | ({"coordinates": auxiliary} if auxiliary else {})


def _copied(memos: Memos, keys: list[bytes], arrays: dict[str, Any], to: tuple[int, ...]) -> np.ndarray | None:
    """Copy the shards of some rows if a memo holds them in the same layout; return the rows' digests if so."""
    sharded = all(not isinstance(one, np.ndarray) and one.shards for one in arrays.values())
    run = memos.run(keys) if sharded else None
    if run is None:
        return None
    stored, first = run
    table, within = divmod(first, stored.size)
    if stored.stacked != (len(to) == 2) or within % stored.inner or within + len(keys) > stored.size:
        return None
    at = (*(table,) * stored.stacked, within // stored.inner)
    if not all(copy_shard(stored.array(name), at, one, to) for name, one in arrays.items()):
        return None
    return stored.digests(np.arange(first, first + len(keys)))
