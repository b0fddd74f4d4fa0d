"use strict";
// Ideas that are being made: their notes come one by one, and can be heard already.

const WORDS = { waiting: "waits for the job before it", running: "is being made", done: "done", stopped: "stopped", failed: "failed" };

class GrowingCard extends PlainCard {
  constructor(idea, data, player, job) {
    super(idea, data, player);
    this.job = job;
    this.root.classList.add("growing");
    this.showJob(job);
  }

  /** Above the roll, which grows: a button that moves is hard to press. */
  headExtras() {
    this.stop = element("button", { type: "button", class: "tool", onclick: () => this.end() }, "Stop");
    return [this.stop];
  }

  extras() {
    this.lines = element("div", { class: "said" });
    return [this.lines];
  }

  facts() {
    this.state = element("span", { class: "state", role: "status" });
    return this.state;
  }

  get isOver() {
    return ["stopped", "failed"].includes(this.job.state);
  }

  showJob(job) {
    this.job = { ...this.job, ...job };
    this.root.dataset.state = job.state;
    this.stop.textContent = this.isOver ? "Remove" : "Stop";
    this.lines.replaceChildren(...this.job.said.map((line) => element("p", {}, line)));
    if (this.isOver) this.idea.known = undefined;
    this.showState();
  }

  showState() {
    const { state, n, n_drawn_from: nFrom, n_drawn: nDrawn } = this.job;
    const { notes, beats, known, bars } = this.idea;
    const bar = Math.min(Math.floor((known ?? beats) / this.data.beats_per_bar) + 1, bars);
    let text = WORDS[state];
    if (state === "running" && !n) text = `draws ${nFrom} to choose from: ${count(nDrawn, "note")} so far`;
    else if (state === "running") text += `: bar ${bar} of ${bars}, ${count(notes.length, "note")}`;
    // The live region says the state, and not each note.
    this.state.setAttribute("aria-live", state === "running" ? "off" : "polite");
    this.state.textContent = text;
  }

  async end() {
    await this.data.studio.post(`/api/jobs/${this.job.number}/${this.isOver ? "dismiss" : "stop"}`, {});
  }

  /** `rows`: [lane, onset, end, pitch] in ticks, in the order in which they were drawn. */
  grow(rows) {
    const { idea } = this;
    const beats = (ticks) => ticks / idea.ticks_per_quarter;
    for (const [lane, onset, end, pitch] of rows) {
      const { part, drum } = idea.lanes[lane];
      idea.notes.push({ lane, part, drum, instrument: instrumentOf(idea.lanes[lane]), onset: beats(onset), end: beats(end),
        fade: beats(end), pitch, velocity: 100, old: false });
      idea.known = beats(onset);
    }
    if (!rows.length) return;
    this.roll.refresh();
    this.showState();
  }
}

/** An idea that begins with what is there before: `ground` as the server has it. */
function growingIdea(job, i, data) {
  const several = job.n > 1 ? `, ${i + 1} of ${job.n}` : "";
  const idea = readIdea({ ...job.ground, title: job.title + several, asked: "" }, data.parts, data.beats_per_bar);
  idea.known = job.ground.first_bar * data.beats_per_bar;
  return idea;
}
