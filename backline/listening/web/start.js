"use strict";
// Puts the page together that its data ask for. `window.page` is there for tests.

{
  const data = JSON.parse(document.getElementById("data").textContent);
  document.title = data.title;
  document.getElementById("title").textContent = data.title;
  document.getElementById("summary").textContent = data.summary;
  const makePage = data.pairs ? blindPage : data.plain ? plainPage : ideasPage;
  window.page = makePage(data);
}
