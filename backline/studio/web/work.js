"use strict";
// An idea's card in the studio: select bars and parts on its roll, and ask for something with them.

const SHARES = [0.25, 0.5, 0.75]; // of the bars, to vary
const MOVES = [[-12, "−8va"], [-1, "−1"], [1, "+1"], [12, "+8va"]]; // semitones

class IdeaCard extends Card {
  constructor(idea, data, player) {
    super(idea, data, player);
    this.select(null);
  }

  get studio() {
    return this.data.studio;
  }

  read() {
    return { star: this.idea.star, note: this.idea.note, name: this.idea.name };
  }

  /** Parts that have notes. */
  get present() {
    return this.data.parts.filter((part, p) => !part.other && this.idea.lanes[p] && this.idea.notes.some((note) => note.lane === p)).map((part) => part.name);
  }

  heading() {
    this.name = element("input", { type: "text", class: "name", maxlength: 80, placeholder: this.idea.title, "aria-label": `Name of ${this.idea.title}`,
      onchange: () => this.keep({ name: this.name.value.trim() }) });
    this.name.value = this.kept.name;
    return element("h2", {}, this.name);
  }

  toggle() {
    const goesOn = this.isCurrent || this.player.playing;
    if (this.isCurrent) this.player.toggle();
    else this.studio.choose(this);
    if (!goesOn) this.player.play();
  }

  /** Somebody wrote on it, perhaps in another tab. */
  rewrite(raw) {
    for (const name of ["star", "note", "name", "parents"]) this.idea[name] = raw[name];
    this.kept = this.read();
    this.star.setAttribute("aria-pressed", this.kept.star);
    for (const name of ["note", "name"]) if (document.activeElement !== this[name]) this[name].value = this.kept[name];
  }

  async keep(change) {
    const answer = await this.studio.post(`/api/ideas/${this.idea.id}/keep`, change);
    if (!answer.error) this.rewrite({ ...this.idea, ...change });
    this.say(answer.error ?? "");
  }

  say(text) {
    this.error.textContent = text;
  }

  // ------------------------------------------------------------ below the roll

  extras() {
    this.note = element("input", { type: "text", class: "note", maxlength: 500, placeholder: "Note to yourself",
      "aria-label": `Note on ${this.idea.title}`, onchange: () => this.keep({ note: this.note.value }) });
    this.note.value = this.kept.note;
    this.error = element("p", { class: "error", role: "alert" });
    this.from = element("p", { class: "from" });
    return [element("div", { class: "card-foot" }, this.files(), this.note), this.tools(), this.error, this.from, this.said(), this.recipe()];
  }

  /** A handle for each file: a click saves it, and Chromium drops its bytes where it is dragged to. */
  files() {
    const links = this.idea.files.map(({ label, file, part }) => {
      const address = `/api/ideas/${this.idea.id}/file?label=${encodeURIComponent(label)}`;
      const link = element("a", { class: "file", href: address, download: file, draggable: "true",
        title: `${file}: save it, or drag it into a DAW`,
        style: part === null ? null : `--color: var(--part-${part % COLORS})` },
      part === null ? icon("file") : element("span", { class: "dot", "aria-hidden": "true" }), label);
      const type = file.endsWith(".wav") ? "audio/wav" : "audio/midi";
      let bytes = "";
      const load = async () => {
        if (bytes) return;
        bytes = "loading";
        const answer = await fetch(address);
        bytes = answer.ok ? base64(await answer.arrayBuffer()) : "";
      };
      for (const kind of ["pointerenter", "focus"]) link.addEventListener(kind, load);
      link.addEventListener("dragstart", (event) => { // the bytes themselves: an address would need the cookie
        if (!bytes || bytes === "loading") event.preventDefault();
        else event.dataTransfer.setData("DownloadURL", `${type}:${file}:data:${type};base64,${bytes}`);
      });
      return link;
    });
    return element("nav", { class: "files", "aria-label": `Files of ${this.idea.title}` }, ...links, this.sound());
  }

  get withoutRecipe() {
    return this.idea.is_given ? "Your own song, as it was dropped." : "";
  }

  get path() {
    return `${this.data.folder}/${this.idea.is_given ? "given/" : ""}${this.idea.file}`;
  }

