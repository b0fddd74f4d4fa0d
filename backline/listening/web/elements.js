"use strict";
// What the other files make the page of.

/** An element with attributes, and children that are elements or text. Attributes that are null are left out. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style" && value) made.style.cssText = value; // as an attribute, the studio's headers forbid it
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const ICONS = { // 24 × 24, filled
  play: "M8 5v14l11-7z",
  pause: "M7 5h4v14H7zM13 5h4v14h-4z",
  stop: "M6 6h12v12H6z",
  star: "M12 2.8l2.85 5.9 6.4.9-4.65 4.5 1.15 6.4L12 17.4l-5.75 3.1 1.15-6.4L2.75 9.6l6.4-.9z",
  loop: "M7 7h10v3l4-4-4-4v3H5v6h2zM17 17H7v-3l-4 4 4 4v-3h12v-6h-2z",
  mixer: "M5 3h2v9H5zM4 13h4v3H4zM5 17h2v4H5zM11 3h2v3h-2zM10 7h4v3h-4zM11 11h2v10h-2zM17 3h2v11h-2zM16 15h4v3h-4zM17 19h2v2h-2z",
  file: "M11 3h2v9.2l3.3-3.3 1.4 1.4L12 16l-5.7-5.7 1.4-1.4 3.3 3.3zM5 18h14v2H5z",
};

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon and a name for screen readers. */
function iconButton(name, label, onclick, attributes = {}) {
  return element("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

/** Let the browser save text or bytes as a file. */
function saveFile(name, type, data) {
  const url = URL.createObjectURL(new Blob([data], { type }));
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Seconds as minutes and seconds. */
function clock(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** A command, and a button that copies it. */
function copyable(command) {
  const code = element("code", {}, command);
  const button = element("button", { type: "button", class: "small", onclick: async () => {
    try {
      await navigator.clipboard.writeText(command);
      say("Copied.");
    } catch {
      getSelection().selectAllChildren(code);
      say("Copy it with the keyboard: it is selected.");
    }
  } }, "Copy");
  return element("span", {}, code, " ", button);
}

/** A path as a shell takes it. */
function shellQuoted(text) {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function say(text) {
  document.getElementById("message").textContent = text;
}

function count(n, what) {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

/** What the page keeps in this browser, as JSON by key; only while it is open where the browser keeps nothing. */
const memory = {
  kept: new Map(),
  get(key) {
    try {
      return JSON.parse(localStorage.getItem(key)) ?? this.kept.get(key);
    } catch {
      return this.kept.get(key);
    }
  },
  set(key, value) {
    this.kept.set(key, value);
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      say("This browser keeps nothing for this page: export before you close it.");
    }
  },
};
