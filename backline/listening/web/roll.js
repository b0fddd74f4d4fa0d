"use strict";
// The piano roll of an idea: a canvas with a lane for each part, and over it the cursor, which moves without redrawing.

const RULER = 22; // heights and widths in CSS pixels
const CHORD_ROW = 18; // between the ruler and the lanes, where chords are known
const LANE_GAP = 10;
const DRUM_ROW = 12; // high enough for its name
const STROKE = [2, 5]; // least and most of a drum: how long it rings says nothing
const MELODIC_LANE = [60, 128]; // least and most
const OTHER_LANE = 34; // least of a track that plays no part; its most is a part's least
const SEMITONE = 5;
const MIN_BAR = 40; // narrower, and the roll scrolls
const MIN_LABELED = 34; // between the numbers of bars
const COLORS = 8; // that the style sheet has

class Roll {
  /** `onSeek(beat)` is called on a click. The canvas is drawn when it comes into sight. */
  constructor(idea, beatsPerBar, onSeek) {
    this.idea = idea;
    this.beatsPerBar = beatsPerBar;
    this.layLanes();
    this.canvas = element("canvas");
    this.cursor = element("div", { class: "cursor" });
    this.sheet = element("div", { class: "sheet", style: `height: ${this.height}px`, tabindex: 0, role: "slider",
      "aria-label": `Position in ${idea.title}`,
      "aria-valuemin": 0, "aria-valuemax": idea.beats, "aria-valuenow": 0 }, this.canvas, this.cursor);
    this.readout = element("div", { class: "readout", "aria-hidden": "true" });
    this.sheet.append(this.readout);
    this.sheet.addEventListener("pointermove", (event) => this.read(event));
    this.sheet.addEventListener("pointerleave", () => { this.readout.textContent = ""; });
    this.scroller = element("div", { class: "scroller" }, this.sheet);
    this.root = element("div", { class: "roll" }, this.gutter(), this.scroller);
    this.sheet.addEventListener("click", (event) => {
      onSeek((event.clientX - this.sheet.getBoundingClientRect().left) / this.beatWidth);
    });
    this.visible = false;
    this.muted = new Set();
  }

  layLanes() {
    this.top = RULER + (this.idea.chords.length ? CHORD_ROW : 0);
    this.lanes = layOut(this.idea, this.top);
    const last = this.lanes[this.lanes.length - 1];
    this.height = last ? last.top + last.height + LANE_GAP / 2 : this.top;
  }

  /** Show notes that came to the idea. */
  refresh() {
    const shown = JSON.stringify(this.lanes.map(({ top, height, name }) => [top, height, name]));
    this.layLanes();
    if (shown !== JSON.stringify(this.lanes.map(({ top, height, name }) => [top, height, name]))) {
      this.sheet.style.height = `${this.height}px`;
      this.root.replaceChild(this.gutter(), this.root.firstChild);
    }
    if (this.visible) this.draw();
  }

  get beatWidth() {
    return this.sheet.clientWidth / this.idea.beats;
  }

  /** The names of lanes, and of rows in them. */
  gutter() {
    const labels = this.lanes.flatMap((lane) => [
      element("div", { class: lane.other ? "lane-label other" : "lane-label", title: lane.name,
        style: `top: ${lane.top}px; height: ${lane.height}px; --color: var(${colorOf(lane)})` }, lane.name),
      ...namedRows(lane).map(([row, name]) => element("div", { class: "row-label", title: name,
        style: `top: ${rowTop(lane, row) + lane.rowHeight / 2}px` }, name))]);
    return element("div", { class: "gutter", "aria-hidden": "true" }, ...labels);
  }

  /** Mark a stretch, [from, to] in beats, in lanes of `parts` or in all; null: mark nothing. */
  mark(region, parts = null) {
    this.marks ??= element("div", { class: "selection", "aria-hidden": "true" });
    if (!this.marks.isConnected) this.sheet.append(this.marks);
    const marked = region ? this.lanes.filter((lane) => parts?.includes(lane.name) ?? true) : [];
    const [from, to] = region ?? [];
    const share = (beats) => `${100 * beats / this.idea.beats}%`;
    this.marks.replaceChildren(...marked.map((lane) => element("div", {
      style: `left: ${share(from)}; width: ${share(to - from)}; top: ${lane.top}px; height: ${lane.height}px` })));
  }

  /** Wide enough to be read; call when the page's width has changed. */
  resize() {
    this.sheet.style.width = `max(100%, ${this.idea.beats / this.beatsPerBar * MIN_BAR}px)`;
    if (this.visible) this.draw();
  }

  show(visible) {
    if (visible && !this.visible) this.draw();
    this.visible = visible;
  }

  setAudible(gains) {
    this.muted = new Set(gains.flatMap((gain, p) => (gain ? [] : [p])));
    if (this.visible) this.draw();
  }

