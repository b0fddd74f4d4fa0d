"use strict";
// The form that asks for ideas, and the place to drop songs on. Its fields are options of generate.py.

const LEVELS = {
  density: ["sparse", "medium", "busy", "1", "2", "3", "4", "5", "6", "7", "8"],
  rests: ["never", "sometimes", "often", "mostly"],
  repeats: ["hardly", "partly", "mostly", "exactly"],
};
const SCALE_NAMES = ["major", "minor", "dorian", "phrygian", "lydian", "mixolydian", "locrian", "harmonic minor", "melodic minor",
  "major pentatonic", "minor pentatonic", "blues"];
const DEFAULT_BARS = 8;
const DEFAULT_IDEAS = 2;

/** An input, select or checkbox with its label, and a place for what is wrong with it. */
class Field {
  constructor(name, label, control, hint = "") {
    this.name = name;
    this.control = control;
    this.error = element("span", { class: "error", id: `error-${name}`, role: "alert" });
    control.setAttribute("aria-describedby", this.error.id);
    this.isSwitch = control.type === "checkbox";
    const text = element("span", { class: "label" }, label);
    this.root = element("label", { class: this.isSwitch ? "field switch" : "field", title: hint },
      ...(this.isSwitch ? [control, text] : [text, control]), this.error);
  }

  get value() {
    return this.isSwitch ? this.control.checked : this.control.value.trim();
  }

  say(text) {
    this.error.textContent = text;
    if (text) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
  }
}

function textInput(name, attributes = {}) {
  return element("input", { type: "text", name, autocomplete: "off", spellcheck: "false", ...attributes });
}

function numberInput(name, attributes = {}) {
  return element("input", { type: "number", name, inputmode: "numeric", ...attributes });
}

function selectInput(name, options) {
  return element("select", { name }, ...options.map(([value, text]) => element("option", { value }, text)));
}

function switchInput(name) {
  return element("input", { type: "checkbox", name });
}

class AskForm {
  constructor(root, data, studio) {
    this.studio = studio;
    this.parts = data.parts.filter((part) => !part.other).map((part) => part.name);
    this.fields = new Map();
    this.wanted = null; // id of the song that the next ideas are to be from, while the page does not know it
    this.form = element("form", { class: "ask", novalidate: "", onsubmit: (event) => {
      event.preventDefault();
      this.send();
    } });
    this.error = element("p", { class: "error", role: "alert" });
    this.command = element("p", { class: "command" });
    this.form.append(this.first(), this.more(), this.error, this.command);
    root.append(this.form, this.dropZone());
    this.showFields();
  }

  add(name, label, control, hint) {
    const field = new Field(name, label, control, hint);
    this.fields.set(name, field);
    return field.root;
  }

  /** What most people set. */
  first() {
    this.prompt = selectInput("prompt", [["", "nothing"]]);
    this.prompt.addEventListener("change", () => this.showFields());
    return element("div", { class: "fields" },
      element("button", { type: "submit", class: "wide make", id: "make" }, icon("play"), "Make"),
      this.add("prompt", "From", this.prompt, "An idea or a dropped song to go on from, or to play to"),
      this.add("bars", "Bars", numberInput("bars", { min: 1, max: 256, value: DEFAULT_BARS }), "How many new bars"),
      this.add("n", "Ideas", numberInput("n", { min: 1, max: 16, value: DEFAULT_IDEAS })),
      this.add("key", "Key", textInput("key", { placeholder: "any", size: 6 }), "A, F#m, Bb, D dorian; keep: that of the song it is from"),
      this.add("chords", "Chords", textInput("chords", { placeholder: "Am F C G", size: 14 }),
        "One a bar, repeated: Am F:2 C:.5 Am/C; - is none, ? leaves it open; keep: those of the song it is from"),
      this.add("feel", "Feel", selectInput("feel", [["safer", "safer"], ["", "as it is"], ["wilder", "wilder"]])));
  }

