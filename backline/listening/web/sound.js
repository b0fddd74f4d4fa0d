"use strict";
// Instruments made of oscillators and noise: nothing to download, and the page stays small.
//
// Every instrument plays one note: (desk, out, time, pitch, seconds). `desk` is what `mixingDesk` returns, `out` the
// node to play into, `time` the start on the audio clock. Levels are chosen by ear, so that the parts balance.

const QUIET = 0.0001; // exponential ramps cannot reach 0
const HEADROOM = 0.4;
const PERCUSSION = percussionMap();

// ------------------------------------------------------------ signal path

/**
 * Parts into a fader each, these into the volume, that into a limiter. `gains`: of the parts, 0 where muted.
 * The limiter makes all louder by itself, which the last gain takes back.
 */
function mixingDesk(audio, gains, volume) {
  const limiter = audio.createDynamicsCompressor();
  limiter.threshold.value = -12;
  limiter.ratio.value = 6;
  const headroom = audio.createGain();
  headroom.gain.value = HEADROOM;
  limiter.connect(headroom);
  headroom.connect(audio.destination);
  const main = audio.createGain();
  main.gain.value = volume;
  main.connect(limiter);
  const faders = gains.map((gain) => {
    const fader = audio.createGain();
    fader.gain.value = gain;
    fader.connect(main);
    return fader;
  });
  return { audio, main, faders, touches: new Map(), noise: noiseBuffer(audio) };
}

/** Where to play a note of a part into, so that it is as loud as its velocity: 100 is full, and half of it 12 dB less. */
function touch(desk, part, velocity) {
  if (velocity === 100) return desk.faders[part];
  const key = 128 * part + velocity;
  if (!desk.touches.has(key)) {
    const gain = desk.audio.createGain();
    gain.gain.value = (velocity / 100) ** 2;
    gain.connect(desk.faders[part]);
    desk.touches.set(key, gain);
  }
  return desk.touches.get(key);
}

/** A second of white noise. From a generator of its own, so that the same page sounds the same each time. */
function noiseBuffer(audio) {
  const buffer = audio.createBuffer(1, audio.sampleRate, audio.sampleRate);
  const samples = buffer.getChannelData(0);
  let state = 1;
  for (let i = 0; i < samples.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    samples[i] = state / 2 ** 31 - 1;
  }
  return buffer;
}

function hertz(pitch) {
  return 440 * 2 ** ((pitch - 69) / 12);
}

// ------------------------------------------------------------ building blocks

/** A gain that jumps to `level` at `time` and has died away after `seconds`. */
function decaying(desk, out, time, level, seconds) {
  const gain = desk.audio.createGain();
  gain.gain.setValueAtTime(level, time);
  gain.gain.exponentialRampToValueAtTime(QUIET, time + seconds);
  gain.connect(out);
  return gain;
}

function filter(desk, out, type, frequency, q = 0.7) {
  const node = desk.audio.createBiquadFilter();
  node.type = type;
  node.frequency.value = frequency;
  node.Q.value = q;
  node.connect(out);
  return node;
}

function tone(desk, out, type, frequency, time, seconds) {
  const source = desk.audio.createOscillator();
  source.type = type;
  source.frequency.setValueAtTime(frequency, time);
  source.connect(out);
  source.start(time);
  source.stop(time + seconds);
  return source;
}

function noise(desk, out, time, seconds) {
  const source = desk.audio.createBufferSource();
  source.buffer = desk.noise;
  source.loop = true;
  source.connect(out);
  source.start(time, (time * 7.3) % 1); // from another place each time: two equal hits in a row sound like a machine
  source.stop(time + seconds);
}

// ------------------------------------------------------------ drums

/** A membrane: its pitch falls from `from` to `to` hertz. */
function membrane(from, to, seconds, level) {
  return (desk, out, time) => {
    const source = tone(desk, decaying(desk, out, time, level, seconds), "sine", from, time, seconds);
    source.frequency.exponentialRampToValueAtTime(to, time + 0.4 * seconds);
  };
}

/** Metal or a shaker: noise above `frequency`. */
function metal(frequency, seconds, level) {
  return (desk, out, time) => {
    noise(desk, filter(desk, decaying(desk, out, time, level, seconds), "highpass", frequency), time, seconds);
  };
}

/** Wood or a bell: a short pitched click. */
function click(frequency, seconds, level) {
  return (desk, out, time) => {
    tone(desk, decaying(desk, out, time, level, seconds), "triangle", frequency, time, seconds);
  };
}