  moveCursor(beat, follow) {
    const x = beat * this.beatWidth;
    this.cursor.style.transform = `translateX(${x}px)`;
    const bar = Math.floor(beat / this.beatsPerBar);
    this.sheet.setAttribute("aria-valuenow", Math.round(beat * 4) / 4);
    this.sheet.setAttribute("aria-valuetext", `bar ${bar + 1}, beat ${Math.floor(beat - bar * this.beatsPerBar) + 1}`);
    const { scrollLeft, clientWidth } = this.scroller;
    if (follow && (x < scrollLeft || x > scrollLeft + 0.9 * clientWidth)) this.scroller.scrollLeft = x - 0.1 * clientWidth;
  }

  /** Say which note the mouse is at. */
  read(event) {
    const box = this.sheet.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const note = this.noteAt(x / this.beatWidth, y);
    this.readout.textContent = note ? `${pitchName(note)} · velocity ${note.velocity}` : "";
    this.readout.style.transform = note ? `translate(${Math.min(x + 12, box.width - 130)}px, ${Math.max(y - 30, 0)}px)` : "";
  }

  noteAt(beat, y) {
    const lane = this.lanes.find(({ top, height }) => y >= top && y < top + height);
    if (!lane) return undefined;
    const row = Math.floor((rowTop(lane, -1) - y) / lane.rowHeight);
    const stroke = between(this.beatWidth / 5, STROKE) / this.beatWidth;
    return this.idea.notes.find((note) => note.lane === lane.index && lane.rows.get(note.pitch) === row
      && note.onset <= beat && beat < (lane.drum ? note.onset + stroke : note.end));
  }

  draw() {
    const width = this.sheet.clientWidth;
    const ratio = Math.min(window.devicePixelRatio || 1, 32000 / width); // browsers refuse wider canvases
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    this.drawGround(pen, width, color);
    this.drawGrid(pen, width, color);
    this.drawChords(pen, width, color);
    for (const lane of this.lanes) this.drawLane(pen, lane, color);
    this.drawNew(pen, color);
  }

  /** Lanes, and darker what was there before the new music. */
  drawGround(pen, width, color) {
    for (const { top, height } of this.lanes) {
      pen.fillStyle = color("--lane");
      pen.fillRect(0, top, width, height);
      if (!this.idea.fresh.length) continue;
      pen.fillStyle = color("--lane-old");
      pen.fillRect(0, top, width, height);
      pen.fillStyle = color("--lane");
      for (const [from, to] of this.idea.fresh) pen.fillRect(from * this.beatWidth, top, (to - from) * this.beatWidth, height);
    }
  }

  /** The name of each chord where it begins: where there is little room, without its bass, or its root alone. */
  drawChords(pen, width, color) {
    const { chords } = this.idea;
    pen.font = `500 11px ${color("--font")}`;
    pen.fillStyle = color("--soft");
    let before = "";
    chords.forEach(([beat, name], i) => {
      const x = beat * this.beatWidth;
      const next = i + 1 < chords.length ? chords[i + 1][0] * this.beatWidth : width;
      const fits = (text) => pen.measureText(text).width <= next - x - 3;
      const text = shorterNames(name).find(fits) ?? "";
      if (text !== before) pen.fillText(text, x + 3, RULER + CHORD_ROW / 2);
      before = text;
    });
  }

  drawGrid(pen, width, color) {
    const bar = this.beatWidth * this.beatsPerBar;
    const every = 2 ** Math.max(0, Math.ceil(Math.log2(MIN_LABELED / bar))); // bars between numbers
    pen.font = `500 11px ${color("--font")}`;
    pen.textBaseline = "middle";
    for (let beat = 0; beat <= this.idea.beats; beat++) {
      const isBar = beat % this.beatsPerBar === 0;
      if (!isBar && this.beatWidth < 7) continue;
      const x = Math.min(Math.round(beat * this.beatWidth), width - 1);
      pen.fillStyle = color(isBar ? "--bar-line" : "--beat-line");
      for (const { top, height } of this.lanes) pen.fillRect(x, top, 1, height);
      const number = beat / this.beatsPerBar;
      if (!isBar || number % every || beat === this.idea.beats) continue;
      pen.fillStyle = color("--faint");
      pen.fillText(String(number + 1), x + 3, RULER / 2);
    }
  }

