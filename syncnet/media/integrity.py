"""Whether a media file holds what its container promises, from its packets and the outermost part of its structure."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import av

from syncnet.media.containers import AVI, MICROSECONDS, open_container, readable_packets

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

PICTURE, SOUND = "picture", "sound"
KINDS = {"video": PICTURE, "audio": SOUND}  # by PyAV's name of a stream's type

# Some writers count a header of 8 bytes twice, or pad the end.
SLACK_BYTES = 16
# Seconds that may be missing at the end of a file of the right size: the durations of the last packets are often
# unknown or rounded, and a last picture may last for seconds. More counts only if there are bytes for it.
SLACK_SECONDS = 1.0
SLACK_SHARE = 0.5  # of the bytes that the missing seconds take on average
LEAST_HOLE = 0.1  # seconds without a packet, where there are bytes for them, that are a hole
IN_ORDER = ("matroska", "flv")  # formats that are read from front to back, and go on after what cannot be read
DECLARING = ("mov", "matroska", AVI, "flv")  # formats that state their duration; of others, libav estimates it

TS, TS_SYNC, TS_PACKETS = "mpegts", 0x47, {188: 0, 192: 4, 204: 0}  # length of a packet: where its sync byte is
TS_PROBE = 5  # packets whose sync bytes tell the length
BOX_HEADER, LONG_BOX = 8, 1  # bytes, and the length that says that the true one follows in 64 bits
MEDIA_BOXES = (b"mdat", b"moov", b"moof")
SEGMENT, UNKNOWN_LENGTHS = 0x18538067, (0, 0xFFFFFFFF)
BLOCK_HEADER, BLOCKS = 4, (0xA3, 0xA0)  # bytes of a block before its packet, and the names of elements with a block
LEADING_ELEMENTS = 4  # elements that may precede the segment of a Matroska file
# Offsets in an AVI file: the name of the main header, in it the microseconds per frame, and the number of frames.
AVI_HEADER, AVI_FRAME_LENGTH, AVI_FRAMES = 24, 32, 48


@dataclass(frozen=True)
class Missing:
    """What a file promises but does not hold.

    Attributes:
        held, promised: bytes that can be read, and that should be there; None if only the last packet is incomplete.
        seconds: by ``PICTURE`` and ``SOUND`` the seconds that are held and promised; only of those that are known.
    """

    held: int
    promised: int | None
    seconds: dict[str, tuple[float, float]]


class Inventory:
    """Compares what the container of a file promises with its packets, which somebody else reads.

    Args:
        container: the open file.
        path: its path.

    Attributes:
        complaint: last message about what cannot be read or decoded; empty if everything can.
        lost: number of packets that could not be decoded, and of frames that the decoder had to repair.
    """

    def __init__(self, container: InputContainer, path: str | os.PathLike[str]) -> None:
        self.container, self.path, self.size = container, path, Path(path).stat().st_size
        self.complaint, self.lost = "", 0
        self.format = container.format.name
        self.promised, self.partial, self.duration = declared(path, self.format)
        self.read = 0  # bytes, up to the end of the last packet
        self.ends: dict[int, float] = {}

    def add(self, packet: Packet) -> None:
        """Take note of a packet."""
        if not packet.size:
            return
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None and packet.time_base is not None:
            index, start = packet.stream.index, float(time * packet.time_base)
            self._look_for_hole(packet, start)
            end = start + float((packet.duration or 0) * packet.time_base)
            self.ends[index] = max(self.ends.get(index, end), end)
        if packet.pos is not None:
            self.read = max(self.read, packet.pos + packet.size)
        # in MPEG-TS the flag also marks where segments were joined
        self.partial = self.partial or (packet.is_corrupt and TS not in self.format)

    def complain(self, detail: str) -> None:
        """Take note of a packet or frame that cannot be decoded."""
        self.complaint = detail
        self.lost += 1

    def missing(self) -> Missing | None:
        """Return what is missing at the end of the file, once all packets were read; None if nothing is."""
        seconds = self._seconds()
        if self.promised is not None and self.promised > self.size + SLACK_BYTES:
            return Missing(self.size, self.promised, seconds)
        if self.promised is None and (self.partial or self._ends_inside_a_block()):
            return Missing(self.size, None, seconds)
        held, promised = (max((pair[index] for pair in seconds.values()), default=0.0) for index in (0, 1))
        lacking = promised - max([held, *(self._since_start(end) for end in self.ends.values())])
        if lacking > SLACK_SECONDS and self.size - self.read > SLACK_SHARE * self.size * lacking / promised:
            return Missing(self.read, self.size, seconds)
        return None

    def _ends_inside_a_block(self) -> bool:
        """Return True if a Matroska file, of unknown length, ends inside the block after the last packet."""
        if "matroska" not in self.format:
            return False
        with Path(self.path).open("rb") as file, contextlib.suppress(ValueError):
            name, at = variable_number(file, self.read + BLOCK_HEADER, keep_length=True)
            length, at = variable_number(file, at)
            return name in BLOCKS and length is not None and at + length > self.size
        return False

    def _look_for_hole(self, packet: Packet, start: float) -> None:
        """Complain if bytes before a packet gave none, and should have by the time that has passed."""
        if not self.ends or packet.pos is None or not any(name in self.format for name in IN_ORDER):
            return
        known = max(self.ends.values())
        length, elapsed = start - known, self._since_start(known)
        if length > LEAST_HOLE and (packet.pos - self.read) * elapsed > SLACK_SHARE * self.read * length:
            self.complaint = f"{length:.1f} s after {elapsed:.1f} s cannot be read"

    def _since_start(self, time: float) -> float:
        return time - (self.container.start_time or 0) / MICROSECONDS

    def _seconds(self) -> dict[str, tuple[float, float]]:
        """Return held and promised seconds, by kind, of the first stream of each."""
        found: dict[str, tuple[float, float]] = {}
        for stream in self.container.streams:
            kind, promised = KINDS.get(stream.type, ""), self._promised_seconds(stream)
            if stream.disposition & av.stream.Disposition.attached_pic:
                continue
            if kind and kind not in found and promised:
                start = (self.container.start_time or 0) / MICROSECONDS
                found[kind] = max(0.0, self._since_start(self.ends.get(stream.index, start))), promised
        return found

    def _promised_seconds(self, stream: Stream) -> float:
        """Return the promised end of a stream, in seconds from the file's start; 0 if the container states none."""
        if self.duration is not None or not any(name in self.format for name in DECLARING):
            return self.duration or 0.0
        if stream.duration is not None and stream.time_base is not None:
            return self._since_start(float((stream.duration + (stream.start_time or 0)) * stream.time_base))
        return (self.container.duration or 0) / MICROSECONDS