  /** The whole song as sound, by the server's FluidSynth; null where it has none. */
  sound() {
    if (!this.data.renders) return null;
    const name = this.idea.file.replace(/\.midi?$/i, ".wav");
    const button = element("button", { type: "button", class: "file", title: `${name}: the sound of it, by FluidSynth`, onclick: async () => {
      button.disabled = true;
      this.say("");
      const answer = await fetch(`/api/ideas/${this.idea.id}/sound`).catch(() => null);
      button.disabled = false;
      if (answer?.ok) saveFile(name, "audio/wav", await answer.arrayBuffer());
      else this.say(answer ? (await answer.json()).error : "The studio does not answer; is it still running?");
    } }, icon("file"), "WAV");
    return button;
  }

  tools() {
    const label = (text) => `${text} of ${this.idea.title}`;
    const bar = (name, text) => numberInput(name, { min: 1, max: this.idea.bars, "aria-label": label(text), onchange: () => this.typed() });
    this.first = bar("first", "First selected bar");
    this.last = bar("last", "Last selected bar");
    this.chips = new Map(this.present.map((part) => [part, element("button", { type: "button", class: "chip", "aria-pressed": "true",
      onclick: () => this.toggleChip(part) }, part)]));
    this.touch = element("button", { type: "button", class: "chip touch", "aria-pressed": "false", title: "Drag on the roll selects, with a finger too",
      onclick: () => this.touch.setAttribute("aria-pressed", this.root.classList.toggle("selecting")) }, "select by touch");
    const button = (text, title, action) => element("button", { type: "button", class: "tool", title, onclick: action }, text);
    const share = selectInput("share", SHARES.map((one) => [one, `${100 * one} %`]));
    share.setAttribute("aria-label", label("Share of the bars to make anew"));
    const more = numberInput("more", { min: 1, max: 64, value: 4, "aria-label": label("Bars to go on by") });
    const tempo = numberInput("tempo", { min: 10, max: 400, step: "any", value: Math.round(this.idea.tempo * 10) / 10, "aria-label": label("Tempo") });
    const names = this.data.parts.filter((part) => !part.other).map((part) => part.name);
    const fresh = selectInput("fresh", names.map((part) => [part, part]));
    fresh.setAttribute("aria-label", label("Part to make new, to the others"));
    const taken = selectInput("taken", this.present.map((part) => [part, part]));
    taken.setAttribute("aria-label", label("Part to take into another idea"));
    this.into = selectInput("into", []);
    this.into.setAttribute("aria-label", "Idea that gets it");
    const group = (...children) => element("span", { class: "tool-group" }, ...children);
    this.work = element("details", { class: "work", ontoggle: () => { if (this.work.open) this.setOthers(this.studio.ideas); } },
      element("summary", {}, "Work on it"),
      element("div", { class: "tools", role: "group", "aria-label": `Work on ${this.idea.title}` },
        group("bars", this.first, "–", this.last, ...this.chips.values(), this.touch),
        group(button("Again", "Make these bars of these parts anew, to everything around them", () => this.again()),
          button("Trim", "These bars and parts alone, as an idea", () => this.edit({ operation: "trim", ...this.wanted() })),
          button("Save bars", "A MIDI file of exactly these bars and parts", () => this.saveSelection())),
        group("move", ...MOVES.map(([semitones, text]) => button(text, `Move the selected notes by ${semitones} semitones`,
          () => this.edit({ operation: "move", semitones, ...this.wanted() })))),
        group(button("Vary", "Make a share of these bars anew, drawn by chance", () => this.vary(Number(share.value))), share, "of the bars"),
        group(button("Go on", "More bars after the last one, in the selected parts", () => this.goOn(Number(more.value))), "by", more, "bars"),
        group(button("New", "Make this part anew, to the others", () => this.newPart(fresh.value)), fresh, "to this"),
        group(button("Take", "Put this part into another idea, in place of its own", () => this.take(taken.value)), taken, "into", this.into),
        group(button("Set", "The same notes at this tempo", () => this.edit({ operation: "tempo", tempo: Number(tempo.value) })), tempo, "BPM"),
        group(button("Delete", "Move it to the bin; undo brings it back", () => this.throwAway()))));
    return this.work;
  }

  /** The ideas that a part can be taken into. */
  setOthers(ideas) {
    const { value } = this.into;
    this.into.replaceChildren(...ideas.filter((idea) => idea !== this.idea).map((idea) => element("option", { value: idea.id }, nameOf(idea))));
    if (ideas.some((idea) => idea.id === value && idea !== this.idea)) this.into.value = value;
  }

  // ------------------------------------------------------------ what is selected