function kick(desk, out, time) {
  membrane(160, 46, 0.32, 1.0)(desk, out, time);
  click(1100, 0.015, 0.25)(desk, out, time); // the beater, which small speakers can play
}

function snare(desk, out, time) {
  membrane(240, 170, 0.13, 0.45)(desk, out, time);
  metal(1600, 0.2, 0.4)(desk, out, time);
}

function clap(desk, out, time) {
  for (const late of [0, 0.011, 0.023]) {
    const gain = decaying(desk, out, time + late, 0.4, late ? 0.15 : 0.02);
    noise(desk, filter(desk, gain, "bandpass", 1300, 1.2), time + late, 0.16);
  }
}

/** General MIDI's percussion: pitch → how it sounds. What is not named here is a click at its pitch. */
function percussionMap() {
  const map = { 35: kick, 36: kick, 38: snare, 40: snare, 39: clap, 37: click(820, 0.05, 0.4) };
  for (const pitch of [42, 44]) map[pitch] = metal(7500, 0.055, 0.28);
  map[46] = metal(6800, 0.32, 0.26);
  for (const pitch of [49, 52, 55, 57]) map[pitch] = metal(4200, 1.1, 0.26);
  for (const pitch of [51, 53, 59]) map[pitch] = metal(8200, 0.4, 0.17);
  for (const pitch of [54, 69, 70, 82]) map[pitch] = metal(6000, 0.07, 0.2);
  [41, 43, 45, 47, 48, 50].forEach((pitch, i) => { map[pitch] = membrane(120 + 24 * i, 74 + 17 * i, 0.3, 0.6); });
  for (let pitch = 60; pitch <= 66; pitch++) map[pitch] = membrane(430 - 32 * (pitch - 60), 300 - 24 * (pitch - 60), 0.16, 0.4);
  return map;
}

function drums(desk, out, time, pitch) {
  (PERCUSSION[pitch] || click(hertz(pitch + 12), 0.07, 0.2))(desk, out, time);
}

// ------------------------------------------------------------ pitched instruments

/** A gain for a note that is held for `seconds` and then let go. Returns it, and when the note has died away. */
function held(desk, out, time, level, sustain, halfLife, seconds, release) {
  const gain = desk.audio.createGain();
  const off = time + Math.max(seconds, 0.04);
  gain.gain.setValueAtTime(0, time);
  gain.gain.linearRampToValueAtTime(level, time + 0.006); // a jump would click
  gain.gain.setTargetAtTime(level * sustain, time + 0.006, halfLife);
  gain.gain.setTargetAtTime(0, off, release / 4);
  gain.connect(out);
  return [gain, off + release];
}

function bass(desk, out, time, pitch, seconds) {
  const [gain, end] = held(desk, out, time, 0.3, 0.55, 0.25, seconds, 0.12);
  const lowpass = filter(desk, gain, "lowpass", 260, 2);
  lowpass.frequency.setValueAtTime(1500, time);
  lowpass.frequency.setTargetAtTime(320, time, 0.09); // the pluck
  tone(desk, lowpass, "sawtooth", hertz(pitch), time, end - time);
  tone(desk, gain, "sine", hertz(pitch), time, end - time);
}

/** A soft electric piano: a sine, and a bell above it that dies first. Low strings ring longer than high ones. */
function keys(desk, out, time, pitch, seconds) {
  const [gain, end] = held(desk, out, time, 0.24, 0.05, 1.1 * 2 ** ((60 - pitch) / 24), seconds, 0.25);
  tone(desk, gain, "triangle", hertz(pitch), time, end - time);
  const bell = decaying(desk, gain, time, 0.35, 0.5);
  tone(desk, bell, "sine", 4 * hertz(pitch), time, 0.5);
}

/** Organs, strings, pads: what does not die away while it is held. */
function sustained(desk, out, time, pitch, seconds) {
  const [gain, end] = held(desk, out, time, 0.13, 0.8, 0.3, seconds, 0.3);
  const lowpass = filter(desk, gain, "lowpass", 1800);
  tone(desk, lowpass, "sawtooth", hertz(pitch), time, end - time);
  tone(desk, lowpass, "sawtooth", hertz(pitch) * 1.004, time, end - time);
}

/** Who plays a part: by General MIDI's families of programs, which are eight each. */
function instrumentOf(part) {
  if (part.drum) return drums;
  const family = Math.floor(part.program / 8);
  if (family === 4) return bass;
  return [2, 5, 6, 7, 8, 9, 10, 11].includes(family) ? sustained : keys;
}