def missing_of(path: str | os.PathLike[str]) -> Missing | None:
    """Return what is missing at the end of a file, from its packets, of which none is decoded.

    Raises:
        MediaError: the file is not a media file.
    """
    with open_container(path) as container:
        inventory = Inventory(container, path)
        for packet in readable_packets(container):  # ffmpeg, which reads the same packets, reports damage
            inventory.add(packet)
        return inventory.missing()


def declared(path: str | os.PathLike[str], name: str) -> tuple[int | None, bool, float | None]:
    """Return how long a file should be by the outermost part of its structure.

    Args:
        path: the file.
        name: libav's name of its format.

    Returns:
        Bytes, None if the format does not tell; True if the last packet of an MPEG-TS file is incomplete; seconds, only
        of AVI files, whose duration libav shortens to what is there.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file, contextlib.suppress(ValueError):
        if "mov" in name:
            return boxes_end(file, size), False, None
        if "matroska" in name:
            return segment_end(file), False, None
        if name == AVI:
            return riff_end(file, size), False, avi_seconds(file)
        if name == TS:
            return None, has_incomplete_packet(file, size), None
    return None, False, None


def number(file: BinaryIO, *, at: int, length: int, little: bool = False) -> int:
    """Return an unsigned integer of a file.

    Raises:
        ValueError: the file ends before it.
    """
    file.seek(at)
    data = file.read(length)
    if len(data) < length:
        raise ValueError("the file is too short")
    return int.from_bytes(data, "little" if little else "big")


def boxes_end(file: BinaryIO, size: int) -> int:
    """Return where the boxes of an MP4 or MOV file should end; what follows them is no box."""
    at = 0
    while at + 2 * BOX_HEADER <= size:
        length = number(file, at=at, length=4)
        kind = file.read(4)
        if length == LONG_BOX:
            length = number(file, at=at + BOX_HEADER, length=8)
        if length < BOX_HEADER or (at + length > size and kind not in MEDIA_BOXES):
            break
        at += length
    return max(at, size)


def segment_end(file: BinaryIO) -> int | None:
    """Return where the segment of a Matroska file should end; None if it was written without knowing."""
    at = 0
    for _ in range(LEADING_ELEMENTS):
        name, at = variable_number(file, at, keep_length=True)
        length, at = variable_number(file, at)
        if length is None:
            return None
        if name == SEGMENT:
            return at + length
        at += length
    return None


def variable_number(file: BinaryIO, at: int, *, keep_length: bool = False) -> tuple[int | None, int]:
    """Return an integer of Matroska and where it ends; None for one that stands for an unknown length.

    Args:
        file: the file.
        at: where it starts.
        keep_length: keep the bit that tells its length, as names of elements do.
    """
    first = number(file, at=at, length=1)
    length = BOX_HEADER + 1 - first.bit_length()
    found = number(file, at=at, length=length)
    bits = 7 * length
    value = found & ((1 << bits) - 1)
    if keep_length:
        return found, at + length
    return (None if value == (1 << bits) - 1 else value), at + length


def riff_end(file: BinaryIO, size: int) -> int | None:
    """Return where the chunks of an AVI file should end; None if it was written without knowing."""
    at = 0
    while at + BOX_HEADER <= size:
        file.seek(at)
        if file.read(4) != b"RIFF":
            break
        length = number(file, at=at + 4, length=4, little=True)
        if length in UNKNOWN_LENGTHS:
            return None
        at += BOX_HEADER + length + length % 2
    return at


def avi_seconds(file: BinaryIO) -> float | None:
    """Return the duration in the main header of an AVI file, which comes first; None if there is none."""
    file.seek(AVI_HEADER)
    if file.read(4) != b"avih":
        return None
    each, frames = (number(file, at=at, length=4, little=True) for at in (AVI_FRAME_LENGTH, AVI_FRAMES))
    return each * frames / MICROSECONDS or None


def has_incomplete_packet(file: BinaryIO, size: int) -> bool:
    """Return True if an MPEG-TS file ends inside a packet; False also if its packets are not found."""
    file.seek(0)
    head = file.read(TS_PROBE * max(TS_PACKETS))
    for length, before in TS_PACKETS.items():
        for first in range(length):
            if all(head[at] == TS_SYNC for at in range(first, len(head), length)):
                return (size - first + before) % length != 0
    return False
