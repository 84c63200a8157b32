"""Move the sound of a media file against its picture, which is copied bit for bit.

PyAV does all of it: it keeps rotation, colour tags, chapters and covers alike whatever ffmpeg is installed, and encodes
while it copies, without a second file.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.codec.codec import Codec

from syncnet import reasons
from syncnet.errors import DiskFullError, MediaError, SyncNetError, UsageError, no_space
from syncnet.media import rehearsal
from syncnet.media.containers import AVI, MICROSECONDS, check_streams, open_container
from syncnet.media.ffmpeg import absolute
from syncnet.media.grid import Grid
from syncnet.media.muxing import (
    FORMATS,
    MOV,
    MOV_OPTIONS,
    WITH_CHAPTERS,
    Copier,
    add_copy,
    add_tags_and_chapters,
    container_name,
    hides_order,
    holds,
    is_written_anew,
    lost,
    name_of,
)
from syncnet.media.packets import Survey, packets_of, survey, time_of
from syncnet.media.sound import placed
from syncnet.media.targets import COPY, check_holds, check_target
from syncnet.media.tracks import Track, TrackWriter, add_track, choose_track, contiguous, exactly, resampled
from syncnet.progress import Progress, silent
from syncnet.results.layout import new_file

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Generator
    from pathlib import Path

    import numpy as np
    from av.stream import Stream

__all__ = ["COPY", "FORMATS", "Moved", "Shift", "check_holds", "check_target", "move_sound"]

SHORT = 0.1  # seconds by which a picture is late because of an encoder's delay alone


@dataclass(frozen=True)
class Shift:
    """By how much sound is moved: what a player plays at time t, it plays ``delay_ms_at(t)`` later.

    Attributes:
        delay_ms: milliseconds, negative to move the sound to an earlier time; with a drift, those at ``at_s``.
        drift_ms_per_min: milliseconds by which the delay grows in a minute.
        at_s: time in a player, in seconds.
    """

    delay_ms: float
    drift_ms_per_min: float = 0.0
    at_s: float = 0.0

    @property
    def stretch(self) -> Fraction:
        """Seconds that a second of sound lasts afterwards."""
        return 1 + Fraction(self.drift_ms_per_min) / 60_000

    def time_before(self, time: Fraction) -> Fraction:
        """Return the time in a player, in seconds, of the sound that is played at a time afterwards."""
        return (time - Fraction(self.delay_ms) / 1000 + (self.stretch - 1) * Fraction(self.at_s)) / self.stretch

    def delay_ms_at(self, time: float) -> float:
        """Return the milliseconds by which the sound at a time in a player is delayed."""
        return self.delay_ms + self.drift_ms_per_min * (time - self.at_s) / 60


@dataclass(frozen=True)
class Moved:
    """What ``move_sound`` wrote.

    Attributes:
        codecs: per audio stream the name of the codec that it was written with.
        notes: one line for everything that could not be kept as it was.
    """

    codecs: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Clock:
    """Times in the source, in seconds by its own time stamps.

    Attributes:
        origin: becomes 0.
        start: start of the picture.
        player: start of a player's clock.
        end: end of the picture.
        hidden: seconds at the start that the source hides and the output shows.
    """

    origin: Fraction
    start: Fraction
    player: Fraction
    end: Fraction
    hidden: Fraction


@dataclass(frozen=True)
class Plan:
    """What becomes of each stream of a file.

    Attributes:
        source: the file.
        format: ffmpeg's name of the container to write.
        clock: times of the source.
        found: its packets.
        copied: seconds by which each stream that is copied is delayed, by its index.
        tracks: audio streams that are encoded.
        codecs, notes: as in ``Moved``.
    """

    source: Path
    format: str
    clock: Clock
    found: Survey
    copied: dict[int, Fraction]
    tracks: tuple[Track, ...]
    codecs: tuple[str, ...]
    notes: tuple[str, ...]


def move_sound(
    source: Path, output: Path, *, shift: Shift, audio_codec: str | None = None, progress: Progress = silent
) -> Moved:
    """Write a copy of a media file whose sound is moved.

    The sound begins and ends with the picture, with silence in front or without its first samples. The output appears
    complete or not at all.

    Args:
        source: the file; all its audio streams move together.
        output: the new file; its suffix gives the container.
        shift: by how much.
        audio_codec: ffmpeg's name of the codec of all audio streams; None for those of the source, ``COPY`` to move
            time stamps alone.
        progress: shows how many packets are written.

    Raises:
        MediaError: the source cannot be read, or has no audio.
        UsageError: the container is not one of those that can be written, or cannot hold the codec, or ``COPY`` with a
            drift, or a shift that leaves none of the sound.
        DiskFullError: the disk is full.
        SyncNetError: the output cannot be written for another reason.
    """
    format = check_target(output, audio_codec=audio_codec)
    check_holds(source, format=format, audio_codec=audio_codec)
    if audio_codec == COPY and shift.drift_ms_per_min:
        raise UsageError(f"--audio_codec {COPY}: cannot take out a drift, which needs new samples: choose a codec")
    if not check_streams(source).audio:
        raise MediaError(f"{source}: has no audio stream that can be decoded", code=reasons.NO_AUDIO)
    found = survey(source)
    clock = clock_of(source, format=format, found=found)
    if abs(shift.delay_ms) >= 1000 * (clock.end - clock.start):
        raise UsageError(
            f"{source}: moved by {shift.delay_ms:g} ms, none of its sound is left, because the picture lasts "
            f"{float(clock.end - clock.start):.2f} s: move it by less"
        )

    def moved(track: Track, count: int) -> Generator[np.ndarray]:
        return moved_samples(source, track, count, clock=clock, shift=shift)

    try:
        plan = make_plan(source, format=format, clock=clock, found=found, shift=shift, audio_codec=audio_codec)
        with new_file(output) as temporary:
            write(plan, absolute(temporary), sound=moved, progress=progress)
            written = {*plan.copied, *(track.index for track in plan.tracks)}
            notes = (*plan.notes, *lost(source, temporary, format=format, indices=written))
    except av.FFmpegError as error:
        kind = DiskFullError if no_space(error) else SyncNetError  # type: ignore[arg-type]
        raise kind(f"{output}: cannot write it ({error.strerror or error})") from error
    if clock.hidden:
        name = container_name(format)
        notes = (*notes, f"{name} shows {float(clock.hidden):.2f} s of pictures at the start that the source hides")
    return Moved(plan.codecs, notes)


def clock_of(source: Path, *, format: str, found: Survey) -> Clock:
    """Return the times of a file that matter if it is written into a container.

    Args:
        source: the file.
        format: ffmpeg's name of the container.
        found: the file's packets.
    """
    with Grid(source) as grid:
        player = Fraction(grid.container.start_time or 0, MICROSECONDS)
        # AVI has no time stamps but those of decoding, whose first is that of the first picture
        delay = found.start - player if grid.container.format.name == AVI else Fraction(grid.delay)
    start = player + max(Fraction(0), delay).limit_denominator(MICROSECONDS)
    hidden = start - found.start if found.hides and format not in MOV else Fraction(0)
    start -= hidden
    late = start - player > SHORT and format != AVI
    return Clock(origin=player if late else start, start=start, player=player, end=found.end, hidden=hidden)


def make_plan(source: Path, *, format: str, clock: Clock, found: Survey, shift: Shift, audio_codec: str | None) -> Plan:
    """Decide what becomes of each stream of a file.

    Args:
        source, shift, audio_codec: as in ``move_sound``.
        format, clock, found: as in ``Plan``.
    """
    copied, tracks = dict[int, Fraction](), list[Track]()
    codecs, notes = list[str](), list[str]()
    name = container_name(format)
    if found.complaint:
        notes.append(f"the source is damaged after {float(found.end):.1f} s: {found.complaint}")
    with open_container(source) as container:
        if container.chapters() and format not in WITH_CHAPTERS:
            notes.append(f"chapters are left out: {name} has none")
        if format != AVI and hides_order(container):
            notes.append(f"the source does not tell in which order pictures are shown: {name} may play them unevenly")
        for stream in container.streams:
            index = stream.index
            if stream.type == "audio" and stream.codec_context is not None:
                if audio_codec == COPY:
                    copied[index] = Fraction(shift.delay_ms) / 1000
                    codecs.append(name_of(stream))
                    continue
                track, lines = choose_track(
                    stream,  # type: ignore[arg-type]
                    format=format,
                    wanted=audio_codec,
                    measured=found.bit_rate(index),
                )
                tracks.append(track)
                codecs.append(Codec(track.encoder, "w").canonical_name)
                notes += lines
            elif is_written_anew(stream, container, format):
                continue
            elif holds(format, stream):
                copied[index] = Fraction(0)
            else:
                notes.append(f"stream {index} ({stream.type}, {name_of(stream)}) is left out: {name} cannot hold it")
    plan = Plan(source, format, clock, found, copied, tuple(tracks), tuple(codecs), tuple(notes))
    return rehearsed(plan) if tracks else plan


def rehearsed(plan: Plan) -> Plan:
    """Return a plan whose encoders' delays are known."""
    tracks, sure = rehearsal.rehearse(
        plan.tracks,
        lambda tracks, file: write(
            replace(plan, tracks=tuple(tracks)), file, sound=rehearsal.noise_of, seconds=rehearsal.SECONDS
        ),
        ahead=Fraction(0) if plan.found.hides else plan.clock.start - plan.found.start,
    )
    unsure = f"{container_name(plan.format)} may play the sound off by up to a frame of its codec"
    return replace(plan, tracks=tracks, notes=plan.notes if sure else (*plan.notes, unsure))