  more() {
    this.fields.get("feel").control.value = "";
    const choice = (values) => [["", "–"], ...values.map((value) => [value, value])];
    const rows = this.parts.map((part) => element("div", { class: "fields of-part", role: "group", "aria-label": part },
      element("strong", {}, part),
      ...Object.entries(LEVELS).map(([control, levels]) => this.add(`${control}:${part}`, control, selectInput(`${control}:${part}`, choice(levels)))),
      this.add(`pitches:${part}`, "may play", textInput(`pitches:${part}`, { placeholder: "any", size: 10 }), "E1-E3, or of drums kick,snare,hats"),
      this.add(`mono:${part}`, "one note at a time", switchInput(`mono:${part}`))));
    const scales = element("datalist", { id: "scales" }, ...SCALE_NAMES.map((value) => element("option", { value })));
    return element("details", { class: "more" }, element("summary", {}, "More"),
      ...rows, scales,
      element("div", { class: "fields" },
        this.partChoice("make", "Make"), this.partChoice("given", "Keep and play to"),
        this.add("fill", "Bars again", textInput("fill", { placeholder: "5-8 or 2,6", size: 8 }), "Bars of the song to make anew"),
        this.add("prompt_bars", "First bars of it", numberInput("prompt_bars", { min: 1 }), "Keep only so many bars of the song"),
        this.add("missing", "the parts it lacks", switchInput("missing")),
        this.add("same_parts", "its own parts alone", switchInput("same_parts"))),
      element("div", { class: "fields" },
        this.add("scale", "Scale", textInput("scale", { list: "scales", placeholder: "the key’s", size: 10 })),
        this.add("tempo", "Tempo", numberInput("tempo", { placeholder: "120", step: "any" })),
        this.add("loop", "loops", switchInput("loop"), "No new note rings on past the last bar"),
        this.add("no_empty_bars", "a note in every bar", switchInput("no_empty_bars")),
        this.add("ending", "Ends with the last bar", selectInput("ending", [["", "–"], ["yes", "yes"], ["no", "no"]])),
        this.add("dynamics", "Velocities", selectInput("dynamics", [["", "–"], ["played", "as played"], ["flat", "all alike"]])),
        this.add("temperature", "Temperature", numberInput("temperature", { step: 0.05, min: 0.1, placeholder: "1" }))),
      element("div", { class: "fields" },
        this.add("best_of", "Choose for me, of", numberInput("best_of", { min: 1, max: 16 }), "Draw so many, and show the best with its reason"),
        this.add("check_copies", "say what is in training songs", switchInput("check_copies")),
        this.add("max_copy", "At most such notes", numberInput("max_copy", { min: 1 }), "Draw songs that share more notes in a row with training songs anew"),
        this.add("seed", "Seed", numberInput("seed", { min: 0, placeholder: "random" }))));
  }

  partChoice(name, label) {
    const boxes = this.parts.map((part) => element("label", { class: "switch" },
      element("input", { type: "checkbox", value: part }), part));
    const control = element("fieldset", { name }, ...boxes);
    const field = new Field(name, label, control);
    field.root = element("div", { class: "field" }, element("span", { class: "label" }, label), control, field.error);
    Object.defineProperty(field, "value", { get: () => [...control.querySelectorAll(":checked")].map((box) => box.value).join(",") });
    this.fields.set(name, field);
    return field.root;
  }

  /** Fields about a song are there where there is one. */
  showFields() {
    const has = Boolean(this.prompt.value);
    for (const name of ["given", "fill", "prompt_bars", "missing", "same_parts"]) this.fields.get(name).root.hidden = !has;
  }

  /** Let the next ideas be from this one, as soon as the page knows it. */
  choosePrompt(id) {
    this.wanted = id;
    this.setPrompts(this.studio.ideas);
  }

  /** The songs to choose from have changed. */
  setPrompts(ideas) {
    const value = this.wanted ?? this.prompt.value;
    if (ideas.some((idea) => idea.id === this.wanted)) this.wanted = null;
    this.prompt.replaceChildren(element("option", { value: "" }, "nothing"),
      ...ideas.map((idea) => element("option", { value: idea.id }, nameOf(idea))));
    this.prompt.value = ideas.some((idea) => idea.id === value) ? value : "";
    this.showFields();
  }

