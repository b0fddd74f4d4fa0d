"use strict";
// Two songs at a time, from which folder is not said, and a question about them.

const QUESTIONS = { prefer: "Which do you prefer?", real: "Which is the real one?" };
const ANSWERS = { first: "The first", second: "The second", neither: "Can’t tell" };

/** A card that gives nothing away. */
class BlindCard extends PlainCard {
  facts() {
    return "";
  }
}

/** The votes as evaluate.py reads them; pairs without an answer are left out. */
function votesOf(pairs, question) {
  const rows = pairs.filter(({ answer }) => answer).map(({ number, first, second, answer }) => (
    [number, question, first.file, second.file, answer]));
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return [["pair", "question", "first", "second", "answer"], ...rows].map((row) => `${row.map(quoted).join(",")}\n`).join("");
}

function blindPage(data) {
  const list = document.getElementById("list");
  const pairs = data.pairs.map(([first, second], i) => ({ number: i + 1, first: data.ideas[first], second: data.ideas[second], answer: null }));
  const parts = setUp(data, (cards) => pairs.forEach((pair, i) => list.append(
    pairSection(pair, cards.slice(2 * i, 2 * i + 2), data.question, (answer) => vote(pair, answer)))),
  (...about) => new BlindCard(...about));
  const save = element("button", { type: "button", class: "wide", onclick: () => {
    saveFile("votes.csv", "text/csv", votesOf(pairs, data.question));
    say(`${count(pairs.filter(({ answer }) => answer).length, "vote")} in votes.csv`);
  } }, "Export votes");
  const vote = (pair, answer) => {
    pair.answer = answer;
    memory.set(`vote:${pair.first.hash}:${pair.second.hash}:${data.question}`, answer);
    show();
  };
  const show = () => {
    const voted = pairs.filter(({ answer }) => answer).length;
    save.textContent = `Export ${count(voted, "vote")} of ${pairs.length}`;
    save.disabled = !voted;
  };
  document.getElementById("actions").append(save);
  show();
  return { ...parts, votes: () => votesOf(pairs, data.question) };
}

function pairSection(pair, cards, question, onVote) {
  pair.answer = memory.get(`vote:${pair.first.hash}:${pair.second.hash}:${question}`) ?? null;
  const choices = Object.entries(ANSWERS).map(([answer, label]) => {
    const radio = element("input", { type: "radio", name: `pair-${pair.number}`, value: answer, onchange: () => onVote(answer) });
    radio.checked = pair.answer === answer;
    return element("label", { class: "choice" }, radio, label);
  });
  return element("section", { class: "pair", "aria-label": `Pair ${pair.number}` },
    ...cards.map((card) => card.root),
    element("fieldset", {}, element("legend", {}, QUESTIONS[question]), ...choices));
}
