"use strict";
// What pages are made of: a card for each idea, one player, the keys.

/** The cards of a page, with one player, the dock and the keys. Cards may come and go. */
class Stage {
  constructor(data) {
    this.data = data;
    this.cards = [];
    this.ideas = [];
    this.keys = {}; // of a page, besides those that all pages have
    this.gains = "";
    this.frame = 0;
    this.player = new Player(data.parts, () => this.update(), () => say("No sound: this browser finds no device to play on."));
    this.player.beatsPerBar = data.beats_per_bar;
    this.player.idea = nothing(data);
    this.dock = new Dock(document.getElementById("dock"), this.player);
    this.watch();
    document.addEventListener("click", letGo);
    document.addEventListener("keydown", (event) => onKey(event, this));
    window.addEventListener("pagehide", () => this.player.pause()); // so that no note of a MIDI port hangs
    document.addEventListener("visibilitychange", () => { if (this.player.playing && this.player.marks.length) this.player.wake(); });
  }

  /** Take a card in; where it stands on the page is the caller's to say. */
  add(card) {
    this.cards.push(card);
    this.ideas.push(card.idea);
    this.byRoot.set(card.roll.root, card);
    this.seen.observe(card.roll.root);
    card.roll.setAudible(this.player.gains());
    if (!this.player.idea.notes.length && !this.player.playing) this.player.idea = card.idea;
  }

  /** Let a card go. What it plays stops, unless another card has its idea. */
  remove(card) {
    this.seen.unobserve(card.roll.root);
    const place = this.cards.indexOf(card);
    this.cards.splice(place, 1);
    this.ideas.splice(place, 1);
    if (this.player.idea !== card.idea || this.ideas.includes(card.idea)) return;
    this.player.stop();
    this.player.idea = this.ideas[0] ?? nothing(this.data);
  }

  get current() {
    return this.cards.find((card) => card.isCurrent);
  }

  update() {
    const { player } = this;
    if (!this.dock) return;
    if (this.gains !== String(player.gains())) for (const card of this.cards) card.roll.setAudible(player.gains());
    this.gains = String(player.gains());
    for (const card of this.cards) card.update();
    this.dock.update();
    if (player.playing && !this.frame) this.frame = requestAnimationFrame(() => this.tick());
  }

  tick() {
    this.current?.tick(this.player.playing);
    this.dock.tick();
    this.frame = this.player.playing ? requestAnimationFrame(() => this.tick()) : 0;
  }

  /** Draw rolls when they come near the screen, and anew when its width or its colors change. */
  watch() {
    this.byRoot = new WeakMap();
    this.seen = new IntersectionObserver((entries) => {
      for (const entry of entries) this.byRoot.get(entry.target).roll.show(entry.isIntersecting);
    }, { rootMargin: "400px" });
    let width = 0;
    new ResizeObserver(() => {
      if (width === document.body.clientWidth) return;
      width = document.body.clientWidth;
      for (const card of this.cards) {
        card.roll.resize();
        card.tick(false);
      }
    }).observe(document.body);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const card of this.cards) if (card.roll.visible) card.roll.draw();
    });
  }
}

/** An idea without a note, for a page that has none yet. */
function nothing(data) {
  const raw = { title: "", asked: "", ticks_per_quarter: 1, tempo: 120, tempos: [], notes: [], others: [], bars: 1, fresh: [] };
  return readIdea(raw, data.parts, data.beats_per_bar);
}

/** Ideas as cards in `list`, with the dock and the keys. Returns their stage. */
function setUp(data, list, makeCard) {
  const stage = new Stage(data);
  const ideas = data.ideas.map((raw) => readIdea(raw, data.parts, data.beats_per_bar));
  const cards = ideas.map((idea) => makeCard(idea, data, stage.player));
  list(cards);
  for (const card of cards) stage.add(card);
  stage.player.idea = ideas[0];
  stage.update();
  return stage;
}

/** After a click with the mouse, space is for playing again; who tabs to a button presses it with space. */
function letGo(event) {
  if (event.detail) event.target.closest("button, summary, [type=radio]")?.blur();
}

