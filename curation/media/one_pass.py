"""One pass over the packets of an open file: which pictures and sounds are in the clip, and when.

Times that are missing, come again or leap are mended from one picture, or frame of sound, to the next.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from curation.media.container import TELLS_DURATION, Limits, Unscannable
from curation.media.facts import NEARLY_S, Cut, Facts
from curation.media.sound import SoundTrack
from curation.media.spare import KNOWS_SPARE, SparePictures
from curation.verdict import Reason

if TYPE_CHECKING:
    import av

PictureSink = Callable[[float, "av.VideoFrame"], None]
_LATE_S = 0.001  # times are rounded to this
_LEAP_S = 10.0  # a time that leaps further, past the end the file tells, is damage
_MISSING_SHARE, _MISSING_S = 0.03, 0.3  # of its length, that a whole file may lack: the larger of both


class Enough(Exception):
    """What a sink raises that wants no more: its stream is left, and decoding ends with the last one."""


class Pass:
    """One pass over the packets of a file."""

    def __init__(
        self,
        container: Any,
        video: Any | None,
        audio: Any | None,
        cut: Cut,
        limits: Limits,
        picture: PictureSink | None,
        track: SoundTrack,
    ) -> None:
        self._container, self._video, self._audio = container, video, audio
        self._cut, self._limits, self._picture, self.track = cut, limits, picture, track
        origin = container.start_time
        self._origin_s = 0.0 if origin is None else origin / 1e6  # where the file's own time begins
        self._tells_s = None if container.duration is None else container.duration / 1e6
        self._base = {s.index: float(s.time_base) for s in (video, audio) if s is not None}
        self._video_base_s = 0.0 if video is None else self._base[video.index]
        rate = None if video is None else video.average_rate or video.guessed_rate
        self._step_s = 1 / float(rate) if rate else 0.04
        self._zero_s: float | None = None  # in the file, of the clip's clock
        self._video_at_s: float | None = None  # in the file, of the latest picture, and …
        self._video_end_s = 0.0  # … when it stops being shown
        self._first: Any = None  # the first picture
        self.num_frames = 0
        self._refused = 0
        self._flawed = 0  # pictures that their decoder says are not as they were
        self._broke: str | None = None  # what the demuxer said when it gave up
        self._spare: SparePictures | None = None
        self._over = {index: False for index in self._base}  # streams that are past the cut
        self._enough: set[int] = set()  # streams whose sink wants no more
        self._by_file = False  # whether the clock is that of the file
        if cut.start_s is not None and video is None:
            self._start_clock(self._origin_s + cut.start_s)

    def leave_out_spare(self, pictures_fps: int | None) -> None:
        """Decode no pictures that are not shown at multiples of 1 / pictures_fps, where that can be."""
        if self._video is None or not pictures_fps or self._video.codec_context.name not in KNOWS_SPARE:
            return
        ends = (self._cut.start_s, self._cut.end_s)
        start_s, end_s = (None if end is None else self._origin_s + end - _LATE_S for end in ends)
        self._spare = SparePictures(self._video, pictures_fps, start_s, end_s)

    def start_with_the_file(self) -> None:
        """Let the clock begin with that of the file, or where the cut begins."""
        self._by_file = True
        if self._zero_s is None:
            begin_s = None if self._cut.start_s is None else self._origin_s + self._cut.start_s
            self._start_clock(begin_s or 0.0)

    def all_packets(self) -> None:
        """Decode until the end of the clip, or until nobody wants more."""
        for packet in self.packets():
            if self.wants(packet):
                self.take(packet, self.decoded(packet))
                if self.is_done:
                    break
        self.end()

    # ---- step by step, for those who share packets; see `together.py` --------------------------------

    def packets(self) -> Iterator[Any]:
        """All packets of its streams, in the order in which they are decoded."""
        packets = self._packets()
        return packets if self._spare is None else self._spare.ordered(packets)

    def leave_none_out(self, yes: bool) -> None:
        """Have spare pictures decoded too, for now or no longer."""
        if self._spare is not None:
            self._spare.leaves_none = yes

    def wants(self, packet: Any) -> bool:
        """Whether the pictures or sounds of a packet may be in the clip."""
        return not self._over.get(packet.stream.index, True)  # its stream_index may be 0 instead

    def take(self, packet: Any, frames: Sequence[Any]) -> None:
        """Take what was decoded from a packet that it wants."""
        take = self._take_picture if packet.stream is self._video else self._take_sound
        with self._until_enough(packet.stream.index):
            for frame in frames:
                take(frame)

    @property
    def sees(self) -> bool:
        """Whether pictures count."""
        return self._video is not None

    @property
    def wants_pictures(self) -> bool:
        """Whether it wants more of them."""
        return self._video is not None and not self._over[self._video.index]

    @property
    def is_done(self) -> bool:
        """Whether it wants nothing more."""
        return all(self._over.values())

    @property
    def is_flawed(self) -> bool:
        """Whether something could not be read, or not decoded as it was."""
        return bool(self._refused or self._flawed or self._broke)

    def end(self) -> None:
        """Hand on what is left, when all packets were taken that it wants."""
        if self._audio is not None and self._audio.index not in self._enough:
            with self._until_enough(self._audio.index):
                self.track.finish()

    @contextmanager
    def _until_enough(self, index: int) -> Iterator[None]:
        """Leave a stream when its sink has enough."""
        try:
            yield
        except Enough:
            self._over[index] = True
            self._enough.add(index)

    def _packets(self) -> "Iterator[Any]":
        import av

        streams = [stream for stream in (self._video, self._audio) if stream is not None]
        try:
            yield from self._container.demux(streams)
        except av.error.FFmpegError as error:
            _raise_memory(error)
            self._broke = error.strerror
            for stream in streams:  # what the decoders still hold
                yield from (_Rest(stream),)

    def decoded(self, packet: Any) -> list[Any]:
        """The pictures or sounds of a packet; none where it is refused."""
        import av

        try:
            frames: list[Any] = packet.decode()
        except av.error.EOFError:
            return []
        except (av.error.FFmpegError, ValueError) as error:
            _raise_memory(error)
            self._refused += 1
            if self._spare is not None and packet.stream is self._video:
                self._spare.was_refused(packet.pts)
            return []
        return frames

    def _take_picture(self, frame: "av.VideoFrame") -> None:
        """Give a picture on, with its time on the clip's clock, if it is in the clip."""
        at_s = self._time_of(frame, self._video)
        last_s = self._video_at_s
        if self._spare is not None:
            self._spare.came(frame.pts)
        if at_s is None or (last_s is not None and (at_s <= last_s or self._leaps(at_s, last_s))):
            at_s = self._origin_s if last_s is None else last_s + self._step_s
        if not self._within(at_s, self._video):
            return
        self._check_pixels(frame)
        if self._zero_s is None:
            length_s = None if self._cut.end_s is None else self._origin_s + self._cut.end_s - at_s
            self._start_clock(at_s, length_s)
        assert self._zero_s is not None, "the clock has begun"
        time_s = at_s - self._zero_s
        if time_s < 0:
            if self._by_file:
                return
            time_s = 0.0
        if self._first is None:
            self._first = frame
            self.first_s = at_s
            if self._spare is not None:
                self._spare.starts(self._zero_s, frame.pts)
        elif time_s > self._limits.max_duration_s:
            raise self._too_long()
        shown_s = frame.duration * self._video_base_s if frame.duration else self._step_s
        self._video_at_s, self._video_end_s = at_s, at_s + min(shown_s, _LEAP_S)
        self.num_frames += 1
        self._flawed += frame.is_corrupt
        assert self._picture is not None, "pictures are decoded only where somebody wants them"
        self._picture(time_s, frame)

    def _take_sound(self, frame: "av.AudioFrame") -> None:
        at_s = self._time_of(frame, self._audio)
        last_s = self.track.end_s
        if at_s is not None and last_s is not None and self._leaps(at_s, last_s):
            at_s = None
        if at_s is None and last_s is None:
            at_s = self._origin_s
        if at_s is not None and self._cut.start_s is not None:
            assert self._cut.end_s is not None, "a cut has both ends"
            if at_s + frame.samples / frame.sample_rate <= self._origin_s + self._cut.start_s:
                return
            if at_s >= self._origin_s + self._cut.end_s:
                self._over[self._audio.index] = True  # type: ignore[union-attr]  # it is its frame
                return
        self.track.add(frame, at_s)
        begin_s = self.track.begin_s if self._zero_s is None else self._zero_s
        assert self.track.end_s is not None, "it was just given a frame"
        assert begin_s is not None, "it was just given a frame"
        if self.track.end_s - begin_s > self._limits.max_duration_s + NEARLY_S:
            raise self._too_long()

    def _time_of(self, frame: Any, stream: Any) -> float | None:
        return None if frame.pts is None else frame.pts * self._base[stream.index]

    def _leaps(self, at_s: float, last_s: float) -> bool:
        """Whether a time is so far off that it was damaged."""
        if abs(at_s - last_s) <= _LEAP_S:
            return False
        return self._tells_s is None or not -1 <= at_s - self._origin_s <= self._tells_s + 1

    def _within(self, at_s: float, stream: Any) -> bool:
        if self._cut.start_s is None or self._cut.end_s is None:
            return True
        file_s = at_s - self._origin_s
        self._over[stream.index] = file_s >= self._cut.end_s - _LATE_S
        return file_s >= self._cut.start_s - _LATE_S and not self._over[stream.index]

    def _start_clock(self, zero_s: float, length_s: float | None = None) -> None:
        if self.track.zero_s is not None:  # no picture came for so long that the sound began
            self._zero_s = self.track.zero_s
            return
        self._zero_s = zero_s
        sound = nullcontext() if self._audio is None else self._until_enough(self._audio.index)
        with sound:  # what was held goes on now, and may be enough
            self.track.starts_at(zero_s, self._cut.length_s if length_s is None else length_s)

    def _check_pixels(self, frame: "av.VideoFrame") -> None:
        if frame.width * frame.height > self._limits.max_pixels:
            raise Unscannable(Reason.TOO_LARGE, f"{frame.width} x {frame.height} pixels")

    def _too_long(self) -> Unscannable:
        limit = f"the limit is {self._limits.max_duration_s:g} s"
        return Unscannable(Reason.TOO_LONG, f"goes on after {self._limits.max_duration_s:g} s, {limit}")

    # ---- afterwards ---------------------------------------------------------------------------------

    @property
    def picture_end_s(self) -> float | None:
        """When the last picture stops being shown, on the clip's clock."""
        return None if self._zero_s is None or not self.num_frames else self._video_end_s - self._zero_s

    def facts(self) -> Facts | None:
        """What was found; None where neither a picture nor sound came out."""
        heard = self.track.duration_s > 0
        if not self.num_frames and not heard:
            return None
        ends = (self.picture_end_s or 0.0, self.track.duration_s if heard else 0.0)
        facts = Facts(duration_s=round(max(ends), 6), damage=self.harm())
        if self.num_frames:
            self._tell_video(facts)
        if heard and self._audio is not None:
            context = self._audio.codec_context
            facts.audio_codec, facts.sample_rate_hz = context.name, context.rate
            facts.channels, facts.audio_start_s = context.channels, _rounded(self.track.begin_s)
        return facts

    def _tell_video(self, facts: Facts) -> None:
        assert self._video is not None, "pictures came"
        turn = int(self._first.rotation) % 360
        sides = self._first.width, self._first.height
        facts.width_px, facts.height_px = sides if turn % 180 == 0 else sides[::-1]
        facts.video_codec, facts.rotation_deg = self._video.codec_context.name, turn
        left_out = self._spare.num_left_out if self._spare is not None else 0
        facts.num_frames, facts.video_start_s = self.num_frames + left_out, _rounded(self.first_s)
        facts.picture_end_s = self.picture_end_s
        assert self._video_at_s is not None, "pictures came"
        span_s = self._video_at_s - self.first_s
        facts.fps = round((facts.num_frames - 1) / span_s, 3) if span_s > 0 else None

    def harm(self) -> str | None:
        """What could not be decoded, in words; None where all was."""
        said = []
        if self._refused:
            said.append(f"{self._refused} packets refused")
        if self._flawed:
            said.append(f"{self._flawed} pictures flawed")
        if self._broke:
            said.append(f"reading stopped: {self._broke}")
        reached_s = self._reached_s()
        if (
            self._tells_s is not None
            and not self._enough
            and self._cut.start_s is None
            and self._container.format.name in TELLS_DURATION
            and self._tells_s - reached_s > max(self._tells_s * _MISSING_SHARE, _MISSING_S)
        ):
            said.append(f"{reached_s:.1f} of {self._tells_s:.1f} s")
        return ", ".join(said) or None

    def _reached_s(self) -> float:
        ends = [self._video_end_s if self.num_frames else None, self.track.end_s]
        return max((end_s - self._origin_s for end_s in ends if end_s is not None), default=0.0)


class _Rest:
    """Stands for the packet after the last one: what a decoder still holds."""

    pts, size, is_discard = None, 0, False

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def decode(self) -> list[Any]:
        frames: list[Any] = self.stream.decode(None)
        return frames


def _raise_memory(error: Exception) -> None:
    if isinstance(error, MemoryError):
        raise error


def _rounded(time_s: float | None) -> float | None:
    return None if time_s is None else round(time_s, 6)