  data() {
    const form = {};
    const perPart = {};
    for (const [name, field] of this.fields) {
      const { value } = field;
      if (field.root.hidden || value === "" || value === false) continue;
      const [control, part] = name.split(":");
      if (part) (perPart[control] ??= []).push([part, value]);
      else form[name] = value;
    }
    for (const [control, values] of Object.entries(perPart)) {
      if (control === "pitches") form.pitches = values.map(([part, value]) => `${part}=${value}`);
      else if (control === "mono") form.mono = values.map(([part]) => part).join(",");
      else form[control] = values.map(([part, value]) => `${part}=${value}`).join(",");
    }
    // Bars are for new bars: what is played to, or made anew, has as many as there are.
    if (form.fill || form.given || form.missing) delete form.bars;
    return form;
  }

  async send() {
    for (const field of this.fields.values()) field.say("");
    this.error.textContent = "";
    const answer = await this.studio.make(this.data());
    if (answer.error) {
      const name = [...this.fields.keys()].find((one) => one === answer.field || one.startsWith(`${answer.field}:`));
      if (name && answer.field) {
        const field = this.fields.get(name);
        field.root.closest("details")?.setAttribute("open", "");
        field.say(answer.error);
        field.control.focus();
      } else this.error.textContent = answer.error;
      return;
    }
    this.showCommand(answer.command);
  }

  showCommand(command) {
    this.command.replaceChildren("The same on a command line: ", copyable(command));
  }

  // ------------------------------------------------------------ songs of one's own

  dropZone() {
    const input = element("input", { type: "file", accept: ".mid,.midi,audio/midi", multiple: "", id: "files",
      onchange: () => this.drop([...input.files]) });
    this.given = element("div", { class: "given" });
    const zone = element("div", { class: "drop" }, element("label", { for: "files" }, "Your own song, or stems: drop .mid files anywhere on the page, or choose them "),
      input, this.given);
    document.addEventListener("dragover", (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      zone.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) zone.classList.remove("over"); });
    document.addEventListener("drop", (event) => {
      zone.classList.remove("over");
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.drop([...event.dataTransfer.files]);
    });
    return zone;
  }

  async drop(files) {
    const read = await Promise.all(files.map(async (file) => ({ name: file.name, data: base64(await file.arrayBuffer()) })));
    await this.sendDropped(read);
  }

  /** `corrected`: the id of the song that was read otherwise before. */
  async sendDropped(files, players = {}, corrected = "") {
    const answer = await this.studio.post("/api/given", { files, players });
    if (answer.files) this.askForParts(files, answer);
    else if (answer.error) this.given.replaceChildren(element("p", { class: "error", role: "alert" }, answer.error));
    else {
      if (corrected && corrected !== answer.idea.id) await this.studio.post(`/api/ideas/${corrected}/bin`, {});
      this.showRead(files, answer);
    }
  }

  /** Stems whose names do not tell: which part is which? */
  askForParts(files, { error, files: parts }) {
    const selects = parts.map(({ name, part }) => [name, selectInput(name, this.parts.map((one) => [one, one])), part]);
    for (const [, select, part] of selects) select.value = part || this.parts[0];
    this.given.replaceChildren(element("p", { class: "error", role: "alert" }, error),
      ...selects.map(([name, select]) => element("label", { class: "field" }, element("span", { class: "label" }, name), select)),
      element("button", { type: "button", class: "wide", onclick: () => {
        this.sendDropped(files.map((file, i) => ({ ...file, part: selects[i][1].value })));
      } }, "Join them"));
  }

  /** What was read as what, to be corrected; the song is what the next ideas are from. */
  showRead(files, { idea, notices, tracks }) {
    this.choosePrompt(idea.id);
    const selects = tracks.map(({ part }) => {
      const select = selectInput("part", [["none", "not heard"], ...this.parts.map((one) => [one, one])]);
      select.value = part || "none";
      return select;
    });
    const again = element("button", { type: "button", class: "wide", onclick: () => {
      this.sendDropped(files, Object.fromEntries(selects.map((select, i) => [i, select.value])), idea.id);
    } }, "Read it so");
    const correct = files.length > 1 ? [] : [
      ...tracks.map(({ name }, i) => element("label", { class: "field" }, element("span", { class: "label" }, name), selects[i])), again];
    this.given.replaceChildren(...notices.map((line) => element("p", {}, line)), element("div", { class: "fields" }, ...correct));
  }
}

function base64(buffer) {
  const bytes = new Uint8Array(buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
}

function nameOf(idea) {
  return idea.name || idea.title;
}