function onKey(event, stage) {
  const { player, cards } = stage;
  const beatsPerBar = player.beatsPerBar;
  const typing = event.target.matches("[type=text], [type=number], select, textarea");
  const presses = event.target.matches("button, a, summary, [type=radio]") && (event.key === " " || event.key === "Enter");
  const adjusts = event.target.matches("input") && /^(Arrow|Home|End)/.test(event.key);
  if (event.ctrlKey || event.metaKey || event.altKey || typing || presses || adjusts) return;
  const move = event.shiftKey ? 1 : beatsPerBar;
  const actions = {
    " ": () => player.toggle(),
    ArrowLeft: () => player.seek(stepBack(player, move)),
    ArrowRight: () => player.seek((Math.floor(player.position() / move) + 1) * move),
    ArrowUp: () => choose(player, cards, -1),
    ArrowDown: () => choose(player, cards, 1),
    Home: () => player.seek(0),
    End: () => player.seek(player.idea.beats - beatsPerBar),
    i: () => stage.current?.mark("first"),
    o: () => stage.current?.mark("last"),
    Escape: () => stage.current?.select(null),
  };
  const part = Number(event.key) - 1;
  const action = part in player.parts ? () => player.togglePart(part) : actions[event.key] ?? stage.keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

/** The beat or bar line before this one; from just behind a line, the one before that, or one could never go back. */
function stepBack(player, move) {
  const grace = player.playing ? 0.5 : 0.001; // beats
  return Math.max(Math.ceil((player.position() - grace) / move) - 1, 0) * move;
}

function choose(player, cards, step) {
  const shown = cards.filter((card) => !card.root.hidden);
  const next = shown[shown.findIndex((card) => card.isCurrent) + step];
  if (!next) return;
  next.choose(0);
  next.root.scrollIntoView({ block: "center" });
}

/** What `generate.py --reproduce` reads: the recipes of the starred ideas. */
function starsOf(cards, stars) {
  const songs = cards.filter(({ kept, idea }) => kept.star && idea.recipe).map(({ kept, idea }) => (
    { file: idea.file, hash: idea.hash, note: kept.note, recipe: idea.recipe }));
  return { format: stars.format, version: stars.version, songs };
}

/** One card below the other. */
function listOfCards(data, makeCard) {
  return setUp(data, (cards) => document.getElementById("list").append(...cards.map((card) => card.root)), makeCard);
}

function ideasPage(data) {
  const parts = listOfCards(data, (...about) => new Card(...about));
  const only = element("button", { type: "button", class: "wide", "aria-pressed": "false", title: "Show the starred ideas alone", onclick: () => {
    only.setAttribute("aria-pressed", only.getAttribute("aria-pressed") === "false");
    show();
  } });
  const save = element("button", { type: "button", class: "wide", onclick: () => {
    const found = starsOf(parts.cards, data.stars);
    const without = parts.cards.filter((card) => card.kept.star).length - found.songs.length;
    saveFile("stars.json", "application/json", `${JSON.stringify(found, null, 2)}\n`);
    say(`${count(found.songs.length, "starred idea")} in stars.json; make them again with: python generate.py --reproduce stars.json`
      + (without ? ` (${without} left out: no recipe)` : ""));
  } }, "Export stars");
  const show = () => {
    const starred = parts.cards.filter((card) => card.kept.star).length;
    only.replaceChildren(icon("star"), `${starred} starred`);
    if (!starred) only.setAttribute("aria-pressed", "false"); // else the page would be empty
    only.disabled = save.disabled = !starred;
    const filter = only.getAttribute("aria-pressed") === "true";
    for (const card of parts.cards) card.root.hidden = filter && !card.kept.star;
  };
  document.getElementById("actions").append(only, save);
  document.addEventListener("kept", show);
  show();
  return Object.assign(parts, { stars: () => starsOf(parts.cards, data.stars) });
}

/** Songs inside another page, which has a heading of its own. */
function plainPage(data) {
  document.body.classList.add("plain");
  return listOfCards(data, (...about) => new PlainCard(...about));
}
