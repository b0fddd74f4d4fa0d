"use strict";
// Puts the page together: a card for each idea, one player, the keys. `window.page` is there for tests.

/** Ideas as cards in `list`, with the dock and the keys. Returns {cards, player, update}. */
function setUp(data, list, makeCard) {
  const ideas = data.ideas.map((raw) => readIdea(raw, data.parts, data.beats_per_bar));
  let update = () => {};
  const player = new Player(data.parts, () => update(), () => say("No sound: this browser finds no device to play on."));
  player.beatsPerBar = data.beats_per_bar;
  player.idea = ideas[0];
  const cards = ideas.map((idea) => makeCard(idea, data, player));
  list(cards);
  const dock = new Dock(document.getElementById("dock"), player);
  let gains = "";
  let frame = 0;
  const tick = () => {
    cards.find((card) => card.isCurrent).tick(player.playing);
    dock.tick();
    frame = player.playing ? requestAnimationFrame(tick) : 0;
  };
  update = () => {
    if (gains !== String(player.gains())) for (const card of cards) card.roll.setAudible(player.gains());
    gains = String(player.gains());
    for (const card of cards) card.update();
    dock.update();
    if (player.playing && !frame) frame = requestAnimationFrame(tick);
  };
  watch(cards);
  document.addEventListener("click", letGo);
  document.addEventListener("keydown", (event) => onKey(event, player, cards, data.beats_per_bar));
  document.addEventListener("visibilitychange", () => { if (player.playing && player.marks.length) player.wake(); });
  update();
  return { ideas, cards, player };
}

/** Draw rolls when they come near the screen, and anew when its width or its colors change. */
function watch(cards) {
  const byRoot = new Map(cards.map((card) => [card.roll.root, card]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) byRoot.get(entry.target).roll.show(entry.isIntersecting);
  }, { rootMargin: "400px" });
  let width = 0;
  new ResizeObserver(() => {
    if (width === document.body.clientWidth) return;
    width = document.body.clientWidth;
    for (const card of cards) {
      card.roll.resize();
      card.tick(false);
    }
  }).observe(document.body);
  for (const card of cards) seen.observe(card.roll.root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const card of cards) if (card.roll.visible) card.roll.draw();
  });
}

/** After a click with the mouse, space is for playing again; who tabs to a button presses it with space. */
function letGo(event) {
  if (event.detail) event.target.closest("button, summary, [type=radio]")?.blur();
}

function onKey(event, player, cards, beatsPerBar) {
  const typing = event.target.matches("[type=text]");
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
  };
  const part = Number(event.key) - 1;
  const action = part in player.parts ? () => player.togglePart(part) : actions[event.key];
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
  player.select(next.idea);
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
  return { ...parts, stars: () => starsOf(parts.cards, data.stars) };
}

/** Songs inside another page, which has a heading of its own. */
function plainPage(data) {
  document.body.classList.add("plain");
  return listOfCards(data, (...about) => new PlainCard(...about));
}

{
  const data = JSON.parse(document.getElementById("data").textContent);
  document.title = data.title;
  document.getElementById("title").textContent = data.title;
  document.getElementById("summary").textContent = data.summary;
  const makePage = data.pairs ? blindPage : data.plain ? plainPage : ideasPage;
  window.page = makePage(data);
}
