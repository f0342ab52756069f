"""What the processes of a run say to each other: data of a fixed schema, never a method's objects.

A message is MessagePack of one of the classes below, in a frame with a magic word, the number of
the request and a length. So whatever a method returns, raises or writes costs its own cell alone.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from bpqp_bench.method.measure import Answer
from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.problem.instance import Instance
from bpqp_bench.problem.solution import Solution
from bpqp_bench.problem.storage import from_arrays, get, put, to_arrays
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference

_T = TypeVar("_T")
_HEAD = struct.Struct(">4sQQ")
_MAGIC = b"bpqp"
_LARGEST = 2**32
# How often limits are looked at while a reply is awaited. Rare enough not to be felt by the call
# that is being measured, often enough that little memory can be taken in between.
_POLL_MS = 25
_TEXT, _INFO, _DEPTH = 2_000, 65_536, 8


class Setting(msgspec.Struct):
    """First message to a process: the user's plug-in folders, and where references are kept."""

    methods_dirs: tuple[str, ...]
    problems_dirs: tuple[str, ...]
    threads: int
    cache: str


class Request(msgspec.Struct, tag=True):
    """Base of all requests."""


class Start(Request):
    """Import what a method needs."""

    method: str


class Build(Request):
    """Create a method and build it for a template, under an id of the parent's choosing."""

    id: str
    method: str
    wrt: tuple[str, ...]
    device: str
    dtype: str
    batch: int
    template: str


class CallMethod(Request):
    """Measure one forward and backward call on a batch of problems.

    ``wanted``: send the answers for judging. ``first``: what the first call has loaded and compiled
    stays, like what was built.
    """

    id: str
    problems: tuple[str, ...]
    wanted: bool
    first: bool


class Drop(Request):
    """Forget methods; ``thorough``: also what only the garbage collector finds."""

    ids: tuple[str, ...]
    thorough: bool


class Draw(Request):
    """Draw an instance and share it."""

    family: str
    size: str
    seed: int
    upstream: str


class Prefetch(Request):
    """Compute a reference into the cache and forget it."""

    family: str
    size: str
    seed: int
    upstream: str
    wrt: tuple[str, ...]


class FindReference(Request):
    """Compute the references of instances that were drawn."""

    sha256s: tuple[str, ...]
    wrt: tuple[str, ...]


class Judge(Request):
    """Compare the answers to a batch, packed as in `Called`, with their references."""

    sha256s: tuple[str, ...]
    wrt: tuple[str, ...]
    answers: bytes


class Adopt(Request):
    """Take over an instance; a reason says why there is no reference of it, "" nothing."""

    path: str
    wrt: tuple[str, ...]
    reason: str


class Close(Request):
    """Forget instances."""

    sha256s: tuple[str, ...]


class Failure(msgspec.Struct):
    """Why a request failed: a status of measurements, and one line."""

    status: str
    cause: str


class Done(msgspec.Struct):
    """A reply; the others have further fields."""

    failed: Failure | None = None


class Built(Done):
    """Reply to `Build`."""

    build_s: float = 0.0
    phases_split: bool = True


class Called(Done):
    """Reply to `CallMethod`; a status for each problem of the batch.

    ``answers`` is a packed tuple of `AnswerData`, which the parent passes on unread.
    """

    forward: PassTime | None = None
    backward: PassTime | None = None
    peak: int | None = None
    statuses: tuple[str, ...] = ()
    iterations: int | None = None
    info: dict[str, Any] = {}
    posed: str | None = None
    answers: bytes = b""


class Drawn(Done):
    """Reply to `Draw`."""

    sha256: str = ""
    path: str = ""


class Found(Done):
    """Reply to `Prefetch` and `FindReference`; ``reason`` says why there is none."""

    seconds: float = 0.0
    reason: str = ""


class Judged(Found):
    """Reply to `Judge`: the worst over the batch."""

    solution: dict[str, float] = {}
    accuracy: dict[str, Accuracy] = {}
    reference: Reference | None = None


class _Array(msgspec.Struct, array_like=True):
    kind: str
    shape: tuple[int, ...]
    data: memoryview


class AnswerData(msgspec.Struct):
    """What a method answered to one problem, and the problem that it posed if that is another."""

    arrays: dict[str, _Array]
    posed: dict[str, _Array] | None = None


class ProtocolError(Exception):
    """What came is no message: somebody else has written to the connection."""


