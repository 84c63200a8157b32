"""The packets of a media file, and what they tell of its streams without being decoded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from syncnet.constants import FRAME_RATE
from syncnet.media.containers import AVI, main_video, open_container, readable_packets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from av.container import InputContainer
    from av.packet import Packet


@dataclass(frozen=True)
class Survey:
    """What the packets of a file tell.

    Attributes:
        main: index of the main picture.
        packets: their number.
        seconds: length of each stream.
        size: bytes of each stream.
        decoding: first time stamp of decoding of each stream, in its ticks, and the number of packets before it, which
            have none where frames are reordered and the container stores none.
        start, end: time stamps of the start and end of the main picture, in seconds.
        hides: the picture starts with frames that are decoded but not shown, after a cut without encoding.
        complaint: what cannot be read at the end; empty if nothing.
    """

    main: int
    packets: int
    seconds: dict[int, float]
    size: dict[int, int]
    decoding: dict[int, tuple[int, int]]
    start: Fraction
    end: Fraction
    hides: bool
    complaint: str

    def bit_rate(self, index: int) -> int:
        """Return the bits per second of a stream; 0 if its time stamps do not tell."""
        seconds = self.seconds.get(index)
        return int(self.size[index] * 8 / seconds) if seconds else 0


def survey(path: Path) -> Survey:
    """Read all packets of a file, which has a picture."""
    packets, hides, size, before = 0, False, dict[int, int](), dict[int, int]()
    decoding, first, last = dict[int, tuple[int, int]](), dict[int, Fraction](), dict[int, Fraction]()
    with open_container(path) as container:
        picture = main_video(container)
        main, usual = picture.index, 1 / Fraction(picture.guessed_rate or FRAME_RATE)
        complaints: list[str] = []
        for packet in packets_of(container, complaints.append):
            packets += 1
            index = packet.stream.index
            size[index] = size.get(index, 0) + packet.size
            if packet.dts is None:
                before[index] = before.get(index, 0) + 1
            else:
                decoding.setdefault(index, (packet.dts, before.get(index, 0)))
            stamp = time_of(packet, container)
            if stamp is None:
                continue
            hides |= packet.is_discard and index == main
            length = (packet.duration or 0) * packet.time_base or (usual if index == main else 0)
            first[index] = min(first.get(index, stamp), stamp)
            last[index] = max(last.get(index, stamp), stamp + length)
    seconds = {index: float(last[index] - first[index]) for index in first}
    zero = Fraction(0)
    return Survey(
        main=main,
        packets=packets,
        seconds=seconds,
        size=size,
        decoding=decoding,
        start=first.get(main, zero),
        end=last.get(main, zero),
        hides=hides,
        complaint="".join(complaints),
    )


def time_of(packet: Packet, container: InputContainer) -> Fraction | None:
    """Return a packet's time stamp in seconds; AVI has only the order of decoding."""
    stamp = packet.dts if container.format.name == AVI else packet.pts
    return None if stamp is None else stamp * packet.time_base


def packets_of(container: InputContainer, complain: Callable[[str], None] = lambda detail: None) -> Iterator[Packet]:
    """Yield the packets of a file, up to where it is damaged, which ``complain`` is told."""
    for packet in readable_packets(container, complain=complain):
        if packet.size:
            yield packet