def moved_samples(source: Path, track: Track, count: int, *, clock: Clock, shift: Shift) -> Generator[np.ndarray]:
    """Yield the moved sound of a track from the start of the picture on, ``count`` samples, channels x N."""
    ahead = clock.start - clock.player  # of the picture, in a player
    first = round((shift.time_before(ahead) - ahead) * track.source_rate)
    with open_container(source) as container:
        for stream in container.streams:
            if stream.index != track.index:
                stream.discard = av.stream.Discard.all
        pieces = placed(
            container,
            container.streams[track.index],  # type: ignore[arg-type]
            zero=float(clock.start),
            before=max(0, -first),
            sample_rate=track.source_rate,
            layout=track.layout,
            format=track.format,
        )
        blocks = contiguous(pieces, first=first, track=track)
        ratio = shift.stretch * track.sample_rate / track.source_rate
        if ratio != 1:
            blocks = resampled(blocks, ratio=ratio, track=track)
        yield from exactly(blocks, count, track)


def write(
    plan: Plan,
    target: str | io.BytesIO,
    *,
    sound: Callable[[Track, int], Generator[np.ndarray]],
    seconds: Fraction | None = None,
    progress: Progress = silent,
) -> None:
    """Write the output.

    Args:
        plan: what becomes of each stream.
        target: path or file.
        sound: yields a number of samples of a track.
        seconds: length of a rehearsal, which ends early; None to write all.
        progress: as in ``move_sound``.

    Raises:
        av.FFmpegError: it cannot be written.
    """
    clock = plan.clock
    end = clock.end if seconds is None else min(clock.end, clock.start + seconds)
    options = MOV_OPTIONS if plan.format in MOV else {}
    with (
        open_container(plan.source) as container,
        av.open(target, "w", format=plan.format, options=options) as out,
        contextlib.ExitStack() as stack,
    ):
        streams: dict[int, Stream] = {}
        writers: list[TrackWriter] = []
        tracks = {track.index: track for track in plan.tracks}
        for stream in container.streams:
            track = tracks.get(stream.index)
            if track is not None:
                added, encoder = add_track(out, stream, track)
                count = max(1, round((end - clock.start) * track.sample_rate))
                blocks = stack.enter_context(contextlib.closing(sound(track, count)))
                writers.append(TrackWriter(out, added, encoder, track, blocks, start=clock.start, origin=clock.origin))
            elif stream.index in plan.copied and (copy := add_copy(out, stream)) is not None:
                streams[stream.index] = copy
        add_tags_and_chapters(out, container, origin=clock.origin)
        out.start_encoding()  # now the streams' units of time are known
        copiers = {
            index: Copier(
                out,
                container.streams[index],
                stream,
                offset=plan.copied[index] - clock.origin,
                decoding=plan.found.decoding.get(index),
            )
            for index, stream in streams.items()
        }
        for packet in progress(packets_of(container), total=plan.found.packets, desc="writing"):
            index = packet.stream.index
            is_main = index == plan.found.main
            stamp = time_of(packet, container)
            if seconds is not None and stamp is not None and stamp >= end:
                if is_main and stamp >= end + seconds:
                    break
                continue
            if is_main and stamp is not None:
                for writer in writers:
                    writer.write(until=stamp)
            if index in copiers:
                copiers[index].write(packet)
        for writer in writers:
            writer.finish()
