"use strict";
// The bar at the bottom: what plays, where it is, parts, tempo, volume.

const SLOWEST = 40; // beats per minute that the slider reaches, or the idea's own if that is beyond
const FASTEST = 240;

class Dock {
  constructor(root, player) {
    this.player = player;
    this.playButton = iconButton("play", "Play", () => player.toggle(), { class: "icon play" });
    this.loopButton = iconButton("loop", "Loop", () => player.setLoop(!player.loop), { class: "icon more-control", "aria-pressed": false });
    this.name = element("strong");
    this.place = element("span", { class: "place" });
    this.parts = player.parts.map((part, p) => this.partButtons(part, p));
    this.tempo = element("input", { type: "range", id: "tempo", step: 1, oninput: () => player.setTempo(Number(this.tempo.value)) });
    this.tempoReset = element("button", { type: "button", class: "reading", onclick: () => player.setTempo(player.idea.tempo) });
    const volume = element("input", { type: "range", id: "volume", min: 0, max: 1, step: 0.01, value: player.volume,
      oninput: () => player.setVolume(Number(volume.value)) });
    // On a phone the rest is shown when it is asked for: a dock of at most an eighth of the height.
    const mixer = iconButton("mixer", "Mixer: volumes, tempo, loop", () => mixer.setAttribute("aria-expanded", root.classList.toggle("open")),
      { class: "icon mixer", "aria-expanded": false });
    root.append(
      element("div", { class: "dock-row transport" }, this.playButton, iconButton("stop", "Stop", () => player.stop(), { class: "icon more-control" }),
        this.loopButton, element("div", { class: "now more-control" }, this.name, this.place)),
      element("div", { class: "dock-row parts", role: "group", "aria-label": "Parts" }, ...this.parts.map(({ root: part }) => part), mixer),
      element("div", { class: "dock-row sliders more-control" },
        element("div", { class: "slider" }, element("label", { for: "tempo" }, "Tempo"), this.tempoReset, this.tempo),
        element("div", { class: "slider" }, element("label", { for: "volume" }, "Volume"), volume),
        this.portChoice()));
  }

  /** What plays: the page, or a MIDI port. Ports are asked for when somebody wants them, as the browser asks as well. */
  portChoice() {
    if (!navigator.requestMIDIAccess) return null;
    const choice = element("select", { class: "port", "aria-label": "Sound", title: "What plays: this page, or a MIDI port" },
      element("option", { value: "" }, "page"), element("option", { value: "ask" }, "MIDI port…"));
    let ports = new Map();
    choice.addEventListener("change", async () => {
      if (choice.value === "ask") {
        choice.value = "";
        ports = await midiPorts();
        const names = [...ports.values()].map((port) => element("option", { value: port.id }, port.name || "MIDI port"));
        choice.replaceChildren(choice.options[0], ...names, element("option", { value: "ask" }, names.length ? "look again…" : "MIDI port…"));
        if (names.length) choice.value = names[0].value;
        else say("No MIDI port: start the synthesizer or the DAW first, with a virtual MIDI cable, and allow this page to use it.");
      }
      const port = ports.get(choice.value);
      this.player.setPort(port ? new MidiPort(port) : null);
    });
    return choice;
  }

  partButtons(part, p) {
    const key = p < 9 ? ` (${p + 1})` : "";
    const mute = element("button", { type: "button", class: "mute", "aria-label": `Mute ${part.name}`, title: `Mute ${part.name}${key}`,
      onclick: () => this.player.togglePart(p) }, element("span", { class: "dot", "aria-hidden": "true" }), part.name);
    const solo = element("button", { type: "button", class: "solo", "aria-label": `Solo ${part.name}`, title: `Solo ${part.name}`,
      onclick: () => this.player.togglePart(p, this.player.soloed) }, "S");
    const level = element("input", { type: "range", class: "level more-control", min: 0, max: 1, step: 0.01, value: this.player.levels[p],
      "aria-label": `Volume of ${part.name}`, title: `Volume of ${part.name}`, oninput: () => this.player.setLevel(p, Number(level.value)) });
    return { mute, solo, root: element("div", { class: "part", style: `--color: var(${colorOf({ part: p, other: part.other })})` }, mute, solo, level) };
  }

  update() {
    const { player } = this;
    this.playButton.replaceChildren(icon(player.playing ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    this.playButton.title = `${player.playing ? "Pause" : "Play"} (space)`;
    this.loopButton.setAttribute("aria-pressed", player.loop);
    this.name.textContent = player.idea.title;
    const gains = player.gains();
    this.parts.forEach(({ mute, solo, root }, p) => {
      mute.setAttribute("aria-pressed", player.muted.has(p));
      solo.setAttribute("aria-pressed", player.soloed.has(p));
      root.classList.toggle("silent", !gains[p]);
    });
    const own = player.idea.tempo;
    const tempo = player.tempo();
    this.tempo.min = Math.min(SLOWEST, Math.floor(own));
    this.tempo.max = Math.max(FASTEST, Math.ceil(own));
    this.tempo.value = tempo;
    this.tempo.setAttribute("aria-valuetext", `${Math.round(tempo)} beats per minute`);
    this.tempoReset.textContent = `${Math.round(tempo)} BPM`;
    this.tempoReset.disabled = tempo === own;
    this.tempoReset.title = tempo === own ? "" : `Back to ${Math.round(own * 10) / 10} BPM`;
    this.tick();
  }

  tick() {
    const beat = this.player.position();
    const perBar = this.player.beatsPerBar;
    const bar = Math.floor(beat / perBar);
    const text = `bar ${bar + 1} · beat ${Math.floor(beat - bar * perBar) + 1}`;
    if (this.place.textContent !== text) this.place.textContent = text;
  }
}
