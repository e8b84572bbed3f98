// What neither HTML nor htmx does by itself. Everything works without it, but for what it adds.
"use strict";

// A second press while the first is under way would only make its user wait twice.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.submitter?.formTarget) {
    // It goes to the preview's frame, and this page stays.
    document.querySelector("iframe.empty")?.classList.remove("empty");
    return;
  }
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
// A frame without a page is white, whatever the theme.
const empty = () => document.querySelector("iframe[name=preview]")?.classList.add("empty");
document.addEventListener("DOMContentLoaded", empty);
document.addEventListener("htmx:afterSwap", empty);
// The browser may show the page again as it was when it was left.
addEventListener("pageshow", () => {
  document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
});

// What asks for itself again and gets no answer goes on asking; the reader should know.
const trouble = (text) => {
  const notice = document.getElementById("trouble");
  notice.hidden = !text;
  notice.textContent = text;
};
addEventListener("htmx:sendError", () => trouble("The relay does not answer. What you see is as it was before."));
addEventListener("htmx:responseError", ({ detail }) =>
  trouble(`The relay answered ${detail.xhr.status}. What you see is as it was before.`));
addEventListener("htmx:afterSwap", () => trouble(""));

// What a reader has unfolded stays so when its part of the page is replaced.
let unfolded = [];
addEventListener("htmx:beforeSwap", () => {
  unfolded = Array.from(document.querySelectorAll("details[id][open]"), ({ id }) => id);
});
addEventListener("htmx:afterSwap", () => unfolded.forEach((id) => {
  const details = document.getElementById(id);
  if (details) details.open = true;
}));
