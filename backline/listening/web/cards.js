"use strict";
// An idea's card: title, roll, files, recipe, star and note.

const DRAG = 6; // pixels from which a press on the roll chooses bars

/**
 * The page's data as the player and the rolls want them: times in beats, all notes in one list by onset. Tracks that
 * play no part have lanes behind those of the parts, and one fader for all of them.
 */
function readIdea(raw, parts, beatsPerBar) {
  const beats = (ticks) => ticks / raw.ticks_per_quarter;
  const nParts = raw.notes.length - raw.others.length;
  const lanes = raw.notes.map((_, i) => (i < nParts ? { ...parts[i], part: i } : { ...raw.others[i - nParts], part: nParts, other: true }));
  const instruments = lanes.map(instrumentOf);
  const notes = raw.notes.flatMap((rows, i) => rows.map(([onset, end, pitch, old, velocity = 100, fade = end]) => (
    { lane: i, part: lanes[i].part, instrument: instruments[i], drum: lanes[i].drum, onset: beats(onset), end: beats(end),
      fade: beats(fade), pitch, velocity, old: Boolean(old) })));
  notes.sort((a, b) => a.onset - b.onset || a.lane - b.lane || a.pitch - b.pitch);
  const tempos = raw.tempos.length ? raw.tempos.map(([tick, tempo]) => [beats(tick), tempo]) : [[0, raw.tempo]];
  return { ...raw, lanes, notes, time: new TimeLine(tempos), beats: raw.bars * beatsPerBar,
    fresh: raw.fresh.map((stretch) => stretch.map(beats)), chords: (raw.chords ?? []).map(([tick, name]) => [beats(tick), name]) };
}

class Card {
  constructor(idea, data, player) {
    this.idea = idea;
    this.data = data;
    this.player = player;
    this.kept = this.read();
    this.roll = new Roll(idea, data.beats_per_bar, (beat) => this.seek(beat));
    this.playButton = iconButton("play", `Play ${idea.title}`, () => this.toggle(), { class: "icon play" });
    this.root = element("article", { class: "card", "aria-label": idea.title },
      element("div", { class: "card-head" }, this.playButton,
        element("div", { class: "names" }, this.heading(), element("p", {}, this.facts())),
        ...this.headExtras()),
      this.roll.root, ...this.extras());
    this.listen();
  }

  heading() {
    return element("h2", {}, this.idea.title);
  }

  facts() {
    const { bars, beats, time, notes, asked, key } = this.idea;
    const numbers = [key, count(bars, "bar"), `${time.range()} BPM`, clock(time.seconds(beats)), count(notes.length, "note")];
    return [asked, ...numbers.map((text) => text.replace(" ", "\u00a0"))].filter(Boolean).join(" · ");
  }

  /** What somebody wrote on the idea. */
  read() {
    return { star: false, note: "", ...memory.get(this.key) };
  }

  /** Stars belong to the music, not to its number, which --force gives to another song. */
  get key() {
    return `idea:${this.idea.hash}`;
  }

  headExtras() {
    this.star = iconButton("star", `Star ${this.idea.title}`, () => this.keep({ star: !this.kept.star }),
      { class: "icon star", "aria-pressed": this.kept.star });
    return [this.star];
  }

  extras() {
    const note = element("input", { type: "text", class: "note", maxlength: 500, placeholder: "Note to yourself",
      "aria-label": `Note on ${this.idea.title}`, oninput: () => this.keep({ note: note.value }) });
    note.value = this.kept.note;
    return [element("div", { class: "card-foot" }, this.files(), note), this.said(), this.recipe()];
  }

  keep(change) {
    Object.assign(this.kept, change);
    memory.set(this.key, this.kept);
    this.star.setAttribute("aria-pressed", this.kept.star);
    this.root.dispatchEvent(new CustomEvent("kept", { bubbles: true }));
  }

  files() {
    const links = this.idea.files.map(({ label, file, part }) => {
      const link = element("a", { class: "file", href: encodeURIComponent(file), download: file, draggable: "true",
        title: `${file}: save it, or drag it into a DAW`,
        style: part === null ? null : `--color: var(--part-${part % COLORS})` },
      part === null ? icon("file") : element("span", { class: "dot", "aria-hidden": "true" }), label);
      link.addEventListener("dragstart", (event) => { // Chromium drops a real file; others the link
        const type = file.endsWith(".wav") ? "audio/wav" : "audio/midi";
        event.dataTransfer.setData("DownloadURL", `${type}:${file}:${link.href}`);
        event.dataTransfer.setData("text/uri-list", link.href);
      });
      return link;
    });
    return element("nav", { class: "files", "aria-label": `Files of ${this.idea.title}` }, ...links);
  }

