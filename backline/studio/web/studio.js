"use strict";
// The studio's page: cards of ideas and of jobs, kept as the server tells. `window.page` is there for tests.

class StudioPage {
  constructor(data) {
    this.data = data;
    data.studio = this;
    this.stage = new Stage(data);
    this.list = document.getElementById("list");
    this.byId = new Map(); // cards of ideas
    this.growing = new Map(); // cards of jobs, by the job's number
    this.made = new Map(); // id of the first idea of a job that is over, by the job's number
    this.toPlay = null; // number of the job that was asked for here, and is to be heard
    this.asked = null; // the same number, until its card is in sight
    this.toShow = null; // id of an idea that is to be brought into sight when it comes
    this.before = null; // the idea that was chosen before
    this.showActions();
    this.ask = new AskForm(document.getElementById("ask"), data, this);
    this.stage.keys.x = () => this.compare();
    document.addEventListener("keydown", (event) => this.onUndoKey(event));
    this.listen();
  }

  // ------------------------------------------------------------ with the server

  listen() {
    const source = new EventSource("/api/events");
    source.onmessage = (event) => this.take(JSON.parse(event.data));
    source.onopen = () => say("");
    source.onerror = async () => {
      say("The studio does not answer. If it was started again, open the address that it printed; else it comes back by itself.");
      if (source.readyState !== EventSource.CLOSED) return;
      const answer = await fetch("/").catch(() => null);
      if (answer?.status === 403) say(await answer.text());
      else setTimeout(() => this.listen(), 2000);
    };
  }

