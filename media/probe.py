"""What is in a recording: streams, lengths, rates; and whether a participant's files fit together.

python -m media.probe --video V.mp4 --audio A.wav --dataset noxi --session 001 --role expert --out P.json
python -m media.probe --streams train/001/expert --dataset noxi --session 001 --role expert --out P.json

`probe` reads packet headers only (no decoding but of the first frame), so an hour takes seconds;
the command line also decodes the sound once, for its exact length and its peak.
The JSON holds no absolute path and no time of day: equal files give equal bytes.

A participant may come without a video, with precomputed streams (`--streams`): `video` is null then,
`audio` too where there is no sound file, no media are read, and the recording is as long as its
longest stream at its true rate.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np

from formats import stream_files
from formats.label_csv import read_labels
from formats.label_rate import check_rate
from media.audio import audio_blocks, is_silent
from media.complete import check_complete, check_streams, stated_duration, stated_end
from media.container import UNUSABLE, open_media, start_time
from media.video import (
    display_matrix,
    parse_roi,
    rotation_of,
    time_zero,
    video_frames,
    video_stream,
)
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from store.atomic import write_text
from store.sidecar import file_identity

log = get_logger("probe")

# More than an encoder's priming: a recorder that started the sound first.
EARLY_S = 0.1
TINY_S = 1e-6  # FFmpeg's own rounding of times
# Frame intervals that differ by more than this share of the median make a variable frame rate.
VARIABLE_RATE_TOLERANCE = 0.1


@dataclass
class VideoInfo:
    """A video stream: size upright in pixels, turned clockwise by `rotation` degrees, `frames` in
    all, mean `rate_hz`, times of the first and last frame, and duration (one interval past the
    last frame), in seconds of the recording."""

    width: int
    height: int
    rotation: int
    frames: int
    rate_hz: float
    first_s: float
    last_s: float
    duration_s: float
    variable_rate: bool


@dataclass
class AudioInfo:
    """An audio stream: native rate, channels, true time of its first sample (negative before the
    first picture), duration in seconds."""

    rate_hz: int
    channels: int
    start_s: float
    duration_s: float


@dataclass
class MediaInfo:
    """A recording: end of its last stream in seconds from its first picture; None for an absent stream."""

    duration_s: float
    video: VideoInfo | None
    audio: AudioInfo | None


def probe(path: str | Path) -> MediaInfo:
    """Streams and lengths of a recording, from its packets.

    Raises InputError for a file that cannot be opened, holds neither video nor audio, is damaged
    or truncated, or whose first frame cannot be decoded. The audio duration is that of the packets
    (up to 0.1 s more than the decoded sound where the codec pads).
    """
    with open_media(path) as container:
        check_streams(container, path)
        pictures = [
            s
            for s in container.streams.video
            if not s.disposition & av.stream.Disposition.attached_pic
        ]
        sounds = list(container.streams.audio)
        if not pictures and not sounds:
            raise InputError(
                f"{path} holds neither video nor audio",
                "correct the path in the sessions sheet, or exclude the participant",
            )
        selected = pictures[:1] + sounds[:1]
        zero = time_zero(path)
        times, audio_end = _packet_times(path, container, pictures[:1], sounds[:1], zero)
        begin = start_time(container) - zero  # of what the container states a length
        stated = [stated_duration(path, container, s) for s in selected]
        whole = stated_end(container) if len(selected) == len(container.streams) else None
    video = _video_info(path, times, stated[0]) if pictures else None
    audio = None
    if sounds:
        stream = audio_blocks(path)
        audio = AudioInfo(
            stream.native_rate_hz,
            stream.channels,
            round(stream.start_s, 6),
            round(max(0.0, audio_end - stream.start_s), 6),
        )
        check_complete(path, "audio", stated[-1], audio.duration_s, 0.0)
    ends = [audio.start_s + audio.duration_s] if audio else []
    ends += [video.first_s + video.duration_s] if video else []
    check_complete(path, "recording", whole, max(ends) - min(0.0, begin), 0.0)
    return MediaInfo(round(max(ends), 6), video, audio)


def stated_length(path: str | Path) -> float:
    """Seconds a recording lasts by its header alone (milliseconds to read); 0 when it does not say."""
    with open_media(path) as container:
        return 0.0 if container.duration is None else container.duration / av.time_base


def has_sound(path: str | Path) -> bool:
    """Whether a recording has an audio stream, by its header."""
    with open_media(path) as container:
        return bool(container.streams.audio)


def _packet_times(path, container, pictures, sounds, zero: float) -> tuple[np.ndarray, float]:
    """Sorted presentation times of the pictures (s), and the end of the last audio packet.

    Packets before the first picture (zero) cannot be decoded: a cut in front of their key frame.
    """
    times: list[float] = []
    audio_end = 0.0
    at = 0.0
    try:
        for packet in container.demux(*pictures, *sounds):
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is None or not packet.size or packet.is_discard:
                continue
            at = float(stamp * packet.time_base) - zero
            if pictures and packet.stream_index == pictures[0].index:
                if at > -TINY_S:
                    times.append(max(0.0, at))
            else:
                audio_end = max(audio_end, at + float((packet.duration or 0) * packet.time_base))
    except av.FFmpegError as e:
        raise InputError(
            f"{path} cannot be read after {at:.2f} s ({' '.join(str(e).split())[:100]})",
            "copy the recording again, or exclude the participant in the sheet",
        ) from e
    return np.sort(np.array(times)), audio_end


def _video_info(path, times: np.ndarray, stated: float | None) -> VideoInfo:
    for first in video_frames(path, threads=1):  # proves that the stream can be decoded
        height, width = first.rgb.shape[:2]
        break
    with open_media(path) as container:
        frame = next(container.decode(video_stream(container, path)))
        rotation = rotation_of(display_matrix(frame, path))
    steps = np.diff(times)
    step = float(np.median(steps)) if len(steps) else 0.0
    last_step = float(steps[-1]) if len(steps) else 0.0
    span = float(times[-1] - times[0])
    check_complete(path, "video", stated, span + last_step, step)
    variable = bool(len(steps)) and bool(
        (np.abs(steps - step) > VARIABLE_RATE_TOLERANCE * step).any()
    )
    return VideoInfo(
        width,
        height,
        rotation,
        len(times),
        round((len(times) - 1) / span, 6) if span > 0 else 0.0,
        round(float(times[0]), 6),
        round(float(times[-1]), 6),
        round(span + (step if len(steps) else 0.04), 6),
        variable,
    )


def _audio_record(path, channel: int | None, unusable: str) -> dict:
    """Decode the sound once: exact start, length, gaps and peak.

    InputError when it is silent and `unusable` is "refuse".
    """
    stream = audio_blocks(path, channel=channel)
    peak = 0.0
    for block in stream:
        peak = max(peak, float(np.abs(block).max()))
    if is_silent(peak):
        which = "" if channel is None else f" in channel {channel}"
        problem = f"{path} is silent{which} (peak {peak:.1g} of full scale)"
        if unusable == "refuse":
            raise InputError(
                problem,
                "correct the columns `audio` and `audio_channel` of the sheet, exclude the participant,"
                " or set media.unusable to invalid",
            )
        log.warning("%s: features of the sound will not be valid", problem)
    if stream.start_s < -EARLY_S:
        log.warning(
            "%s: the sound begins %.2f s before the first picture; what precedes the picture has no"
            " place on the time axis", path, -stream.start_s,
        )  # fmt: skip
    return {
        "rate_hz": stream.native_rate_hz,
        "channels": stream.channels,
        "channel": channel,
        "start_s": round(stream.start_s, 6),
        "duration_s": round(stream.n_samples / stream.rate_hz, 6),
        "peak": round(peak, 4),
        "silent": is_silent(peak),
        "gaps": [[round(a, 3), round(b, 3)] for a, b in stream.gaps],
        "overlaps": [[round(a, 3), round(b, 3)] for a, b in stream.overlaps],
    }


def check_lengths(lengths: dict[str, tuple[object, float]], tolerance_s: float) -> None:
    """InputError naming both when two ends differ by more than the tolerance.

    lengths maps a kind (video, audio, labels) to (file, end in seconds of the recording).
    """
    kinds = list(lengths)
    for i, a in enumerate(kinds):
        for b in kinds[i + 1 :]:
            (file_a, end_a), (file_b, end_b) = lengths[a], lengths[b]
            if abs(end_a - end_b) > tolerance_s:
                raise InputError(
                    f"{a} {file_a} ends at {end_a:.2f} s, {b} {file_b} at {end_b:.2f} s:"
                    f" more than {tolerance_s:g} s apart",
                    "check that both belong to this participant and are whole; else exclude the"
                    " participant or raise media.length_tolerance_s",
                )


def stream_records(prefix: str | Path) -> dict[str, dict]:
    """Rows, true rate (Hz) and length (s) of every precomputed stream of a participant."""
    return {
        name: {"rows": s.rows, "rate_hz": s.rate_hz, "duration_s": round(s.seconds(), 6)}
        for name, s in stream_files.lengths(prefix).items()
    }


def participant_record(
    video: str | Path | None,
    audio: str | Path | None,
    dataset: str,
    session: str,
    role: str,
    labels: str | Path | None = None,
    label_rate_hz: float = 25.0,
    audio_channel: int | None = None,
    roi: str = "",
    offset: float = 0.0,
    length_tolerance_s: float = 2.0,
    min_duration_s: float = 4.0,
    streams: str | Path | None = None,
    unusable: str = "invalid",
) -> dict:
    """Look into one participant's files and check that they fit together.

    audio None: the sound of the video. Times in seconds of the recording; `duration_s` is the end
    of the longer of video and audio; of a participant without video, of the longest of the
    streams (`streams`: folder/role of precomputed ones) and the audio. Raises InputError for
    anything unreadable or too short, for lengths that disagree by more than `length_tolerance_s`,
    and, with `unusable` "refuse", for silent sound.
    """
    if not video and not streams:
        raise InputError(
            f"{dataset}/{session} {role} has neither video nor streams",
            "fill in the column `video` or `streams` of the sheet, or exclude the participant",
        )
    record: dict = {
        "dataset": dataset,
        "session": session,
        "role": role,
        "offset": float(offset),
        "roi": roi or None,
        "video": None,
        "audio": None,
    }
    # kind -> (file, end in seconds of the recording)
    lengths: dict[str, tuple[object, float]] = {}
    if video:
        info = _video_of(video, roi)
        identity = file_identity(video)
        record["video"] = identity | asdict(info)
        lengths["video"] = (video, info.first_s + info.duration_s)
    else:
        record["streams"] = stream_records(streams)
        ends = {name: r["duration_s"] for name, r in record["streams"].items()}
        last = max(ends, key=ends.__getitem__)
        lengths["streams"] = (f"{streams}.{last}{stream_files.SUFFIX}", ends[last])
    sound = audio or video
    if sound:
        found = _audio_record(sound, audio_channel, unusable)
        record["audio"] = (identity if sound == video else file_identity(sound)) | found
        lengths["audio"] = (sound, found["start_s"] + found["duration_s"])
    for kind, (file, end_s) in lengths.items():
        if end_s < min_duration_s:
            raise InputError(
                f"{file}: the {kind} lasts {end_s:.2f} s, less than {min_duration_s:g} s",
                "exclude the participant in the sheet (exclude: yes), or lower media.min_duration_s",
            )
    record["duration_s"] = round(max(end for _, end in lengths.values()), 6)
    if labels:
        values = read_labels(labels)
        check_rate(labels, len(values), label_rate_hz, record["duration_s"])
        lengths["labels"] = (labels, len(values) / label_rate_hz)
        record["labels"] = file_identity(labels) | {
            "rate_hz": label_rate_hz,
            "values": len(values),
            "missing": int(np.isnan(values).sum()),
        }
    check_lengths(lengths, length_tolerance_s)
    return record


def _video_of(video: str | Path, roi: str) -> VideoInfo:
    """The video stream of a file; InputError where there is none, or `roi` leaves the picture."""
    info = probe(video)
    if info.video is None:
        raise InputError(
            f"{video} has no video stream",
            "put a video file into the column `video`, or exclude the participant in the sheet",
        )
    if roi:
        x, y, w, h = parse_roi(roi)
        if x + w > info.video.width or y + h > info.video.height:
            raise InputError(
                f"roi {roi} reaches beyond the picture of {video} ({info.video.width}x{info.video.height} upright)",
                "correct the column `roi` in the sessions sheet",
            )
    return info.video


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m media.probe",
        description="Look into one participant's recording and check that its files fit together.",
    )
    add = parser.add_argument
    add("--video", metavar="FILE", help="video file")
    add(
        "--streams",
        metavar="PREFIX",
        help="folder/role of precomputed streams, for a participant without a video file",
    )
    add("--audio", metavar="FILE", help="sound file (default: the sound of the video)")
    add("--labels", metavar="CSV", help="label file, to be compared with the media's length")
    add("--label-rate-hz", type=float, default=25.0, help="label lines per second (default 25)")
    add("--audio-channel", type=int, help="channel from 0 (default: mean of all)")
    add("--roi", default="", metavar="X,Y,W,H", help="region of the upright picture, pixels")
    add("--offset", type=float, default=0.0, help="start after the session's zero, seconds")
    add(
        "--length-tolerance-s",
        type=float,
        default=2.0,
        help="lengths may disagree by this many seconds (default 2)",
    )
    add(
        "--min-duration-s",
        type=float,
        default=4.0,
        help="shorter recordings are refused, seconds (default 4)",
    )
    add(
        "--unusable",
        choices=UNUSABLE,
        default="invalid",
        help="silent sound: its features are not valid (default), or it is refused",
    )
    add("--dataset", required=True, help="name of the dataset")
    add("--session", required=True, help="name of the session")
    add("--role", required=True, help="name of the participant in the session")
    add("--out", required=True, metavar="JSON", help="record to write")
    add_job_arguments(parser)
    return parser


def _write(args: argparse.Namespace) -> None:
    record = participant_record(
        args.video,
        args.audio,
        args.dataset,
        args.session,
        args.role,
        args.labels,
        args.label_rate_hz,
        args.audio_channel,
        args.roi,
        args.offset,
        args.length_tolerance_s,
        args.min_duration_s,
        args.streams,
        args.unusable,
    )
    record["fingerprint"] = args.fingerprint
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False)
    write_text(args.out, text + "\n")


def main(argv: list[str] | None = None) -> int:
    return run_job("media.probe", build_parser(), _write, argv)


if __name__ == "__main__":
    sys.exit(main())
