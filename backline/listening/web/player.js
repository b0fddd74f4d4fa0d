"use strict";
// What plays: one player for the whole page, on the clock of the audio hardware.
//
// A timer wakes up now and then and hands all notes of the next moment to the audio system, each with its exact time.
// How late the timer is therefore cannot be heard. Positions in a song are in beats (quarter notes) from its start.

const AHEAD = 0.25; // seconds that are handed over in advance
const AHEAD_HIDDEN = 2.5; // in a tab out of sight, where browsers let timers run once a second
const WAKE = 50; // milliseconds
const FULL_VOLUME = 0.8; // at which a MIDI port gets velocities as they are
const CLOCK_DRIFT = 0.05; // milliseconds between wakes that two clocks may part
const STANDSTILL = 1000; // milliseconds until a clock that should run is taken for broken
const MOST_VOICES = 64; // notes that sound at once; with hundreds, phones and Safari crackle
const PATIENCE = 2000; // milliseconds until it is said that no sound comes
const START_DELAY = 0.06; // seconds, so that the first notes are not late
const REMEMBERED = 4096; // scheduled notes kept for whoever looks (tests)

/** The tempo map of a song: beats as seconds, as it runs by itself. `tempos`: [beat, beats per minute], the first at 0. */
class TimeLine {
  constructor(tempos) {
    let seconds = 0;
    this.changes = tempos.map(([beat, tempo], i) => {
      if (i) seconds += (beat - tempos[i - 1][0]) * 60 / tempos[i - 1][1];
      return { beat, tempo, seconds };
    });
  }

  seconds(beat) {
    const change = this.last((one) => one.beat <= beat);
    return change.seconds + (beat - change.beat) * 60 / change.tempo;
  }

  beat(seconds) {
    const change = this.last((one) => one.seconds <= seconds);
    return change.beat + (seconds - change.seconds) * change.tempo / 60;
  }

  /** The last change that is so, by halving, as a song may have thousands; the first if none is. */
  last(isSo) {
    let [low, high] = [0, this.changes.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (isSo(this.changes[middle])) low = middle;
      else high = middle;
    }
    return this.changes[low];
  }

  /** From the slowest to the fastest tempo, for people. */
  range() {
    const round = (tempo) => Math.round(tempo * 10) / 10;
    const tempos = this.changes.map((change) => change.tempo);
    const [slowest, fastest] = [round(tempos.reduce((a, b) => Math.min(a, b))), round(tempos.reduce((a, b) => Math.max(a, b)))];
    return slowest === fastest ? String(slowest) : `${slowest}–${fastest}`;
  }
}

class Player {
  /**
   * `parts`: [{name, drum, program}]. `onChange` is called whenever what the page shows may have changed, `onSilence`
   * if the browser gets no sound out.
   */
  constructor(parts, onChange, onSilence) {
    this.parts = parts;
    this.onSilence = onSilence;
    this.onChange = onChange;
    this.audio = null; // made at the first touch: browsers allow no sound before
    this.desk = null;
    this.idea = null;
    this.playing = false;
    this.loop = false;
    this.region = null; // [from, to] in beats: what is played again and again in a loop; null: all
    this.volume = FULL_VOLUME;
    this.muted = new Set();
    this.soloed = new Set();
    this.levels = parts.map(() => 1); // volume of each part, up to 1
    this.lead = Infinity; // milliseconds, see compareClocks
    this.port = null; // a MidiPort that plays in place of the page
    this.tempos = new Map(); // of the ideas whose tempo was changed
    this.scheduled = [];
    this.restPosition = 0;
    this.marks = []; // {time, beat, speed}: how the song runs from `time` on, the newest last
    this.until = 0; // beat up to which notes are handed over
    this.voices = []; // {gain, end}: notes handed over, the oldest first
    this.ticked = { time: 0, at: 0 }; // the audio clock, and the computer's, when the first last moved
    this.renewed = false; // whether the context is one in place of another that stood still
  }

