"""The file of a memory: bytes that hold it whole, in torch's or the safetensors format."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .memory import Memory, Task
from .quadratic import Quadratic, Tensors
from .scaffold import TORCH_DTYPES

FORMAT, VERSION = "sklearn_ewc memory", "1"


@dataclass(frozen=True)
class Facts:
    """What the first task decided, beside the parameters, under the names of the attributes.

    None where the estimator does not know: names of columns that had none, sizes
    of inputs that are no table.
    """

    seed_: int
    dtype_: str
    y_is_flat_: bool
    n_outputs_: int | None = None
    n_features_in_: int | None = None
    feature_names_in_: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype_ not in map(str, TORCH_DTYPES):
            raise ValueError(f"dtype_ is {self.dtype_!r}")
        for name in ("seed_", "n_outputs_", "n_features_in_"):
            value = getattr(self, name)
            if not (type(value) is int and value >= 0) and (name == "seed_" or value is not None):
                raise ValueError(f"{name} is {value!r}")
        if type(self.y_is_flat_) is not bool:
            raise ValueError(f"y_is_flat_ is {self.y_is_flat_!r}")
        names = self.feature_names_in_
        if names is not None:
            if not all(type(name) is str for name in names) or len(names) != self.n_features_in_:
                raise ValueError(f"feature_names_in_ is {names!r}")
            object.__setattr__(self, "feature_names_in_", tuple(names))

    @classmethod
    def of(cls, net: Any) -> Facts:
        """Return those of a net that is initialised."""
        known = {name: vars(net)[name] for name in cls.__dataclass_fields__ if name in vars(net)}
        if "feature_names_in_" in known:
            known["feature_names_in_"] = tuple(map(str, known["feature_names_in_"]))
        return cls(**{**known, "dtype_": str(net.dtype_)})

    def attributes(self) -> dict[str, Any]:
        """Return them as a net has them, but for those that it does not know."""
        attributes = {**vars(self), "dtype_": np.dtype(self.dtype_)}
        if self.feature_names_in_ is not None:
            attributes["feature_names_in_"] = np.array(self.feature_names_in_, dtype=object)
        return {name: value for name, value in attributes.items() if value is not None}

    def check(self, known: Facts) -> None:
        """Raise ValueError where a net that is already built differs."""
        for name in ("dtype_", "n_outputs_", "n_features_in_", "feature_names_in_"):
            ours, theirs = getattr(self, name), getattr(known, name)
            if None not in (ours, theirs) and ours != theirs:
                raise ValueError(f"{name} is {ours!r}, the estimator's is {theirs!r}")


def memory_to_bytes(memory: Memory, facts: Facts, use_safetensors: bool = False) -> bytes:
    """Return the file of a memory: tensors, numbers as JSON, and a checksum of both.

    The parts are the same in either format, and :func:`torch.load` with
    ``weights_only=True`` or safetensors reads them.
    """
    quadratic = memory.quadratic
    numbers = {
        "facts": vars(facts),
        "settings": {
            "store_tasks": bool(memory.store_tasks),
            "mode": memory.mode,
            "gamma": float(memory.gamma),
            "n_tasks": int(memory.n_tasks),
        },
        "constant": float(quadratic.constant),
        "names": list(quadratic.centre),
        "tasks": [
            {
                "weight": float(task.weight),
                "damping": float(task.damping),
                "n_samples": None if task.n_samples is None else int(task.n_samples),
            }
            for task in memory.tasks
        ],
    }
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in memory_tensors(memory)
    }
    return packed(tensors, json.dumps(numbers, allow_nan=False), use_safetensors)


def memory_tensors(memory: Memory) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a memory under their names in a file."""
    quadratic = memory.quadratic
    groups = [(part, getattr(quadratic, part)) for part in ("centre", "remainder", "stiffness")]
    for k, task in enumerate(memory.tasks):
        groups += [(f"tasks.{k}.anchor", task.anchor), (f"tasks.{k}.fisher", task.fisher)]
    for part, tensors in groups:
        for name, value in tensors.items():
            yield f"{part}.{name}", value


