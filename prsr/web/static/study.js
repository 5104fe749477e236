"use strict";
const form = document.getElementById("pair");
let sent = false;

form.addEventListener("submit", (event) => {
  if (sent) event.preventDefault();
  sent = true;
});

document.addEventListener("keydown", (event) => {
  const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
  if (!side || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  form.requestSubmit(document.getElementById(side));
});

// Going back must not bring back a pair that has an answer.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
