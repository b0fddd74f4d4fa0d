"use strict";
// Playing into a MIDI port, where the browser has Web MIDI: into a synthesizer, or a DAW by a virtual cable.

const DRUM_CHANNEL = 9; // from 0
const N_CHANNELS = 16;

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
    this.sent = []; // {channel, pitch, at, end}: notes that may not have ended yet, in milliseconds on the page's clock
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

  /** A note at a time on the page's clock, in milliseconds, as loud as `gain` of its velocity. */
  play({ lane, pitch, velocity }, at, seconds, gain) {
    const loud = Math.min(Math.round(velocity * gain), 127);
    if (!loud) return;
    const note = { channel: this.channels[lane], pitch, at, end: at + 1000 * seconds };
    this.send([0x90 | note.channel, pitch, loud], at);
    this.send([0x80 | note.channel, pitch, 0], note.end);
    this.sent = this.sent.filter(({ end }) => end > performance.now());
    this.sent.push(note);
  }

  /** Let all notes go. One that was sent for later ends as soon as it begins: few browsers can take a message back. */
  silence() {
    const now = performance.now();
    for (const { channel, pitch, at, end } of this.sent) if (end > now) this.send([0x80 | channel, pitch, 0], Math.max(at + 1, now));
    this.sent = [];
  }

  send(message, at) {
    try {
      this.port.send(message, at);
    } catch {
      say("The MIDI port does not answer. Choose another one, or the page’s own sound.");
    }
  }
}
