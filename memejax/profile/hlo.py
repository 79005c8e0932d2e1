"""Module and class of each operation of a compiled program.

An event of the profiler names an operation of the compiled program (`fusion.3`); the
program's text contains its source in the traced program, in
`metadata={op_name="jit(step)/..."}`. A fusion holds many operations: it is attributed
to its convolution or product if it has one, else to its reduction, else to its last
arithmetic operation.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from memejax.profile import rules, scopes

# A fusion is attributed to the first of these classes that it holds.
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
    """Source of an operation of a compiled program.

    Attributes:
        primitive: name in the traced program; the compiler's name for its own
            operations (copies).
        module: path of the module, "" outside of all modules.
        kind: class, one of `rules.CLASSES`.
    """

    primitive: str
    module: str
    kind: str


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """One line of the program's text."""

    name: str
    opcode: str
    op_name: str
    target: str
    calls: str


def sources(text: str) -> dict[str, Source]:
    """Map the operations of a compiled program to their sources.

    Args:
        text: the program: `jax.jit(f).lower(...).compile().as_text()`, traced under
            `scopes.marked()`.

    Returns:
        Name -> source, for every operation of every computation; names are unique.
    """
    computations = _parse(text)
    return {
        instruction.name: _source(instruction, computations)
        for instructions in computations.values()
        for instruction in instructions
    }


def program_name(text: str) -> str:
    """Name of a program in the profiler.

    Raises:
        ValueError: if the text does not begin with a name.
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
    """Parse the text after `NAME = `: a type, the opcode, operands, attributes."""
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
        place = scopes.place(inner.op_name)
        kind = _kind(inner, place.module)
        # The last of a rank: later operations of a fusion are nearer to its result.
        if _ORDER.index(kind) <= rank and (inner.op_name or rank == len(_ORDER)):
            rank = _ORDER.index(kind)
            best = Source(_primitive(inner, place.module, kind), place.path, kind)
    return best


def _inside(
    instruction: _Instruction, computations: Mapping[str, Sequence[_Instruction]]
) -> Iterator[_Instruction]:
    """Yield the instruction, or the instructions inside a fusion."""
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
    """Name of an operation's primitive, or the compiler's name for it."""
    if kind in ("convolution", "matmul"):
        # By opcode: a product that absorbed a transposition has the latter's name.
        product = instruction.opcode == "dot" or "gemm" in instruction.target
        product = product or "matmul" in instruction.target
        return "dot_general" if product else "conv_general_dilated"
    last = instruction.op_name.rsplit("/", 1)[-1]
    # A copy that the compiler inserts for an addition has the addition's name.
    return last if rules.kind(last, module=module) == kind else instruction.opcode