class Channel:
    """One end of a connection between two processes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def send(self, number: int, message: bytes) -> None:
        """Send a message in its frame."""
        self._socket.sendall(_HEAD.pack(_MAGIC, number, len(message)))
        self._socket.sendall(message)

    def receive(self, idle: Callable[[], None] | None = None) -> tuple[int, bytearray]:
        """Wait for a message; ``idle`` is called again and again meanwhile, and may raise.

        Raises
        ------
        EOFError, OSError
            If the other end is closed.
        ProtocolError
            If what came is no message.
        """
        magic, number, size = _HEAD.unpack(self._read(_HEAD.size, idle))
        if magic != _MAGIC or size > _LARGEST:
            raise ProtocolError
        return number, self._read(size, idle)

    def ready(self) -> bool:
        """Whether there is something to receive, or the other end is closed."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _read(self, size: int, idle: Callable[[], None] | None) -> bytearray:
        buffer = bytearray(size)
        view, got = memoryview(buffer), 0
        while got < size:
            if idle is not None and not self._poll.poll(_POLL_MS):
                idle()
                continue
            count = self._socket.recv_into(view[got:])
            if count == 0:
                raise EOFError
            got += count
        return buffer


def encode(message: msgspec.Struct) -> bytes:
    """Pack a message."""
    return msgspec.msgpack.encode(message)


def decode(message: bytes | bytearray, kind: type[_T]) -> _T:
    """Unpack a message of a kind.

    Raises
    ------
    ProtocolError
        If it is none.
    """
    try:
        return msgspec.msgpack.decode(message, type=kind)
    except msgspec.MsgspecError:
        raise ProtocolError from None


def pack_answer(answer: Answer, posed: Instance | None) -> AnswerData:
    """Put an answer whose form has been checked into a message."""
    arrays: dict[str, Any] = {}
    for name in ("z", "nu", "lam", "mu"):
        if (value := getattr(answer.solution, name)) is not None:
            put(arrays, name, value)
    for name, value in answer.gradients.items():
        put(arrays, f"gradient.{name}", value)
    return AnswerData(_packed(arrays), None if posed is None else _packed(to_arrays(posed)))


def unpack_answer(data: AnswerData, wrt: tuple[str, ...]) -> tuple[Answer, Instance | None]:
    """Read what `pack_answer` packed."""
    arrays = _unpacked(data.arrays)
    z, nu, lam, mu = (arrays.get(name) for name in ("z", "nu", "lam", "mu"))
    solution = Solution(z, nu, lam, mu)
    gradients = {name: get(arrays, f"gradient.{name}") for name in wrt}
    posed = None if data.posed is None else from_arrays(_unpacked(data.posed))
    return Answer(solution, gradients), posed


def _packed(arrays: Mapping[str, Any]) -> dict[str, _Array]:
    packed = {}
    for name, value in arrays.items():
        array = np.asarray(value, order="C")
        # A view of the bytes; NumPy makes none of texts or of nothing.
        viewed = array.dtype.kind != "U" and array.size > 0
        data = array.data.cast("B") if viewed else memoryview(array.tobytes())
        packed[name] = _Array(array.dtype.str, value.shape, data)
    return packed


def _unpacked(arrays: Mapping[str, _Array]) -> dict[str, Any]:
    return {
        name: np.frombuffer(array.data, dtype=array.kind).reshape(array.shape)
        for name, array in arrays.items()
    }


def plain(info: object) -> dict[str, Any]:
    """Return facts as plain values, whatever a method put there: keys and the rest become text."""
    found = _plain(info, _DEPTH)
    if not isinstance(found, dict):
        return {}
    if len(msgspec.json.encode(found)) > _INFO:
        return {"left_out": f"info of more than {_INFO} bytes"}
    return found


def _plain(value: object, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic) or (getattr(value, "size", 2) == 1 and hasattr(value, "item")):
        value = value.item()
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else plain_text(value)
    if isinstance(value, float):
        return float(value)
    if depth and isinstance(value, Mapping):
        return {plain_text(key): _plain(part, depth - 1) for key, part in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_plain(part, depth - 1) for part in value]
    return plain_text(value)


def plain_text(value: object) -> str:
    """Return a text that can be written anywhere: no surrogates, of a bounded length."""
    try:
        text = str(value)
        text = text.encode("utf-8", "backslashreplace").decode()
    except Exception:
        return f"({type(value).__name__} without a text)"
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}…"