  /** The answer of a request, as JSON; `error` where something is wrong. */
  async post(address, data) {
    try {
      const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) });
      const text = await answer.text();
      if (answer.headers.get("Content-Type")?.startsWith("application/json")) return JSON.parse(text);
      return { error: text };
    } catch {
      return { error: "The studio does not answer; is it still running?" };
    }
  }

  /** Ask for songs; the first of them is heard as soon as it can be. */
  async make(form) {
    this.stage.player.warm();
    const answer = await this.post("/api/ask", form);
    if (answer.error) return answer;
    this.toPlay = answer.number;
    this.asked = answer.number;
    this.seeAsked();
    this.playSoon(answer.number);
    return answer;
  }

  take(event) {
    const actions = {
      state: () => this.begin(event),
      idea: () => this.putIdea(event.idea),
      gone: () => this.removeIdea(event.id),
      job: () => this.putJob(event.job),
      notes: () => this.addNotes(event),
      drawn: () => this.growing.get(event.job)?.forEach((card) => card.showJob({ ...card.job, n_drawn: event.n })),
      dismissed: () => this.removeJob(event.job),
      counts: () => this.showCounts(event),
    };
    actions[event.type]();
  }

  /** All that is so: at first, and when the connection comes back. */
  begin(state) {
    this.made.clear(); // a studio that was started again counts its jobs from 1
    const ids = new Set(state.ideas.map((idea) => idea.id));
    for (const id of [...this.byId.keys()]) if (!ids.has(id)) this.removeIdea(id, false);
    for (const number of [...this.growing.keys()]) this.removeJob(number);
    for (const idea of state.ideas) this.putIdea(idea, false);
    for (const job of state.jobs) this.putJob(job);
    this.showCounts(state);
    this.changed();
  }

  // ------------------------------------------------------------ ideas

  putIdea(raw, tell = true) {
    const known = this.byId.get(raw.id);
    if (known) known.rewrite(raw);
    else this.addIdea(raw, tell);
    if (tell) this.changed();
  }

  addIdea(raw, tell) {
    const grown = [...this.growing.values()].flat().find((card) => card.hash === raw.hash);
    const read = readIdea(raw, this.data.parts, this.data.beats_per_bar);
    // What plays goes on: the idea stays the same object, with its last notes and velocities.
    const idea = grown ? Object.assign(grown.idea, { known: undefined }, read) : read;
    const card = new IdeaCard(idea, this.data, this.stage.player);
    this.byId.set(raw.id, card);
    this.stage.add(card);
    if (grown) {
      grown.root.replaceWith(card.root);
      if (!this.made.has(grown.job.number)) this.made.set(grown.job.number, raw.id);
      this.forget(grown);
    } else this.place([card], tell && [...this.byId.values()].find((one) => one.idea.hash === raw.parents[0]));
    card.roll.resize();
    card.update();
    if (this.toShow === raw.id) this.show(raw.id);
    if (grown) this.playSoon(grown.job.number);
  }

  removeIdea(id, tell = true) {
    const card = this.byId.get(id);
    if (!card) return;
    this.byId.delete(id);
    card.root.remove();
    this.stage.remove(card);
    if (tell) this.changed();
  }

  get ideas() {
    return [...this.byId.values()].map((card) => card.idea);
  }

  /** Ideas came or went, or have other names: say so where they are named. */
  changed() {
    const { ideas } = this;
    const byHash = new Map(ideas.map((idea) => [idea.hash, idea]));
    this.ask.setPrompts(ideas);
    for (const card of this.byId.values()) {
      if (card.work.open) card.setOthers(ideas); // else when it is opened: 200 lists of 200 ideas take a second
      const names = card.idea.parents.map((hash) => (byHash.has(hash) ? nameOf(byHash.get(hash)) : "a song that is gone"));
      card.from.textContent = names.length ? `from ${names.join(" and ")}` : "";
    }
    document.getElementById("branches").replaceChildren(branches(ideas, byHash, (id) => this.show(id)));
    document.getElementById("tree").hidden = !ideas.some((idea) => idea.parents.length);
    document.getElementById("summary").textContent = ideas.length ? count(ideas.length, "idea") : "No ideas yet: press Make, or drop a song.";
    this.showStars();
    // The fader of tracks that play no part is there where there are such tracks.
    this.stage.dock.parts.at(-1).root.hidden = !ideas.some((idea) => idea.others.length);
    this.stage.update();
  }

  /** Bring an idea into sight and choose it; play then begins a bar before what is new. */
  show(id) {
    const card = this.byId.get(id);
    this.toShow = card ? null : id;
    if (!card) return;
    this.choose(card);
    card.root.scrollIntoView({ block: "center" });
  }

  choose(card) {
    const { player } = this.stage;
    if (player.idea !== card.idea) this.before = player.idea;
    card.choose(card.start);
  }

  /** The idea from before, at the same place. */
  compare() {
    const { player } = this.stage;
    if (!this.before || !this.stage.ideas.includes(this.before)) return;
    const now = player.idea;
    const card = this.stage.cards.find(({ idea }) => idea === this.before);
    card.choose(Math.min(player.position(), this.before.beats));
    this.before = now;
  }

  // ------------------------------------------------------------ jobs

  putJob(job) {
    if (!this.growing.has(job.number)) {
      if (job.state === "done" || !job.ground) return;
      const cards = Array.from({ length: Math.max(job.n, 1) }, (_, i) => new GrowingCard(growingIdea(job, i, this.data), this.data, this.stage.player, job));
      this.growing.set(job.number, cards);
      this.place(cards, this.byId.get(job.parent));
      for (const card of cards) {
        this.stage.add(card);
        card.roll.resize();
      }
      cards.forEach((card, i) => card.grow(job.notes[i] ?? []));
    }
    const cards = this.growing.get(job.number);
    for (const card of cards) card.showJob(job);
    if (job.n) cards.forEach((card, i) => { card.hash = job.songs[i]; });
    else if (job.state === "done") this.removeJob(job.number);
    this.stage.update();
    this.seeAsked();
    this.playSoon(job.number);
  }

  /** Bring what was asked for here into sight. */
  seeAsked() {
    const card = this.firstCard(this.asked);
    if (!card) return;
    this.asked = null;
    card.root.scrollIntoView({ block: "nearest" });
  }

  /** New cards stand above the idea that they come from, and else above all. */
  place(cards, parent) {
    const roots = cards.map((card) => card.root);
    if (parent) parent.root.before(...roots);
    else this.list.prepend(...roots);
  }

  addNotes({ job, notes }) {
    const cards = this.growing.get(job);
    if (!cards) return;
    cards.forEach((card, i) => card.grow(notes.filter(([song]) => song === i).map(([, ...row]) => row)));
    this.playSoon(job);
  }

  /**
   * Let the first song of the job that was asked for here be heard, once a bar of it is there. A short
   * job may be over before the answer to the request says which one it is.
   */
  playSoon(number) {
    if (this.toPlay !== number) return;
    const card = this.firstCard(number);
    if (!card || !this.hasBar(card)) return;
    this.toPlay = null;
    if (this.stage.player.playing) return;
    this.choose(card);
    this.stage.player.play();
  }

  /** The card of a job's first song: of the idea that it has become, or of what grows. */
  firstCard(number) {
    return this.byId.get(this.made.get(number)) ?? this.growing.get(number)?.[0];
  }

  /** Whether a bar of a song can be heard. */
  hasBar(card) {
    if (!(card instanceof GrowingCard)) return true;
    const { job, idea } = card;
    return job.n && (idea.known ?? 0) >= (job.ground.first_bar + 1) * this.data.beats_per_bar;
  }

  removeJob(number) {
    for (const card of this.growing.get(number) ?? []) {
      card.root.remove();
      this.stage.remove(card);
    }
    this.growing.delete(number);
    this.stage.update();
  }

  /** A grown card has become an idea's. */
  forget(grown) {
    this.stage.remove(grown);
    for (const [number, cards] of this.growing) {
      if (!cards.includes(grown)) continue;
      const left = cards.filter((card) => card !== grown);
      if (left.length) this.growing.set(number, left);
      else this.growing.delete(number);
    }
  }

  // ------------------------------------------------------------ undo, stars, bin

  showActions() {
    const button = (text, action) => element("button", { type: "button", class: "wide", onclick: action }, text);
    const step = (name) => async () => say((await this.post(`/api/${name}`, {})).error ?? "");
    this.undo = button("Undo", step("undo"));
    this.redo = button("Redo", step("redo"));
    this.unbin = button("Bin", step("unbin"));
    this.unbin.title = "Take all ideas back out of the bin";
    this.zip = element("a", { class: "wide", href: "/api/starred.zip", download: "starred.zip", title: "The starred ideas, with their stems" }, icon("star"), "ZIP");
    document.getElementById("actions").append(this.undo, this.redo, this.unbin, this.zip);
    document.getElementById("title").textContent = this.data.title;
    document.title = `${this.data.title} – studio`;
  }

  showCounts({ undo, redo, n_binned: nBinned, unreadable }) {
    this.undo.disabled = !undo;
    this.undo.title = undo ? `Undo: ${undo}` : "Nothing to undo";
    this.redo.disabled = !redo;
    this.redo.title = redo ? `Redo: ${redo}` : "Nothing to redo";
    this.unbin.textContent = `${nBinned} in the bin: take back`;
    this.unbin.hidden = !nBinned;
    const lines = Object.values(unreadable);
    if (lines.length) say(`Not shown: ${lines.join("; ")}`);
  }

  showStars() {
    this.zip.hidden = ![...this.byId.values()].some((card) => card.kept.star);
  }

  onUndoKey(event) {
    const isTyping = event.target.matches("input:not([type=checkbox]), select");
    if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey) || isTyping) return;
    event.preventDefault();
    (event.shiftKey ? this.redo : this.undo).click();
  }
}

/** Ideas below those that they were made from, as nested lists of buttons. */
function branches(ideas, byHash, show) {
  const roots = ideas.filter((idea) => !idea.parents.some((hash) => byHash.has(hash)));
  const seen = new Set();
  const list = (some) => element("ul", {}, ...some.filter((idea) => !seen.has(idea)).map((idea) => {
    seen.add(idea);
    const children = ideas.filter((one) => one.parents[0] === idea.hash);
    return element("li", {}, element("button", { type: "button", class: "small", onclick: () => show(idea.id) }, nameOf(idea)), idea.asked ? ` ${idea.asked}` : "",
      ...(children.length ? [list(children)] : []));
  }));
  return list(roots);
}

{
  const data = JSON.parse(document.getElementById("data").textContent);
  const studio = new StudioPage(data);
  window.page = Object.assign(studio.stage, { studio });
}