  /** `wanted`: {first, last} and perhaps parts, else all; bars from 1. null: everything. */
  select(wanted) {
    const selection = wanted && { parts: this.present, ...wanted };
    const { first = 1, last = this.idea.bars, parts = this.present } = selection ?? {};
    this.first.value = first;
    this.last.value = last;
    for (const [part, chip] of this.chips) chip.setAttribute("aria-pressed", parts.includes(part));
    if (selection) this.work.open = true;
    super.select(selection);
  }

  /** What is selected waits for a tool. */
  chosen() {}

  typed() {
    const whole = (input, otherwise) => Math.min(Math.max(Math.round(Number(input.value)) || otherwise, 1), this.idea.bars);
    const first = whole(this.first, 1);
    this.select({ first, last: Math.max(whole(this.last, this.idea.bars), first), parts: this.pressed });
  }

  get pressed() {
    return [...this.chips].filter(([, chip]) => chip.getAttribute("aria-pressed") === "true").map(([part]) => part);
  }

  toggleChip(part) {
    const parts = this.pressed.includes(part) ? this.pressed.filter((one) => one !== part) : this.present.filter((one) => one === part || this.pressed.includes(one));
    this.select({ first: Number(this.first.value), last: Number(this.last.value), parts });
  }

  takesDrag(event) {
    return super.takesDrag(event) || (event.pointerType === "touch" && this.root.classList.contains("selecting"));
  }

  /** The bars and lanes between two places on the roll; on the ruler, all parts. */
  between(one, other) {
    const [top, bottom] = [one.y, other.y].sort((a, b) => a - b);
    const crossed = this.roll.lanes.filter((lane) => !lane.other && lane.top + lane.height > top && lane.top < bottom).map((lane) => lane.name);
    const parts = one.y < this.roll.top || !crossed.length ? this.present : crossed;
    return { ...super.between(one, other), parts };
  }

  wanted() {
    return { first: Number(this.first.value), last: Number(this.last.value), parts: this.pressed };
  }

  // ------------------------------------------------------------ what is asked for

  async ask(form) {
    const answer = await this.studio.make({ prompt: this.idea.id, n: 1, ...form });
    this.say(answer.error ?? "");
    if (!answer.error) this.studio.ask.showCommand(answer.command);
  }

  /** Whether no part is selected, which is said then. */
  lacksParts() {
    if (!this.pressed.length) this.say("No part is selected; select one at least.");
    return !this.pressed.length;
  }

  /** The selected parts, if they are not all. */
  some() {
    return this.pressed.length < this.present.length ? { make: this.pressed.join(",") } : {};
  }

  again() {
    if (this.lacksParts()) return;
    const { first, last } = this.wanted();
    this.ask({ fill: `${first}-${last}`, ...this.some() });
  }

  /** Make some of the selected bars anew, one at least, drawn by chance. */
  vary(share) {
    if (this.lacksParts()) return;
    const { first, last } = this.wanted();
    const bars = Array.from({ length: last - first + 1 }, (_, i) => first + i);
    const n = Math.max(Math.round(share * bars.length), 1);
    while (bars.length > n) bars.splice(Math.floor(Math.random() * bars.length), 1);
    this.ask({ fill: bars.join(","), ...this.some() });
  }

  goOn(bars) {
    if (this.lacksParts()) return;
    this.ask({ bars, ...this.some() });
  }

  newPart(part) {
    this.ask({ given: this.present.filter((one) => one !== part).join(","), make: part });
  }

  take(part) {
    if (this.into.value) this.edit({ operation: "take", part, into: this.into.value });
    else this.say("There is no other idea to take it into; make one first.");
  }

  async edit(edit) {
    const answer = await this.studio.post(`/api/ideas/${this.idea.id}/edit`, edit);
    this.say(answer.error ?? "");
    if (!answer.error) this.studio.show(answer.id);
  }

  async throwAway() {
    const answer = await this.studio.post(`/api/ideas/${this.idea.id}/bin`, {});
    this.say(answer.error ?? "");
  }

  async saveSelection() {
    const { first, last, parts } = this.wanted();
    const answer = await fetch(`/api/ideas/${this.idea.id}/selection`, { method: "POST", body: JSON.stringify({ first, last, parts }) });
    if (!answer.ok) {
      this.say((await answer.json()).error);
      return;
    }
    const stem = this.idea.file.replace(/\.midi?$/i, "");
    const which = parts.length < this.present.length ? ` ${parts.join(" ")}` : "";
    saveFile(`${stem}${which} bars ${first}-${last}.mid`, "audio/midi", await answer.arrayBuffer());
    this.say("");
  }
}