  // ---------------------------------------------------------- what is so

  tempo(idea = this.idea) {
    return this.tempos.get(idea) ?? idea.tempo;
  }

  /** How much faster than by itself an idea plays, with all its tempos. */
  speed(idea = this.idea) {
    return this.tempo(idea) / idea.tempo;
  }

  /** How loud each part is, up to 1; 0 where it is not heard. Solos win over mutes. */
  gains() {
    return this.parts.map((_, p) => ((this.soloed.size ? this.soloed.has(p) : !this.muted.has(p)) ? this.levels[p] : 0));
  }

  /** The beat that is heard now. */
  position() {
    if (!this.playing || !this.marks.length) return this.restPosition;
    const heard = this.audio.currentTime - (this.audio.outputLatency || 0);
    while (this.marks.length > 1 && this.marks[1].time <= heard) this.marks.shift();
    const mark = this.marks[0];
    return Math.min(this.beatAt(mark, Math.max(heard, mark.time)), this.idea.beats, this.known());
  }

  /** The beat up to which the notes of an idea are known: it may still grow. */
  known() {
    return this.idea.known ?? Infinity;
  }

  /** Where it ends, or begins again in a loop: at the end of the region, if it is not beyond that. */
  end() {
    return this.loop && this.region && this.until <= this.region[1] ? this.region[1] : this.idea.beats;
  }

  timeOf(beat) {
    const mark = this.marks[this.marks.length - 1];
    return mark.time + this.between(mark.beat, beat) / mark.speed;
  }

  /** The beat at a time on the audio clock, as the song runs since `mark`. */
  beatAt(mark, time) {
    const line = this.idea.time;
    return line.beat(line.seconds(mark.beat) + (time - mark.time) * mark.speed);
  }

  /** Seconds from one beat to another, as the song runs by itself. */
  between(from, to) {
    return this.idea.time.seconds(to) - this.idea.time.seconds(from);
  }

  // ---------------------------------------------------------- commands

  select(idea, beat = 0) {
    if (idea === this.idea) return;
    const wasPlaying = this.playing;
    this.halt();
    this.idea = idea;
    this.region = null;
    this.restPosition = beat;
    if (wasPlaying) this.play();
    this.onChange();
  }

  /** Wake the audio up while somebody clicks: browsers allow it only then, and a note may come later. */
  warm() {
    this.audio ??= new AudioContext({ latencyHint: "playback" });
    this.audio.resume();
  }

  async play() {
    const idea = this.idea;
    this.audio ??= new AudioContext({ latencyHint: "playback" });
    this.playing = true;
    this.marks = [];
    this.onChange();
    const waiting = setTimeout(() => this.onSilence(), PATIENCE);
    await this.resume();
    clearTimeout(waiting);
    this.renewed = false;
    if (!this.playing || this.idea !== idea || this.marks.length) return; // stopped while the device woke up
    this.begin(this.restPosition < idea.beats ? this.restPosition : 0);
  }

  /** Wait for the audio clock. A context that was interrupted may never wake up: then a new one takes its place. */
  async resume() {
    const isOld = this.audio.currentTime > 0;
    const woken = this.audio.resume();
    if (!isOld) return woken;
    const late = new Promise((resolve) => setTimeout(resolve, STANDSTILL));
    await Promise.race([woken.catch(() => {}), late]);
    if (this.audio.state === "running") return undefined;
    this.renew();
    return this.audio.resume();
  }

  /** A new context in place of one whose clock stands still, as Safari's may after a switch of tabs. */
  renew() {
    this.release();
    this.audio.close().catch(() => {}); // it may be closed already
    this.lead = Infinity;
    this.audio = new AudioContext({ latencyHint: "playback" });
  }

