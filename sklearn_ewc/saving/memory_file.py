"""The file of a memory: bytes that hold it whole, in torch's or the safetensors format."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..curvature import KINDS, Curvature
from ..memory import Memory, Task
from ..memory.quadratic import Quadratic
from ..tensors import Tensors
from .checks import check_distinct, check_plain
from .facts import Facts
from .inputs_file import inputs_from_numbers, inputs_numbers, inputs_tensors
from .safetensors_file import safetensors_load
from .torch_file import torch_load

FORMAT, VERSION = "sklearn_ewc memory", "3"
_DTYPES = {torch.float32, torch.float64}


def memory_to_bytes(memory: Memory, facts: Facts, use_safetensors: bool = False) -> bytes:
    """Return the file of a memory: tensors, numbers as JSON, and a checksum of both.

    The parts are the same in either format, and :func:`torch.load` with
    ``weights_only=True`` or safetensors reads them.
    """
    quadratic = memory.quadratic
    numbers = {
        "facts": facts.to_json(),
        "settings": {
            "store_tasks": bool(memory.store_tasks),
            "mode": memory.mode,
            "gamma": float(memory.gamma),
            "weigh_by": memory.weigh_by,
            "n_tasks": int(memory.n_tasks),
            "n_samples": _or_none(int, memory.n_samples),
            "loss": _or_none(float, memory.loss),
        },
        "kind": quadratic.curvature.kind,
        "constant": float(quadratic.constant),
        "names": list(quadratic.centre),
        "parts": list(quadratic.curvature.state_dict()),
        "tasks": [
            {
                "names": list(task.anchor),
                "parts": list(task.curvature.state_dict()),
                "weight": float(task.weight),
                "damping": float(task.damping),
                "n_samples": _or_none(int, task.n_samples),
                "loss": _or_none(float, task.loss),
            }
            for task in memory.tasks
        ],
        "inputs": inputs_numbers(memory),
    }
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in memory_tensors(memory)
    }
    return packed(tensors, json.dumps(numbers, allow_nan=False), use_safetensors)


def _or_none(kind: type, value: Any) -> Any:
    return None if value is None else kind(value)


def memory_tensors(memory: Memory) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a memory under their names in a file."""
    quadratic = memory.quadratic
    groups = [("centre", quadratic.centre), ("remainder", quadratic.remainder)]
    groups.append(("curvature", quadratic.curvature.state_dict()))
    for k, task in enumerate(memory.tasks):
        groups.append((f"tasks.{k}.anchor", task.anchor))
        groups.append((f"tasks.{k}.curvature", task.curvature.state_dict()))
    for part, tensors in groups:
        for name, value in tensors.items():
            yield f"{part}.{name}", value
    yield from inputs_tensors(memory)


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


def memory_from_file(
    file: BinaryIO,
    use_safetensors: bool = False,
    check: Callable[[Facts, Tensors], None] = lambda facts, tensors: None,
) -> tuple[Memory, Facts]:
    """Return the memory and the facts in a file, judged before its numbers are read.

    Raises
    ------
    ValueError
        If the file is of another format or version, damaged, does not add up, or
        if `check` refuses its facts and tensors, which are then on the meta device.
    """

    def judge(metadata: Any, tensors: Tensors) -> None:
        if metadata.get("format") != FORMAT:
            raise ValueError("it does not hold a memory")
        if (version := metadata["version"]) != VERSION:
            raise ValueError(
                f"it has version {version} of the format, this library reads {VERSION}"
            )
        check_plain(tensors, "", _DTYPES)
        check_distinct(tensors.values())
        check(Facts.from_json(json.loads(metadata["numbers"])["facts"]), tensors)

    if use_safetensors:
        metadata, tensors = safetensors_load(file, judge)
    else:
        content = torch_load(file, lambda content: judge(*_halves(content)), ties=False)
        metadata, tensors = _halves(content)
    if metadata["sha256"] != _checksum(tensors, metadata["numbers"]):
        raise ValueError("it is damaged, its content does not fit its checksum")
    return _memory(dict(tensors), **json.loads(metadata["numbers"]))


def _halves(content: Any) -> tuple[Any, Any]:
    is_ours = isinstance(content, dict) and content.keys() == {"metadata", "tensors"}
    return (content["metadata"], content["tensors"]) if is_ours else ({}, {})


def _memory(
    tensors: Tensors,
    facts: dict[str, Any],
    settings: dict[str, Any],
    kind: str,
    constant: float,
    names: list[str],
    parts: list[str],
    tasks: list[dict[str, Any]],
    inputs: list[dict[str, Any]],
) -> tuple[Memory, Facts]:
    def part(prefix: str, names: Iterable[str]) -> Tensors:
        missing = [f"{prefix}.{name}" for name in names if f"{prefix}.{name}" not in tensors]
        if missing:
            raise ValueError(f"it lacks the tensors {missing}")
        return {name: tensors.pop(f"{prefix}.{name}") for name in names}

    def curvature(prefix: str, names: Iterable[str]) -> Curvature:
        return KINDS[kind].from_state_dict(part(prefix, names))

    centre, remainder = (part(prefix, names) for prefix in ("centre", "remainder"))
    stiffness = curvature("curvature", parts).over(centre)
    learned = []
    for k, task in enumerate(tasks):
        anchor = part(f"tasks.{k}.anchor", task.pop("names"))
        learned.append(Task(anchor, curvature(f"tasks.{k}.curvature", task.pop("parts")), **task))
    old_inputs = inputs_from_numbers(inputs, part)
    if tensors:
        raise ValueError(f"it has the unexpected tensors {sorted(tensors)}")
    if not (math.isfinite(constant) and constant >= 0):
        raise ValueError(f"constant is {constant!r}")
    if type(settings["n_tasks"]) is not int or len(learned) > settings["n_tasks"]:
        raise ValueError(f"it has {len(learned)} tasks, of {settings['n_tasks']!r} learned")
    if len(old_inputs) > settings["n_tasks"]:
        raise ValueError(f"it has inputs of {len(old_inputs)} tasks, of {settings['n_tasks']}")
    quadratic = Quadratic(centre, remainder, stiffness, constant)
    memory = Memory(**settings, tasks=tuple(learned), quadratic=quadratic, inputs=old_inputs)
    return memory, Facts.from_json(facts)


def _checksum(tensors: Tensors, numbers: str) -> str:
    checksum = hashlib.sha256(numbers.encode())
    for name in sorted(tensors):
        value = tensors[name]
        checksum.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        checksum.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return checksum.hexdigest()