  drawLane(pen, lane, color) {
    const { part, index, drum, rows, rowHeight } = lane;
    const silent = this.muted.has(part);
    const size = Math.max(rowHeight - 1, 2);
    const stroke = between(this.beatWidth / 5, STROKE);
    pen.fillStyle = silent ? color("--faint") : color(colorOf(lane));
    for (const note of this.idea.notes) {
      if (note.lane !== index) continue;
      const soft = 0.5 + 0.5 * Math.min(note.velocity / 100, 1); // how opaque, by how loud
      pen.globalAlpha = soft * (note.old ? 0.4 : 1) * (silent ? 0.45 : 1);
      const x = note.onset * this.beatWidth;
      const y = rowTop(lane, rows.get(note.pitch));
      const long = drum ? stroke : Math.max((note.end - note.onset) * this.beatWidth - 1, 2);
      pen.beginPath();
      pen.roundRect(x, y + (rowHeight - size) / 2, long, size, Math.min(2, size / 2));
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  /** Where new music begins, and where it ends if something follows. */
  drawNew(pen, color) {
    for (const [from, to] of this.idea.fresh) {
      pen.fillStyle = color("--accent");
      pen.font = `600 11px ${color("--font")}`;
      for (const beat of to < this.idea.beats ? [from, to] : [from]) pen.fillRect(beat * this.beatWidth - 1, 4, 2, this.height - 4);
      const x = from * this.beatWidth;
      const width = pen.measureText("new").width + 10;
      pen.beginPath();
      pen.roundRect(x - 1, 3, width, 16, [0, 4, 4, 0]);
      pen.fill();
      pen.fillStyle = color("--on-accent");
      pen.fillText("new", x + 4, RULER / 2 + 0.5);
    }
  }
}

const TONES = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"];
const PIECES = { // of General MIDI's drum kit
  35: "kick", 36: "kick", 37: "side stick", 38: "snare", 39: "clap", 40: "snare", 41: "low floor tom", 42: "closed hat", 43: "floor tom",
  44: "pedal hat", 45: "low tom", 46: "open hat", 47: "low mid tom", 48: "high mid tom", 49: "crash", 50: "high tom", 51: "ride", 52: "china",
  53: "ride bell", 54: "tambourine", 55: "splash", 56: "cowbell", 57: "crash 2", 58: "vibraslap", 59: "ride 2", 60: "high bongo",
  61: "low bongo", 62: "muted conga", 63: "high conga", 64: "low conga", 65: "high timbale", 66: "low timbale", 67: "high agogo",
  68: "low agogo", 69: "cabasa", 70: "maracas", 71: "whistle", 72: "long whistle", 73: "guiro", 74: "long guiro", 75: "claves",
  76: "high block", 77: "low block", 78: "cuica", 79: "open cuica", 80: "triangle", 81: "open triangle", 82: "shaker",
};

/** A note's pitch as musicians say it: C4 is 60; of drums the piece. */
function pitchName({ pitch, drum }) {
  const tone = `${TONES[pitch % 12]}${Math.floor(pitch / 12) - 1}`;
  return drum ? PIECES[pitch] ?? `drum ${pitch}` : tone;
}

function between(value, [least, most]) {
  return Math.min(Math.max(value, least), most);
}

function colorOf({ part, other }) {
  return other ? "--faint" : `--part-${part % COLORS}`;
}

/** A chord's name, and what may stand for it: "Am7/C" is at least an "Am". */
function shorterNames(name) {
  return [name, name.split("/")[0], name.match(/^[A-G][b#]?(m(?!aj))?/)?.[0] ?? ""];
}

/** The top of a row of a lane; rows count from the bottom. */
function rowTop({ top, height, rows, rowHeight }, row) {
  return top + height - (height - rows.size * rowHeight) / 2 - (row + 1) * rowHeight;
}

/** [row, name] of the rows that are named: of drums each, of others every C, or the lowest pitch if there is none. */
function namedRows(lane) {
  if (lane.other) return [];
  const pitches = [...lane.rows.keys()];
  const named = lane.drum ? pitches : pitches.filter((pitch) => pitch % 12 === 0);
  return (named.length ? named : pitches.slice(0, 1)).map((pitch) => [lane.rows.get(pitch), pitchName({ pitch, drum: lane.drum })]);
}

/** A lane for each part and each other track that has notes: where it is, and the row of each pitch, from the bottom. */
function layOut(idea, begin) {
  const lanes = [];
  let top = begin;
  idea.lanes.forEach((lane, index) => {
    const pitches = [...new Set(idea.notes.filter((note) => note.lane === index).map((note) => note.pitch))].sort((a, b) => a - b);
    if (!pitches.length) return;
    const low = pitches[0];
    const rows = new Map();
    if (lane.drum) pitches.forEach((pitch, row) => rows.set(pitch, row)); // a row for each piece in use
    else for (let pitch = low; pitch <= pitches[pitches.length - 1]; pitch++) rows.set(pitch, pitch - low);
    const most = lane.other ? MELODIC_LANE[0] : MELODIC_LANE[1];
    const height = lane.drum ? Math.max(rows.size * DRUM_ROW, 3 * DRUM_ROW) + 8
      : between(rows.size * SEMITONE, [lane.other ? OTHER_LANE : MELODIC_LANE[0], most]);
    const rowHeight = lane.drum ? DRUM_ROW : Math.min((height - 6) / rows.size, 1.6 * SEMITONE);
    lanes.push({ ...lane, index, top, height, rows, rowHeight });
    top += height + LANE_GAP;
  });
  return lanes;
}
