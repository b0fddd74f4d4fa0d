"use strict";
// An idea's card: title, roll, files, recipe, star and note.

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
  return { ...raw, lanes, notes, time: new TimeLine(tempos), beats: raw.bars * beatsPerBar, fresh: raw.fresh && raw.fresh.map(beats) };
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
  }

  heading() {
    return element("h2", {}, this.idea.title);
  }

  facts() {
    const { bars, time, notes, asked } = this.idea;
    const numbers = [count(bars, "bar"), `${time.range()} BPM`, count(notes.length, "note")];
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
    return [element("div", { class: "card-foot" }, this.files(), note), this.recipe()];
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
    if (!rows.length) return element("p", { class: "recipe none" }, "No recipe in this file.");
    return element("details", { class: "recipe" }, element("summary", {}, summary),
      element("dl", {}, ...rows.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)])));
  }

  get isCurrent() {
    return this.player.idea === this.idea;
  }

  toggle() {
    if (this.isCurrent) {
      this.player.toggle();
      return;
    }
    this.player.select(this.idea, this.start);
    if (!this.player.playing) this.player.play();
  }

  /** The beat from which it is first heard: a bar before what is new. */
  get start() {
    return this.idea.fresh ? Math.max(this.idea.fresh[0] - this.data.beats_per_bar, 0) : 0;
  }

  seek(beat) {
    if (this.isCurrent) this.player.seek(beat);
    else this.player.select(this.idea, beat);
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