  /** Whether the clock of the audio stands still though it should run. */
  standsStill() {
    const at = performance.now();
    const time = this.audio.currentTime;
    if (time !== this.ticked.time || document.hidden) this.ticked = { time, at };
    return at - this.ticked.at > STANDSTILL;
  }

  /** Go on in a new context; if that stands still as well, say so. */
  async revive() {
    if (this.renewed) {
      this.pause();
      this.onSilence();
      return;
    }
    const beat = this.position();
    const idea = this.idea;
    clearInterval(this.timer);
    this.renew();
    this.renewed = true;
    await this.audio.resume();
    if (this.playing && this.idea === idea) this.begin(beat);
  }

  stop() {
    this.halt();
    this.restPosition = 0;
    this.onChange();
  }

  /** Stop, but stay where it is. */
  pause() {
    this.halt();
    this.onChange();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  seek(beat) {
    const wasPlaying = this.playing;
    this.halt();
    this.restPosition = Math.min(Math.max(beat, 0), this.idea.beats);
    if (wasPlaying) this.play();
    this.onChange();
  }

  /** Takes effect after the notes that are handed over already, a quarter of a second later. */
  setTempo(tempo) {
    this.tempos.set(this.idea, tempo);
    if (this.playing && this.marks.length) this.marks.push({ time: this.timeOf(this.until), beat: this.until, speed: this.speed() });
    this.onChange();
  }

  setVolume(volume) {
    this.volume = volume;
    this.desk?.main.gain.setTargetAtTime(volume, this.audio.currentTime, 0.01);
  }

  /** Loop these beats; null for the whole idea. */
  setRegion(region) {
    this.region = region;
    this.onChange();
  }

  setLoop(loop) {
    this.loop = loop;
    this.onChange();
  }

  /** Mute or unmute a part; with `set` = `soloed`, the same for its solo. */
  togglePart(p, set = this.muted) {
    if (!set.delete(p)) set.add(p);
    this.setFaders();
  }

  /** Set the volume of a part, from 0 to 1. */
  setLevel(p, level) {
    this.levels[p] = level;
    this.setFaders();
  }

  setFaders() {
    this.gains().forEach((gain, i) => this.desk?.faders[i].gain.setTargetAtTime(gain, this.audio.currentTime, 0.01));
    this.port?.mute(this.gains());
    this.onChange();
  }

  /** Play into a MIDI port; null: by the page's own instruments. */
  setPort(port) {
    const wasPlaying = this.playing;
    this.halt();
    this.port = port;
    if (wasPlaying) this.play();
    this.onChange();
  }

  // ---------------------------------------------------------- the clock

  begin(beat) {
    this.release(); // of a song whose last notes ring on
    this.desk = mixingDesk(this.audio, this.gains(), this.volume);
    this.port?.begin(this.idea.lanes);
    this.compareClocks();
    this.scheduled = [];
    this.ticked = { time: this.audio.currentTime, at: performance.now() };
    this.marks = [{ time: this.audio.currentTime + START_DELAY, beat, speed: this.speed() }];
    this.until = beat;
    for (const note of this.idea.notes) { // chords that would sound here
      if (!note.drum && note.onset < beat && note.fade > beat + 0.1) this.hand(note, this.marks[0].time, beat);
    }
    this.wake();
    this.timer = setInterval(() => this.wake(), WAKE);
  }

  /** Let go of everything, also of notes handed over for later. */
  halt() {
    this.restPosition = this.position();
    this.playing = false;
    this.marks = [];
    clearInterval(this.timer);
    this.release();
  }

  release() {
    if (!this.desk) return;
    this.port?.silence();
    const { main } = this.desk;
    main.gain.setTargetAtTime(0, this.audio.currentTime, 0.01); // cutting the sound off would click
    setTimeout(() => main.disconnect(), 100);
    this.desk = null;
    this.voices = [];
  }

  /** Hand over the notes up to the horizon, over the end of the song and on from its start in a loop. */
  wake() {
    if (this.standsStill()) {
      this.revive();
      return;
    }
    this.compareClocks();
    const now = this.audio.currentTime;
    const horizon = now + (document.hidden ? AHEAD_HIDDEN : AHEAD);
    const last = this.end();
    const ended = this.until >= last && !this.loop;
    if (ended && now >= this.timeOf(last)) {
      this.finish();
      return;
    }
    if (!ended && this.timeOf(this.until) < now) { // the computer slept, or the idea grows slowly: go on from here
      this.marks.push({ time: now + START_DELAY, beat: this.until, speed: this.speed() });
    }
    while (this.until < last || this.loop) {
      if (this.until >= last) {
        const first = this.region && this.region[1] === last ? this.region[0] : 0;
        this.marks.push({ time: this.timeOf(last), beat: first, speed: this.speed() });
        this.until = first;
      }
      const mark = this.marks[this.marks.length - 1];
      const end = Math.min(this.beatAt(mark, horizon), last, this.known());
      if (end <= this.until) break;
      for (const note of this.idea.notes) {
        if (note.onset >= this.until && note.onset < end) this.hand(note, this.timeOf(note.onset));
      }
      this.until = end;
      if (end < last) break;
    }
    this.port?.finish(this.onPage(horizon));
  }

  /** Let a note sound at `time`, from `beat` on if that is not its beginning. */
  hand(note, time, beat = note.onset) {
    const seconds = this.between(beat, note.fade) / this.speed();
    if (this.port) this.port.play(note, this.onPage(time), seconds, this.gains()[note.part] * this.volume / FULL_VOLUME);
    else note.instrument(this.desk, this.voice(note, time, seconds), time, note.pitch, seconds);
    this.scheduled.push({ part: note.part, pitch: note.pitch, onset: note.onset, time, seconds });
    if (this.scheduled.length > REMEMBERED) this.scheduled.shift();
  }

  /** A time on the audio clock as one on the page's, in milliseconds. */
  onPage(time) {
    return 1000 * time + this.lead;
  }

  /** How far the page's clock is ahead of the audio's. That one moves in steps, and is never early: the least is true. */
  compareClocks() {
    const lead = performance.now() - 1000 * this.audio.currentTime;
    this.lead = Math.min(this.lead + CLOCK_DRIFT, lead);
  }

  /** A gain for a note. Beyond MOST_VOICES the oldest note makes room. */
  voice(note, time, seconds) {
    const gain = this.audio.createGain();
    gain.connect(touch(this.desk, note.part, note.velocity));
    this.voices = this.voices.filter((voice) => voice.end > time);
    if (this.voices.length >= MOST_VOICES) {
      const oldest = this.voices.shift().gain;
      oldest.gain.setTargetAtTime(0, time, 0.005); // cutting the sound off would click
      setTimeout(() => oldest.disconnect(), 1000 * (time - this.audio.currentTime) + 50); // costs nothing from then on
    }
    this.voices.push({ gain, end: time + seconds });
    return gain;
  }

  /** The end, where last notes may ring on. */
  finish() {
    this.port?.finish(Infinity);
    clearInterval(this.timer);
    this.playing = false;
    this.marks = [];
    this.restPosition = 0;
    this.onChange();
  }
}

/** The first `seconds` of an idea as samples, through the same instruments and faders. */
async function render(player, idea, seconds) {
  const audio = new OfflineAudioContext(1, Math.ceil(seconds * 22050), 22050);
  const desk = mixingDesk(audio, player.gains(), player.volume);
  const timeOf = (beat) => idea.time.seconds(beat) / player.speed(idea);
  for (const { instrument, part, velocity, pitch, onset, fade } of idea.notes) {
    const time = timeOf(onset);
    if (time < seconds) instrument(desk, touch(desk, part, velocity), time, pitch, timeOf(fade) - time);
  }
  return (await audio.startRendering()).getChannelData(0);
}