  recipe() {
    const { recipe_rows: rows, recipe_summary: summary } = this.idea;
    if (!rows.length) return element("p", { class: "recipe none" }, this.withoutRecipe);
    const again = `python generate.py --reproduce ${shellQuoted(this.path)}`;
    return element("details", { class: "recipe" }, element("summary", {}, summary),
      element("dl", {}, ...rows.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]),
        element("dt", {}, "make it again"), element("dd", {}, copyable(again))));
  }

  get withoutRecipe() {
    return "No recipe in this file.";
  }

  /** The song's path for a command: whole where the page is a file, as only its address tells where it lies. */
  get path() {
    if (location.protocol !== "file:") return this.idea.file;
    const path = decodeURIComponent(new URL(encodeURIComponent(this.idea.file), location.href).pathname);
    return path.replace(/^\/(?=[A-Za-z]:)/, ""); // of a drive
  }

  /** What the run that made it said of it: its score, what it shares with training songs. */
  said() {
    return element("div", { class: "said" }, ...(this.idea.said ?? []).map((line) => element("p", {}, line)));
  }

  get isCurrent() {
    return this.player.idea === this.idea;
  }

  toggle() {
    if (this.isCurrent) {
      this.player.toggle();
      return;
    }
    this.choose(this.start);
    if (!this.player.playing) this.player.play();
  }

  /** Let the player have this idea, from a beat on, with the bars that are chosen in it. */
  choose(beat) {
    this.player.select(this.idea, beat);
    this.player.setRegion(this.region);
  }

  /** The beat from which it is first heard: a bar before what is new. */
  get start() {
    const { fresh } = this.idea;
    return fresh.length ? Math.max(fresh[0][0] - this.data.beats_per_bar, 0) : 0;
  }

  // ---------------------------------------------------------- chosen bars

  /** Choose bars, {first, last}, from 1, which a loop plays again and again; null: the whole idea. */
  select(selection) {
    this.selection = selection;
    this.roll.mark(this.region, selection?.parts);
    if (this.isCurrent) this.player.setRegion(this.region);
  }

  /** The chosen bars in beats. */
  get region() {
    if (!this.selection) return null;
    const beats = this.data.beats_per_bar;
    return [(this.selection.first - 1) * beats, this.selection.last * beats];
  }

  /** Bars were chosen by dragging: hear them again and again. */
  chosen() {
    const { player, region } = this;
    if (!this.isCurrent) this.choose(region[0]);
    player.setLoop(true);
    if (player.position() < region[0] || player.position() >= region[1]) player.seek(region[0]);
  }

  /** Begin or end the chosen bars at the one that plays. */
  mark(side) {
    const bar = Math.min(Math.floor(this.player.position() / this.data.beats_per_bar) + 1, this.idea.bars);
    const { first = 1, last = this.idea.bars, ...rest } = this.selection ?? {};
    if (side === "first") this.select({ ...rest, first: bar, last: Math.max(last, bar) });
    else this.select({ ...rest, first: Math.min(first, bar), last: bar });
  }

  listen() {
    const { sheet } = this.roll;
    let begun = null;
    const place = (event) => {
      const box = sheet.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    sheet.addEventListener("pointerdown", (event) => {
      if (this.takesDrag(event)) begun = { ...place(event), dragged: false };
    });
    sheet.addEventListener("pointermove", (event) => {
      if (!begun) return;
      const now = place(event);
      if (!begun.dragged && Math.hypot(now.x - begun.x, now.y - begun.y) < DRAG) return;
      if (!begun.dragged) sheet.setPointerCapture(event.pointerId);
      begun.dragged = true;
      this.select(this.between(begun, now));
    });
    const end = () => {
      this.dragged = Boolean(begun?.dragged);
      begun = null;
      if (this.dragged) this.chosen();
    };
    sheet.addEventListener("pointerup", end);
    sheet.addEventListener("pointercancel", end);
    sheet.addEventListener("click", (event) => { // that ends a drag: it is no wish to move the cursor
      if (!this.dragged) return;
      event.stopImmediatePropagation();
      this.dragged = false;
    }, { capture: true });
    sheet.addEventListener("dblclick", () => this.select(null));
  }

  /** Whether a press on the roll may become a drag: a finger scrolls. */
  takesDrag(event) {
    return !event.button && event.pointerType !== "touch";
  }

  /** The bars between two places on the roll. */
  between(one, other) {
    const bar = ({ x }) => Math.min(Math.max(Math.floor(x / this.roll.beatWidth / this.data.beats_per_bar) + 1, 1), this.idea.bars);
    const [first, last] = [bar(one), bar(other)].sort((a, b) => a - b);
    return { first, last };
  }

  // ---------------------------------------------------------- playing

  seek(beat) {
    if (this.isCurrent) this.player.seek(beat);
    else this.choose(beat);
  }

  update() {
    const playing = this.isCurrent && this.player.playing;
    this.root.classList.toggle("current", this.isCurrent);
    this.playButton.replaceChildren(icon(playing ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", `${playing ? "Pause" : "Play"} ${this.idea.title}`);
    this.playButton.title = this.playButton.getAttribute("aria-label");
    this.tick(false);
  }

  /** Move the cursor to where the sound is. */
  tick(follow) {
    this.roll.moveCursor(this.isCurrent ? this.player.position() : 0, follow);
  }
}

/** A card of a song that is in no file: to see and hear, with nothing to save or to mark. */
class PlainCard extends Card {
  headExtras() {
    return [];
  }

  extras() {
    return [];
  }
}
