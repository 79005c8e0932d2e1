"""The operations of a compiled program: which module and which class each is of.

An event of the profiler names an operation of the compiled program (`fusion.3`); the
program's text says from where in the traced program it comes, in
`metadata={op_name="jit(step)/..."}`. A fusion holds many operations: it stands for
its convolution or product if it has one, else for its reduction, else for the last
of its arithmetic.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from memejax.profile import rules, scopes

# What an operation stands for: the first of these that it holds.
_ORDER = (
    "collective",
    "convolution",
    "matmul",
    "other",
    "normalisation",
    "reduction",
    "elementwise",
    "copy",
)
_REDUCTIONS = frozenset({"reduce", "reduce-window", "scatter", "select-and-scatter"})
_COPIES = frozenset(
    "after-all bitcast bitcast-convert broadcast concatenate constant convert copy "
    "copy-done copy-start dynamic-slice dynamic-update-slice gather "
    "get-tuple-element iota opt-barrier optimization-barrier pad parameter "
    "partition-id replica-id reshape reverse slice slice-done slice-start sort topk "
    "transpose tuple".split()
)
_COLLECTIVES = ("all-", "reduce-scatter", "collective-", "ragged-all-", "send", "recv")
_OTHER = frozenset(
    "async-done async-start async-update call cholesky conditional custom-call fft "
    "fusion infeed outfeed rng rng-bit-generator rng-get-and-update-state "
    "triangular-solve while".split()
)

_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = ")
_OP_NAME = re.compile(r'metadata=\{[^}]*?op_name="((?:[^"\\]|\\.)*)"')
_CALLS = re.compile(r"\bcalls=%?([\w.\-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Source:
    """Where an operation of a compiled program comes from.

    Attributes:
        primitive: name in the traced program; the compiler's own operations (copies)
            have the compiler's name for it.
        module: path of the module, "" outside of all.
        kind: class, one of `rules.CLASSES`.
    """

    primitive: str
    module: str
    kind: str


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """A line of the program's text."""

    name: str
    opcode: str
    op_name: str
    target: str
    calls: str


def sources(text: str) -> dict[str, Source]:
    """Operation -> where it comes from.

    Args:
        text: of a compiled program: `jax.jit(f).lower(...).compile().as_text()`, traced
            under `scopes.marked()`.

    Returns:
        Every operation of every computation; their names are unique in a program.
    """
    computations = _parse(text)
    return {
        instruction.name: _source(instruction, computations)
        for instructions in computations.values()
        for instruction in instructions
    }


def program_name(text: str) -> str:
    """The name that the profiler has for a program.

    Raises:
        ValueError: if the text does not begin with one.
    """
    match = re.match(r"HloModule ([\w.\-]+)", text)
    if match is None:
        raise ValueError(f"got {text[:40]!r}, expected 'HloModule NAME'")
    return match.group(1)


def _parse(text: str) -> dict[str, list[_Instruction]]:
    computations: dict[str, list[_Instruction]] = {}
    current: list[_Instruction] = []
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header is not None:
            current = computations.setdefault(header.group(1), [])
            continue
        start = _INSTRUCTION.match(line)
        if start is not None:
            current.append(_instruction(start.group(1), line[start.end() :]))
    return computations


def _instruction(name: str, rest: str) -> _Instruction:
    """What follows `NAME = `: a type, the opcode, operands, attributes."""
    end = _end_of_tuple(rest) if rest.startswith("(") else rest.find(" ")
    opcode, _, arguments = rest[end:].strip().partition("(")

    def group(pattern: re.Pattern[str]) -> str:
        match = pattern.search(arguments)
        return match.group(1) if match else ""

    return _Instruction(name, opcode, group(_OP_NAME), group(_TARGET), group(_CALLS))


def _end_of_tuple(text: str) -> int:
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i + 1
    return len(text)


def _source(
    instruction: _Instruction, computations: Mapping[str, Sequence[_Instruction]]
) -> Source:
    best = Source(instruction.opcode, "", "copy")
    rank = len(_ORDER)
    for inner in _inside(instruction, computations):
        where = scopes.place(inner.op_name)
        kind = _kind(inner, where.module)
        # The last of a rank: what comes later in a fusion is nearer to its result.
        if _ORDER.index(kind) <= rank and (inner.op_name or rank == len(_ORDER)):
            rank = _ORDER.index(kind)
            best = Source(_primitive(inner, where.module, kind), where.path, kind)
    return best


def _inside(
    instruction: _Instruction, computations: Mapping[str, Sequence[_Instruction]]
) -> Iterator[_Instruction]:
    """The instruction, or those that a fusion is made of."""
    if instruction.opcode != "fusion" or instruction.calls not in computations:
        yield instruction
        return
    for inner in computations[instruction.calls]:
        if inner.opcode not in ("parameter", "constant"):
            yield from _inside(inner, computations)


def _kind(instruction: _Instruction, module: str) -> str:
    opcode, target = instruction.opcode, instruction.target.lower()
    # Libraries: __cudnn$convForward, __cublas$gemm, __cublas$lt$matmul, ...
    if opcode == "convolution" or "$conv" in target:
        return "convolution"
    if opcode == "dot" or "gemm" in target or "matmul" in target:
        return "convolution" if module in rules.CONVOLUTIONS else "matmul"
    if opcode.startswith(_COLLECTIVES):
        return "collective"
    if opcode in _COPIES:
        return "copy"
    if opcode in _OTHER:
        return "other"
    if module in rules.NORMALISATIONS:
        return "normalisation"
    return "reduction" if opcode in _REDUCTIONS else "elementwise"


def _primitive(instruction: _Instruction, module: str, kind: str) -> str:
    """The primitive that an operation was, or the compiler's name for it."""
    if kind in ("convolution", "matmul"):
        # By what it is: a product that takes in a transposition has its name.
        product = instruction.opcode == "dot" or "gemm" in instruction.target
        product = product or "matmul" in instruction.target
        return "dot_general" if product else "conv_general_dilated"
    last = instruction.op_name.rsplit("/", 1)[-1]
    # A copy that the compiler needs for an addition has the addition's name.
    return last if rules.kind(last, module=module) == kind else instruction.opcode
