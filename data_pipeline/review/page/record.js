// What the review page shows of one record, its images among it. Texts of records go through textContent only.
// Where it comes from and what is done to it is review.js's.
"use strict";

const $ = (id) => document.getElementById(id);

function write(element, text) {
  element.textContent = text?.text ?? "";
  if (text?.lang) element.lang = text.lang; else element.removeAttribute("lang");
}

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (typeof text === "string") element.textContent = text; else if (text) write(element, text);
  if (className) element.className = className;
  return element;
}

function section(name, text) {
  write($(name), text);
  $(`${name}-box`).hidden = !text?.text;
}

function record(item) {
  const texts = item.mine?.texts ?? item.texts;
  write($("question"), texts.question);
  write($("answer"), texts.answer);
  section("reasoning", texts.reasoning);
  section("fact", item.fact);
  section("context", item.context);
  $("also").hidden = !item.also.length;
  $("also").replaceChildren("Also accepted: ", ...item.also.flatMap((text, i) => [i ? " · " : "", make("span", text)]));
  const { split, topic, task } = item.about;
  $("about").replaceChildren(...[topic, task, split].filter(Boolean).map((word) => make("span", word, "chip")),
    make("span", item.id, "id"));
  showImages(item);
  $("earlier-box").hidden = !item.earlier.length;
  $("earlier").replaceChildren(...item.earlier.map((turn) => {
    const line = make("p", "", "text");
    line.append(make("b", turn.role === "assistant" ? "Answer: " : turn.role === "user" ? "Question: " : "System: "),
      make("span", turn));
    return line;
  }));
  const flags = item.flags ?? [];
  $("flags-box").hidden = !flags.length;
  $("flags").replaceChildren(...flags.map((flag) => make("li", flag)));
  $("mine").hidden = !item.mine;
  $("mine").className = `mine ${item.mine?.verdict ?? ""}`;
  $("mine").replaceChildren(...(item.mine ? verdict("You", item.mine) : []));
  const others = item.others ?? [];
  $("others-box").hidden = !others.length;
  $("others").replaceChildren(...others.map((other) => {
    const block = make("div", "", `mine ${other.verdict}`);
    block.append(...verdict(other.reviewer, other), ...rewritten(other.texts));
    return block;
  }));
}

function verdict(who, one) {
  const why = [one.reason, one.note].filter(Boolean).join(": ");
  const line = make("p", "");
  line.append(make("b", who), ` ${one.verdict} this`, why ? ` – ${why}` : "");
  return [line];
}

function rewritten(texts) {
  return Object.entries(texts ?? {}).filter(([, text]) => text).map(([name, text]) => {
    const line = make("p", "", "text");
    line.append(make("b", `${name}: `), make("span", text));
    return line;
  });
}

function showImages(item) {
  $("images").replaceChildren(...Array.from({ length: item.images }, (_, number) => {
    const button = make("button", "", "image");
    const name = item.images > 1 ? `Image ${number + 1} of ${item.images}` : "Image";
    button.setAttribute("aria-label", `${name}: enlarge`);
    const image = make("img");
    image.alt = `${name} of this record`;
    image.src = `/image/${item.key}/${number}`;
    image.addEventListener("error", () => missing(button, image.src));
    button.append(image);
    button.addEventListener("click", () => enlarge(image));
    return button;
  }));
  if (!item.images) $("images").append(make("p", "This record shows no image.", "note"));
}

async function missing(button, address) {
  const reason = await fetch(address).then(async (answer) => (answer.ok ? "" : reasonIn(await answer.text())), () => "");
  button.replaceWith(make("p", `The image cannot be shown${reason && `: ${reason}`}`, "wrong"));
}

function enlarge(image) {
  if (!image?.complete || !image.naturalWidth) return;
  $("zoom").src = image.src;
  $("zoom").alt = image.alt;
  $("zoom-dialog").showModal();
}
