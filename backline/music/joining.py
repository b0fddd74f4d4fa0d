"""Join stems event by event: every event of every stem stays, on tracks and channels of its own.

The first track holds what is said of the whole song: tempo map, meters, keys, markers, system
messages. The other tracks are those of the stems; a track that plays on several channels is split
into one for each. What two stems both say of the whole song is written once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from backline.common.errors import UserError
from backline.music.channels import DRUM_CHANNEL, SetUp
from backline.music.midi_edits import ABOUT_TRACK, with_tempo
from backline.music.midi_events import (
    CONTROL_CHANGE,
    LONGEST_GAP,
    N_CHANNELS,
    NAME,
    PITCH_BEND,
    PROGRAM_CHANGE,
    SIGNATURE,
    SYSEX,
    SYSEX_GOES_ON,
    TEMPO,
)
from backline.music.midi_tracks import Event, MidiTracks, meta_message, meta_value, song_of_tracks
from backline.music.parts import assign_parts
from backline.music.song import DEFAULT_TEMPO, MAX_TICKS_PER_QUARTER
from backline.music.time_line import MAPS, Source, join_maps
from backline.music.vocab import Vocabulary

INSTRUMENT, LYRIC, MARKER, CUE, CHANNEL_PREFIX = 0x04, 0x05, 0x06, 0x07, 0x20  # meta events
ON_CHANNEL = (CONTROL_CHANGE, PROGRAM_CHANGE, PITCH_BEND)  # what all notes of a channel share
MOST_TRACKS = 0xFFFF  # 16 bits of a MIDI header
FOUR_QUARTERS = bytes([4, 2, 24, 8])  # the value of a time signature


class Stem(NamedTuple):
    """A file, how messages call it, and the index of the part that it plays."""

    name: str
    midi: MidiTracks
    part: int


class Joined(NamedTuple):
    """The song that stems make, and what people may not expect of it, a line each.

    names_tempo: whether a stem names one; else the song is at the default.
    """

    midi: MidiTracks
    notices: list[str]
    names_tempo: bool


class PlayedTrack(NamedTuple):
    """A track of the song. `part`: index of the part that its notes play; −1: it has none."""

    part: int
    events: list[Event]
    end: int


def join_stems(stems: Sequence[Stem], vocabulary: Vocabulary) -> Joined:
    """Join stems; the first that has a tempo, a meter or a key gives it to the song.

    Raises UserError where a MIDI file cannot hold them together.
    """
    resolutions = [stem.midi.ticks_per_quarter for stem in stems]
    ticks_per_quarter = common_ticks_per_quarter(resolutions)
    stems = [stem._replace(midi=rescale(stem, ticks_per_quarter)) for stem in stems]
    maps, notices = join_maps([Source(stem.name, stem.midi) for stem in stems])
    said = {event.meta for event in maps}
    stems = sorted(stems, key=lambda stem: stem.part)
    channels = Channels(stems, vocabulary)
    notices += channels.notices
    about_song, tracks = _tracks(stems, channels)
    if SIGNATURE not in said:
        maps.insert(0, Event(0, meta_message(SIGNATURE, FOUR_QUARTERS)))
    last_end = max(end for stem in stems for end in stem.midi.ends)
    first = PlayedTrack(-1, [*maps, *about_song], last_end)
    tracks = [first, *tracks]
    if len(tracks) > MOST_TRACKS:
        raise UserError(f"{stems[0].name}: {len(tracks)} tracks with those of the other stems, a "
                        f"MIDI file holds {MOST_TRACKS}; join fewer stems")
    midi = _named(tracks, ticks_per_quarter, vocabulary)
    if TEMPO not in said:
        midi = with_tempo(midi, DEFAULT_TEMPO)
    return Joined(midi, notices, TEMPO in said)


# ---------------------------------------------------------------- ticks


def common_ticks_per_quarter(resolutions: Sequence[int]) -> int:
    """The least common multiple, which keeps all stems exact; the finest if MIDI cannot hold it."""
    multiple = math.lcm(*resolutions)
    if multiple > MAX_TICKS_PER_QUARTER:
        return max(resolutions)
    return multiple


def rescale_tick(tick: int, old: int, new: int) -> int:
    """`tick` in `new` ticks per quarter instead of `old`: the nearest; a tie goes down."""
    return -((old - 2 * new * tick) // (2 * old))


def rescale(stem: Stem, new: int) -> MidiTracks:
    """The stem in other ticks per quarter. Raises UserError about events too late for them."""
    old = stem.midi.ticks_per_quarter
    last_tick = max((event.tick for events in stem.midi.tracks for event in events), default=0)
    if last_tick * new > LONGEST_GAP * old:
        raise UserError(f"{stem.name}: its last event is at quarter {last_tick // old}, too late "
                        f"for a file with {new} ticks per quarter; cut the stem, or export all "
                        f"with the same ticks")
    if new == old:
        return stem.midi
    tracks = tuple(tuple(Event(rescale_tick(tick, old, new), message) for tick, message in events)
                   for events in stem.midi.tracks)
    ends = tuple(rescale_tick(end, old, new) for end in stem.midi.ends)
    return MidiTracks(new, tracks, ends)


# ---------------------------------------------------------------- channels


StemChannel = tuple[int, int]  # a stem's index and a channel in it


class Channels:
    """On which channel of the song each channel of each stem plays.

    Drums play on the channel of drums, all others on one of their own: the same as in the stem
    where that is free.
    """

    def __init__(self, stems: Sequence[Stem], vocabulary: Vocabulary) -> None:
        self.stems = stems
        self.vocabulary = vocabulary
        self.notices: list[str] = []
        self.played: dict[StemChannel, int] = {}
        self.silent: dict[StemChannel, int] = {}
        self._give_to_players()
        self._give_to_silent()
        self._say_shared_drums()

    def channel(self, place: StemChannel) -> int | None:
        """The new channel; None for messages that no channel is left for."""
        return self.played.get(place, self.silent.get(place))

    def lacks_program(self, place: StemChannel) -> bool:
        """Whether no stem names a program for the channel that this one plays on."""
        channel = self.played[place]
        sharing = [other for other, its_channel in self.played.items() if its_channel == channel]
        return not any(event.kind == PROGRAM_CHANGE
                       for other in sharing
                       for event in self._events(other))

    def _events(self, place: StemChannel) -> Iterable[Event]:
        index, channel = place
        return (event
                for events in self.stems[index].midi.tracks
                for event in events
                if event.channel == channel)

    def _give_to_players(self) -> None:
        taken = {DRUM_CHANNEL, *self._set_up_for_drums()}
        waiting = []
        for index, stem in enumerate(self.stems):
            for channel in _channels(stem.midi, only_played=True):
                place = index, channel
                if self.vocabulary.parts[stem.part].is_drum:
                    self.played[place] = DRUM_CHANNEL
                elif channel in taken:
                    waiting.append(place)
                else:
                    self.played[place] = channel
                    taken.add(channel)
        free = [channel for channel in range(N_CHANNELS) if channel not in taken]
        for place in waiting:
            self.played[place] = free.pop(0) if free else self._shared_by(place)

    def _set_up_for_drums(self) -> set[int]:
        """Channels on which system messages of the stems put drums."""
        set_up = SetUp()
        for stem in self.stems:
            for events in stem.midi.tracks:
                for event in filter(_is_system, events):
                    set_up.read(event.message)
        return {channel for channel, is_drum in set_up.is_drum.items() if is_drum}

    def _shared_by(self, place: StemChannel) -> int:
        """The channel of another voice of the same part, or else the last channel."""
        stem = self.stems[place[0]]
        of_part = [channel
                   for (index, _), channel in self.played.items()
                   if self.stems[index].part == stem.part]
        channel = of_part[0] if of_part else N_CHANNELS - 1
        self.notices.append(f"{stem.name}: no channel is left for its channel {place[1] + 1}: it "
                            f"shares channel {channel + 1}, with the programs and controllers there")
        return channel

    def _give_to_silent(self) -> None:
        """Put channels without notes where they disturb none that plays."""
        in_use = set(self.played.values())
        unused = [channel for channel in range(N_CHANNELS) if channel not in in_use]
        for index, stem in enumerate(self.stems):
            lost = []
            for channel in _channels(stem.midi, only_played=False):
                place = index, channel
                if place in self.played:
                    continue
                if unused:
                    self.silent[place] = channel if channel in unused else unused[0]
                else:
                    lost.append(place)
            if lost:
                n_lost = sum(1 for place in lost for _ in self._events(place))
                self.notices.append(f"{stem.name}: {n_lost} messages are left out, for channels "
                                    f"that play no note")

    def _say_shared_drums(self) -> None:
        """A line where one stem's drums may change the sound of another's."""
        places = [place for place, channel in self.played.items() if channel == DRUM_CHANNEL]
        said = [{event.message[1:] for event in self._events(place) if event.kind in ON_CHANNEL}
                for place in places]
        if any(messages != said[0] for messages in said):
            names = sorted({self.stems[index].name for index, _ in places})
            self.notices.append(f"{' and '.join(names)}: all drums play on channel 10, with the "
                                f"programs and controllers of each other")


def _channels(midi: MidiTracks, only_played: bool) -> list[int]:
    """Channels that have messages in a file; with `only_played`, those that have notes."""
    found = {event.channel
             for events in midi.tracks
             for event in events
             if event.is_onset or not only_played}
    return sorted(found - {-1})


# ---------------------------------------------------------------- tracks


def _tracks(stems: Sequence[Stem], channels: Channels) -> tuple[list[Event], list[PlayedTrack]]:
    """What the stems say of the whole song, and their tracks."""
    about_song: list[Event] = []
    tracks: list[PlayedTrack] = []
    said: set[Event] = set()  # by earlier stems
    with_program: set[int] = set()  # channels of the song
    for index, stem in enumerate(stems):
        for events, end in zip(stem.midi.tracks, stem.midi.ends, strict=True):
            own = [event for event in events if event.meta not in MAPS]
            news = [event for event in own if not (_is_of_song(event) and event in said)]
            about_song += [event for event in news if _goes_first(event)]
            rest = [event for event in news if not _goes_first(event)]
            if all(event.meta in ABOUT_TRACK for event in rest):
                about_song += [event for event in rest if event not in said]
                continue
            for channel_events in _by_channel(rest):
                moved = _on_channels(channel_events, index, channels)
                place = _played_place(channel_events, index)
                if place is None:
                    tracks.append(PlayedTrack(-1, moved, end))
                    continue
                new = channels.played[place]
                if new not in with_program and channels.lacks_program(place):
                    program = channels.vocabulary.parts[stem.part].program
                    moved.insert(0, Event(0, bytes([PROGRAM_CHANGE | new, program])))
                with_program.add(new)
                tracks.append(PlayedTrack(stem.part, moved, end))
        said.update(event
                    for events in stem.midi.tracks
                    for event in events
                    if event.channel < 0)
    return about_song, tracks


def _is_system(event: Event) -> bool:
    return event.kind in (SYSEX, SYSEX_GOES_ON)


def _is_of_song(event: Event) -> bool:
    """Whether an event is about the whole song: said by several stems, it is written once."""
    if _is_system(event):
        return event.kind == SYSEX and event.message[-1] == SYSEX_GOES_ON  # whole, not a packet
    return event.meta in (LYRIC, MARKER, CUE)


def _goes_first(event: Event) -> bool:
    """Whether an event belongs in the first track: a reset must come before all programs."""
    return _is_system(event) or event.meta in (MARKER, CUE)


def _by_channel(events: Sequence[Event]) -> list[list[Event]]:
    """Split a track by the channels it plays on; the first one keeps all other events."""
    played = sorted({event.channel for event in events if event.is_onset})
    others = played[1:]
    about = [event for event in events if event.meta in ABOUT_TRACK]
    first = [event for event in events if event.channel not in others]
    split = [[event for event in events if event.channel == channel] for channel in others]
    return [first, *([*about, *own] for own in split)]


def _played_place(events: Sequence[Event], index: int) -> StemChannel | None:
    """The channel that a track plays on; None if it has no notes."""
    channel = next((event.channel for event in events if event.is_onset), None)
    return None if channel is None else (index, channel)


def _on_channels(events: Sequence[Event], index: int, channels: Channels) -> list[Event]:
    """Events on the channels of the song."""
    moved = []
    for event in events:
        if event.meta == CHANNEL_PREFIX:
            moved.append(_moved_prefix(event, index, channels))
        elif event.channel < 0:
            moved.append(event)
        elif (new := channels.channel((index, event.channel))) is not None:
            head = bytes([event.kind | new])
            moved.append(Event(event.tick, head + event.message[1:]))
    return moved


def _moved_prefix(event: Event, index: int, channels: Channels) -> Event:
    """A channel prefix (which channel the next messages are for), for its new channel."""
    value = meta_value(event.message)
    new = channels.channel((index, value[0])) if len(value) == 1 else None
    if new is None:
        return event
    return Event(event.tick, meta_message(CHANNEL_PREFIX, bytes([new])))


# ---------------------------------------------------------------- names


def _named(tracks: Sequence[PlayedTrack],
           ticks_per_quarter: int,
           vocabulary: Vocabulary) -> MidiTracks:
    """The tracks as a file in which each part is found.

    A track keeps its name where that, or its program, tells its part. Else the part's name takes
    its place, and it becomes the name of the instrument.
    """
    renamed: set[int] = set()  # parts
    while True:
        named = tuple(_with_name(track, vocabulary, renamed) for track in tracks)
        ends = tuple(track.end for track in tracks)
        midi = MidiTracks(ticks_per_quarter, named, ends)
        wrong = _miscast(midi, [track.part for track in tracks], vocabulary) - renamed
        if not wrong:
            return midi
        renamed |= wrong


def _miscast(midi: MidiTracks, parts: Sequence[int], vocabulary: Vocabulary) -> set[int]:
    """Parts with a track that would be read as another part, or as none."""
    song, voices = song_of_tracks(midi, "")
    try:
        casting = assign_parts(song, vocabulary)
    except UserError:  # it is not clear who plays what
        return set(parts)
    found = {i: part
             for part, name in enumerate(vocabulary.part_names)
             for i in casting.tracks[name]}
    return {parts[voice.track]
            for i, voice in enumerate(voices)
            if found.get(i, -1) != parts[voice.track]}


def _with_name(track: PlayedTrack,
               vocabulary: Vocabulary,
               renamed: Collection[int]) -> tuple[Event, ...]:
    """The events of a track, with a name if it plays a part."""
    if track.part < 0:
        return tuple(track.events)
    part_name = meta_message(NAME, vocabulary.part_names[track.part].encode())
    place = next((i for i, event in enumerate(track.events) if event.meta == NAME), -1)
    own = track.events[place] if place >= 0 else None
    if own is None or not meta_value(own.message).strip(b"\0 "):
        return (Event(0, part_name), *track.events)
    if track.part not in renamed or own.message == part_name:
        return tuple(track.events)
    instrument = meta_message(INSTRUMENT, meta_value(own.message))
    return (
        *track.events[:place],
        Event(own.tick, part_name),
        Event(own.tick, instrument),
        *track.events[place + 1:],
    )
