"use strict";
// Playing into a MIDI port, where the browser has Web MIDI: into a synthesizer, or a DAW by a virtual cable.

const DRUM_CHANNEL = 9; // from 0
const N_CHANNELS = 16;
const APART = 2; // milliseconds between the end of a note and the next of its pitch

/** The ports to play into, by id; a browser asks its user first. None where it has no Web MIDI or the user says no. */
async function midiPorts() {
  try {
    const access = await navigator.requestMIDIAccess();
    return new Map([...access.outputs.values()].map((port) => [port.id, port]));
  } catch {
    return new Map();
  }
}

class MidiPort {
  constructor(port) {
    this.port = port;
    this.channels = [];
    this.sounding = []; // {channel, part, pitch, at, end}: notes whose ends are still to be sent, in milliseconds on the page's clock
  }

  /** Give each lane its channel and its instrument: drums the tenth, others one each while there are enough. */
  begin(lanes) {
    let next = 0;
    this.channels = lanes.map(({ drum }) => {
      if (drum) return DRUM_CHANNEL;
      if (next === DRUM_CHANNEL) next++;
      return Math.min(next++, N_CHANNELS - 1);
    });
    lanes.forEach(({ drum, program }, i) => { if (!drum) this.send([0xc0 | this.channels[i], program]); });
  }

  /** A note at a time on the page's clock, in milliseconds, as loud as `gain` of its velocity. It ends when `finish` is called in time. */
  play({ lane, part, pitch, velocity }, at, seconds, gain) {
    const loud = Math.min(Math.round(velocity * gain), 127);
    if (!loud) return;
    const channel = this.channels[lane];
    const isSame = (note) => note.channel === channel && note.pitch === pitch && note.end > at - APART;
    for (const note of this.sounding.filter(isSame)) this.end(note, Math.max(at - APART, note.at + 1)); // before it is struck again
    this.sounding = this.sounding.filter((note) => !isSame(note));
    this.send([0x90 | channel, pitch, loud], at);
    this.sounding.push({ channel, part, pitch, at, end: at + 1000 * seconds });
  }

  /** Send the ends of notes up to a time. They come late, since a message cannot be taken back. */
  finish(until) {
    for (const note of this.sounding) if (note.end <= until) this.end(note, note.end);
    this.sounding = this.sounding.filter((note) => note.end > until);
  }

  /** Let go of notes of parts that are muted. */
  mute(gains) {
    const now = performance.now();
    for (const note of this.sounding) if (!gains[note.part]) this.end(note, Math.max(note.at + 1, now));
    this.sounding = this.sounding.filter((note) => gains[note.part]);
  }

  /** Let all notes go. One that was sent for later ends as soon as it begins. */
  silence() {
    this.mute([]);
  }

  end({ channel, pitch }, at) {
    this.send([0x80 | channel, pitch, 0], at);
  }

  send(message, at) {
    try {
      this.port.send(message, at);
    } catch {
      say("The MIDI port does not answer. Choose another one, or the page’s own sound.");
    }
  }
}