def packed(
    tensors: Tensors, numbers: str, use_safetensors: bool = False, version: str = VERSION
) -> bytes:
    """Return a file of tensors and of numbers as JSON, with the checksum of both."""
    checksum = _checksum(tensors, numbers)
    metadata = {"format": FORMAT, "version": version, "numbers": numbers, "sha256": checksum}
    if use_safetensors:
        from safetensors.torch import save

        return save(tensors, metadata)
    file = io.BytesIO()
    torch.save({"metadata": metadata, "tensors": tensors}, file)
    return file.getvalue()


def memory_from_bytes(data: bytes, use_safetensors: bool = False) -> tuple[Memory, Facts]:
    """Return the memory and the facts in a file of :func:`memory_to_bytes`.

    Raises
    ------
    ValueError
        If the file is of another format or version, damaged, or does not add up.
    """
    if use_safetensors:
        tensors = safetensors_load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
    else:
        content = torch_load(data, weights_only=True)
        is_ours = isinstance(content, dict) and content.keys() == {"metadata", "tensors"}
        metadata, tensors = content.values() if is_ours else ({}, {})
    if metadata.get("format") != FORMAT:
        raise ValueError("it does not hold a memory")
    if metadata["version"] != VERSION:
        raise ValueError(
            f"it has version {metadata['version']} of the format, this library reads {VERSION}"
        )
    if metadata["sha256"] != _checksum(tensors, metadata["numbers"]):
        raise ValueError("it is damaged, its content does not fit its checksum")
    return _memory(dict(tensors), **json.loads(metadata["numbers"]))


def _memory(
    tensors: Tensors,
    facts: dict[str, Any],
    settings: dict[str, Any],
    constant: float,
    names: list[str],
    tasks: list[dict[str, Any]],
) -> tuple[Memory, Facts]:
    def part(prefix: str, names: Iterable[str]) -> Tensors:
        missing = [f"{prefix}.{name}" for name in names if f"{prefix}.{name}" not in tensors]
        if missing:
            raise ValueError(f"it lacks the tensors {missing}")
        return {name: tensors.pop(f"{prefix}.{name}") for name in names}

    centre, remainder, stiffness = (part(p, names) for p in ("centre", "remainder", "stiffness"))
    learned = []
    for k, task in enumerate(tasks):
        held = [name for name in names if f"tasks.{k}.anchor.{name}" in tensors]
        anchor, fisher = (part(f"tasks.{k}.{kind}", held) for kind in ("anchor", "fisher"))
        learned.append(Task(anchor, fisher, **task))
    if tensors:
        raise ValueError(f"it has the unexpected tensors {sorted(tensors)}")
    if not (math.isfinite(constant) and constant >= 0):
        raise ValueError(f"constant is {constant!r}")
    if type(settings["n_tasks"]) is not int or len(learned) > settings["n_tasks"]:
        raise ValueError(f"it has {len(learned)} tasks, of {settings['n_tasks']!r} learned")
    quadratic = Quadratic(centre, remainder, stiffness, constant)
    return Memory(**settings, tasks=tuple(learned), quadratic=quadratic), Facts(**facts)


def _checksum(tensors: Tensors, numbers: str) -> str:
    checksum = hashlib.sha256(numbers.encode())
    for name in sorted(tensors):
        value = tensors[name]
        checksum.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        checksum.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return checksum.hexdigest()


def safetensors_load(data: bytes) -> Tensors:
    """Return the tensors of a safetensors file."""
    from safetensors.torch import load

    return load(data)


def torch_load(data: bytes, **kwargs: Any) -> Any:
    """Return the content of a torch file whose records' checksums are right."""
    # torch skips the checksums of the archive, and takes a record marked as a folder for
    # one of any content: it gets to see records that zipfile has checked, written anew
    checked = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(checked, "w") as anew:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise ValueError("it is damaged, a record is there twice")
        for name in names:
            anew.writestr(name, archive.read(name))
    checked.seek(0)
    return torch.load(checked, **{"map_location": "cpu", **kwargs})
